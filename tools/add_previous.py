#!/usr/bin/env python3
"""Add to each segment of a manifest the text of the segment before it in the same recording.

    python tools/add_previous.py data/train.jsonl data/train_previous.jsonl

Rows of one recording have the same wav, and start and end in seconds. The text goes to the field
`previous`, which prompts can tell the model (`context.previous` in a training yaml, {previous} in a
wording). Rows without a segment before them stay as they are. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.previous import with_previous  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.scan import located  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    counts: Counter = Counter()
    dropped = Dropped()
    try:
        rows = list(located(read_manifest(args.manifest, dropped), args.manifest))
        written = write_manifest(args.out, with_previous(rows, counts, args.longest_gap_s))
    except (ValueError, OSError) as error:
        print(f"add_previous.py: {error}", file=sys.stderr)
        return 1
    added = written - counts.total()
    print(f"{args.out}: {written} utterances, {added} with the text before")
    for reason, times in counts.most_common():
        print(f"  {times} without: {reason}")
    if dropped:
        print(f"left out:\n{table(dropped)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument(
        "--longest_gap_s",
        type=float,
        default=30.0,
        help="seconds after which what was said before is told no longer (%(default)s)",
    )
    args.add_argument("manifest", help="JSON lines, with start and end")
    args.add_argument("out", help="manifest to write")
    return args


if __name__ == "__main__":
    sys.exit(main())
