#!/usr/bin/env python3
"""Join the recordings of a list to long ones, one language each: OUT/manifest.jsonl with
transcripts and word times, to try how long audio is decoded.

    python tools/make_long_list.py data/test/asr.list data/long
    python -m wenet_osum.bin.recognize --model exp/4_lora/final --list data/long/manifest.jsonl \\
        --task srwt --out exp/4_lora/long
    python -m wenet_osum.bin.score --ref data/long/manifest.jsonl --hyp exp/4_lora/long \\
        --task srwt --out exp/4_lora/score_long

Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.joined import join_list  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pause_s",
        type=float,
        default=0.8,
        help="silence before, between and after the parts (0.8)",
    )
    parser.add_argument(
        "--longest_s", type=float, default=600.0, help="seconds a recording may take (600)"
    )
    parser.add_argument("--limit", type=int, help="parts at most")
    parser.add_argument("manifest", help="list of short recordings with transcripts")
    parser.add_argument("out", help="folder for the list and its recordings")
    args = parser.parse_args(argv)
    out, dropped = Path(args.out), Dropped()
    try:
        parts = [*read_manifest(args.manifest, dropped)][: args.limit]
        made = [
            *join_list(parts, out / "wav", dropped, args.pause_s, args.longest_s, args.manifest)
        ]
        write_manifest(out / "manifest.jsonl", made)
    except (ValueError, OSError) as error:
        print(f"make_long_list.py: {error}", file=sys.stderr)
        return 1
    print(
        f"{out}/manifest.jsonl: {len(made)} recordings of {sum(u.duration for u in made):.0f} s, "
        f"joined from {len(parts)}, {dropped.total()} left out"
    )
    if dropped:
        print(table(dropped))
    return 1 if dropped else 0


if __name__ == "__main__":
    sys.exit(main())
