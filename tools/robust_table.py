#!/usr/bin/env python3
"""Write the robustness table of a model: a row per condition.

    python tools/robust_table.py --conditions data/robust/conditions --out exp/4_lora/robust.md \\
        exp/4_lora/robust_score

Rows are in the order of the file that make_robust_lists.py writes. The folder holds
CONDITION/score.json for each. Figures come with their intervals and the difference to the first
condition. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.files import write_text  # noqa: E402
from wenet_osum.report.robust_table import read, table  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--conditions",
        type=Path,
        required=True,
        help="names of the conditions, one a line; the first is what others are compared with",
    )
    parser.add_argument("--out", type=Path, help="markdown file to write the table into as well")
    parser.add_argument("scores", type=Path, help="folder with CONDITION/score.json")
    args = parser.parse_args(argv)
    try:
        names = args.conditions.read_text(encoding="utf-8").split()
        text = table({name: read(args.scores / name / "score.json") for name in names})
        if args.out:
            write_text(args.out, text)
    except (ValueError, OSError) as error:
        print(f"robust_table.py: {error}", file=sys.stderr)
        return 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
