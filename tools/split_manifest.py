#!/usr/bin/env python3
"""Split a manifest by speaker, recording or sentence into shares of its hours, labels balanced.

    python tools/split_manifest.py data/all.jsonl data --shares train=0.8 dev=0.1 test=0.1 \\
        --balance gender age

Writes OUT/NAME.jsonl for each share. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.split import check_disjoint, split_by  # noqa: E402
from wenet_osum.corpus.statistics import summary  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.scan import located, measure  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    dropped = Dropped()
    try:
        rows = read_manifest(args.manifest, dropped)
        utterances = list(located(rows, args.manifest))
        unmeasured = measure(utterances, args.manifest)
        splits = split_by(utterances, _shares(args.shares), args.by, args.balance, args.seed)
        notes = check_disjoint(splits, [args.by])
        for name, rows in splits.items():
            write_manifest(Path(args.out) / f"{name}.jsonl", rows)
    except (ValueError, OSError) as error:
        print(f"split_manifest.py: {error}", file=sys.stderr)
        return 1
    for line in summary(splits):
        print(line)
    for line in notes:
        print(f"note: {line}")
    if unmeasured:
        print(f"without a duration, counted as 1 s:\n{table(unmeasured)}")
    if dropped:
        print(f"left out:\n{table(dropped)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument(
        "--shares",
        nargs="+",
        required=True,
        metavar="NAME=SHARE",
        help="splits and their shares; their sum is the whole",
    )
    args.add_argument(
        "--by",
        default="speaker",
        help="what stays together: speaker, sentence, recording (speaker)",
    )
    args.add_argument(
        "--balance",
        nargs="*",
        default=[],
        help="label fields whose shares are kept too, e.g. gender age emotion",
    )
    args.add_argument("--seed", type=int, default=777)
    args.add_argument("manifest")
    args.add_argument("out", help="folder")
    return args


def _shares(items: list[str]) -> dict[str, float]:
    """Read NAME=SHARE; a share that is no number raises ValueError."""
    shares = {}
    for item in items:
        name, _, share = item.partition("=")
        if name in shares or not share:
            raise ValueError(f"--shares {item}: write NAME=SHARE, and each name once")
        shares[name] = float(share)
    return shares


if __name__ == "__main__":
    sys.exit(main())
