#!/usr/bin/env python3
"""Pack recordings into tar shards and write their list. Input is Kaldi's wav.scp and text, as with WeNet's tool of this name, or a manifest."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_kaldi, read_manifest  # noqa: E402
from wenet_osum.dataset.shard import pack, write_list  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """The command line: ``[wav_file text_file] shards_dir shards_list``."""
    args = argparse.ArgumentParser(description=__doc__, usage="%(prog)s [options] (wav_file text_file | --manifest FILE) shards_dir shards_list")
    args.add_argument("--num_utts_per_shard", type=int, default=1000, help="utterances a shard (1000)")
    args.add_argument("--num_threads", type=int, default=1, help="processes that pack (1)")
    args.add_argument("--prefix", default="shards", help="shards are named PREFIX_000000000.tar (shards)")
    args.add_argument("--segments", help="Kaldi segments file: key recording start_s end_s")
    args.add_argument("--manifest", help="JSON lines with all fields, instead of wav_file and text_file")
    args.add_argument("--layout", default="json", choices=["json", "osum"], help="osum: as the published OSUM reads, target composed in .txt")
    args.add_argument("--resample", type=int, help="Hz; other rates become 16-bit mono WAV at this one (default: audio is copied)")
    args.add_argument("--shuffle", action="store_true", help="shuffle the utterances before packing")
    args.add_argument("--seed", type=int, default=777, help="of the shuffle (777)")
    args.add_argument("paths", nargs="+", help="wav_file text_file shards_dir shards_list; with --manifest only the last two")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    known = parser()
    args = known.parse_args(argv)
    wanted = 2 if args.manifest else 4
    if len(args.paths) != wanted or (args.manifest and args.segments):
        known.error(f"expected {wanted} paths {'and no --segments ' if args.manifest else ''}, got {len(args.paths)}: {' '.join(args.paths)}")
    *inputs, shards_dir, shards_list = args.paths
    dropped = Dropped()
    try:
        utterances = list(read_manifest(args.manifest, dropped) if args.manifest else read_kaldi(*inputs, args.segments, dropped))
        if args.shuffle:
            random.Random(args.seed).shuffle(utterances)
        report = pack(utterances, shards_dir, args.num_utts_per_shard, args.prefix, args.layout, args.num_threads, args.resample)
        if report.paths:
            write_list(shards_list, report.paths)
    except (ValueError, OSError) as error:
        print(f"make_shard_list.py: {error}", file=sys.stderr)
        return 1
    dropped.update(report.dropped)
    print(f"{shards_list}: {sum(report.counts)} utterances in {len(report.paths)} shards, {dropped.total()} left out")
    if dropped:
        print(table(dropped))
    return 0 if report.paths else 1


if __name__ == "__main__":
    sys.exit(main())
