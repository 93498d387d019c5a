#!/usr/bin/env python3
"""Join the recordings of a list to long ones, to try how long audio is decoded.

    python tools/make_long_list.py data/test/asr.list data/long
    python -m wenet_osum.bin.recognize --model exp/4_lora/final --list data/long/manifest.jsonl \\
        --task srwt --out exp/4_lora/long
    python -m wenet_osum.bin.score --ref data/long/manifest.jsonl --hyp exp/4_lora/long \\
        --task srwt --out exp/4_lora/score_long

A recording is in one language; OUT/manifest.jsonl has transcripts and word times. Exit status: 0
done, 1 a fault.
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
        "--longest_s",
        type=float,
        default=600.0,
        help="seconds a recording may take (600)",
    )
    parser.add_argument("--limit", type=int, help="parts at most")
    parser.add_argument("manifest", help="list of short recordings with transcripts")
    parser.add_argument("out", help="folder for the list and its recordings")
    args = parser.parse_args(argv)
    dropped = Dropped()
    try:
        _join(args, Path(args.out), dropped)
    except (ValueError, OSError) as error:
        print(f"make_long_list.py: {error}", file=sys.stderr)
        return 1
    if dropped:
        print(table(dropped))
    return 1 if dropped else 0


def _join(args: argparse.Namespace, out: Path, dropped: Dropped) -> None:
    """Write the long recordings and their manifest; tells how long they are."""
    parts = list(read_manifest(args.manifest, dropped))[: args.limit]
    joined = join_list(
        parts,
        out / "wav",
        dropped,
        args.pause_s,
        args.longest_s,
        args.manifest,
    )
    made = list(joined)
    write_manifest(out / "manifest.jsonl", made)
    seconds = sum(utterance.duration for utterance in made)
    print(
        f"{out}/manifest.jsonl: {len(made)} recordings of {seconds:.0f} s, "
        f"joined from {len(parts)}, {dropped.total()} left out"
    )


if __name__ == "__main__":
    sys.exit(main())
