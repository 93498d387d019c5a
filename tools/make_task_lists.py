#!/usr/bin/env python3
"""Write one raw list per task out of one manifest: OUT/<task>.list holds the utterances that have all fields of the task."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.task_lists import choose  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", required=True, help='task names or tags without inner spaces, e.g. "asr ser <AGE><GENDER>"')
    parser.add_argument("--limit", type=int, help="utterances a task at most, taken at even distances")
    parser.add_argument("manifest", help="manifest or raw list")
    parser.add_argument("out", help="folder to write the lists into")
    args = parser.parse_args(argv)
    try:
        utterances = list(read_manifest(args.manifest))
        for name in args.tasks.split():
            count = write_manifest(Path(args.out) / f"{name}.list", choose(utterances, name, args.limit))
            print(f"{args.out}/{name}.list: {count} of {len(utterances)} utterances")
    except (ValueError, OSError) as error:
        print(f"make_task_lists.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
