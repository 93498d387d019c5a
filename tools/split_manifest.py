#!/usr/bin/env python3
"""Split a manifest by speaker (or recording, or sentence) into shares of its hours, labels balanced: OUT/<name>.jsonl.

    python tools/split_manifest.py data/all.jsonl data --shares train=0.8 dev=0.1 test=0.1 --balance gender age
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


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", nargs="+", required=True, metavar="NAME=SHARE", help="splits and their shares; their sum is the whole")
    parser.add_argument("--by", default="speaker", help="what stays together: speaker, sentence, recording (speaker)")
    parser.add_argument("--balance", nargs="*", default=[], help="label fields whose shares are kept too, e.g. gender age emotion")
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("manifest")
    parser.add_argument("out", help="folder")
    args = parser.parse_args(argv)
    dropped = Dropped()
    try:
        shares = {name: float(share) for name, _, share in (item.partition("=") for item in args.shares)}
        splits = split_by(list(read_manifest(args.manifest, dropped)), shares, args.by, args.balance, args.seed)
        notes = check_disjoint(splits, [args.by])
        for name, rows in splits.items():
            write_manifest(Path(args.out) / f"{name}.jsonl", rows)
    except (ValueError, OSError) as error:
        print(f"split_manifest.py: {error}", file=sys.stderr)
        return 1
    print("\n".join([*summary(splits), *(f"note: {line}" for line in notes)]))
    if dropped:
        print(f"left out:\n{table(dropped)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
