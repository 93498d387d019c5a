#!/usr/bin/env python3
"""Pack recordings into tar shards and write their list.

Input is Kaldi's wav.scp and text, as with WeNet's tool of this name, or a manifest. On several
machines, each with the same arguments and its own --job, e.g. a SLURM array or Kaldi's queue.pl:

    python tools/make_shard_list.py --job $SLURM_ARRAY_TASK_ID --num_jobs 16 --num_threads 8 \\
        --manifest train.jsonl shards data.list

The last job to finish writes data.list, of the parts of jobs that packed the same with the same
options. What is left out is named in data.list.left_out. A second
run packs only what is missing or has changed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.dataset import pack_jobs  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.kaldi_files import read_kaldi  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, without_white_keys  # noqa: E402
from wenet_osum.dataset.pack import Report, pack  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """Make the command line: ``[wav_file text_file] shards_dir shards_list``."""
    args = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] (wav_file text_file | --manifest FILE) shards_dir shards_list",
    )
    args.add_argument(
        "--num_utts_per_shard", type=int, default=1000, help="utterances per shard (1000)"
    )
    args.add_argument("--num_threads", type=int, default=1, help="processes that pack (1)")
    args.add_argument(
        "--prefix", default="shards", help="shards are named PREFIX_000000000.tar (shards)"
    )
    args.add_argument("--segments", help="Kaldi segments file: key recording start_s end_s")
    args.add_argument(
        "--manifest", help="JSON lines with all fields, instead of wav_file and text_file"
    )
    args.add_argument(
        "--layout",
        default="json",
        choices=["json", "osum"],
        help="osum: as the published OSUM reads, target composed in .txt",
    )
    args.add_argument(
        "--resample",
        type=int,
        help="Hz; other rates become 16-bit mono WAV at this one (default: audio is copied)",
    )
    args.add_argument(
        "--shuffle", action="store_true", help="shuffle the utterances before packing"
    )
    args.add_argument("--seed", type=int, default=777, help="of the shuffle (777)")
    args.add_argument("--job", type=int, default=1, help="which of the jobs this is, from 1 (1)")
    args.add_argument(
        "--num_jobs",
        type=int,
        default=1,
        help="jobs that share the work, here or on other machines (1)",
    )
    args.add_argument(
        "paths",
        nargs="+",
        help="wav_file text_file shards_dir shards_list; with --manifest only the last two",
    )
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    try:
        written = _pack(args)
    except (ValueError, OSError) as error:
        print(f"make_shard_list.py: {error}", file=sys.stderr)
        return 1
    return 0 if written or args.num_jobs > 1 else 1


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; the paths become ``inputs``, ``shards_dir`` and ``shards_list``."""
    known = parser()
    args = known.parse_args(argv)
    wanted = 2 if args.manifest else 4
    if len(args.paths) != wanted or (args.manifest and args.segments):
        forbidden = "and no --segments " if args.manifest else ""
        given = " ".join(args.paths)
        known.error(f"expected {wanted} paths {forbidden}, got {len(args.paths)}: {given}")
    *args.inputs, args.shards_dir, args.shards_list = args.paths
    return args


def _pack(args: argparse.Namespace) -> bool:
    """Pack this job's part, write its list, and tell; returns whether it has any shards."""
    dropped = Dropped()
    job = (args.job, args.num_jobs)
    digest = _digest(args) if args.num_jobs > 1 else ""
    pack_jobs.clear(args.shards_list, *job)
    packed = pack(
        _utterances(args, dropped),
        args.shards_dir,
        args.num_utts_per_shard,
        args.prefix,
        args.layout,
        args.num_threads,
        args.resample,
        part=job,
        checked=True,
        list_path=args.manifest or "",
    )
    # Every job reads the whole input; the first counts its faults.
    faults = packed.dropped
    if args.job == 1:
        dropped.add(faults)
        faults = dropped
    there = 0
    if packed.paths or args.num_jobs > 1:
        there = pack_jobs.finish(args.shards_list, *job, packed.paths, faults, digest)
    _tell(args, packed, there, faults)
    return bool(packed.paths)


def _digest(args: argparse.Namespace) -> str:
    """Hash what this job packs, and how: the same for all jobs of one list."""
    own = ("job", "num_threads", "paths", "inputs", "manifest", "segments")
    options = {name: value for name, value in vars(args).items() if name not in own}
    files = [args.manifest, args.segments, *args.inputs]
    return pack_jobs.digest_of(filter(None, files), options)


def _tell(args: argparse.Namespace, packed: Report, there: int, faults: Dropped) -> None:
    """Print what was packed, how many jobs' parts are there, and what was left out."""
    name = pack_jobs.part_of(args.shards_list, args.job, args.num_jobs)
    count = sum(packed.counts)
    shards = len(packed.paths)
    print(f"{name}: {count} utterances in {shards} shards, {faults.total()} left out")
    if args.num_jobs > 1:
        whole = f": {args.shards_list} is whole" if there == args.num_jobs else ""
        print(f"{there} of {args.num_jobs} parts are there{whole}")
    if faults:
        print(table(faults))
        examples = [f"{key} ({reason})" for key, reason in faults.pairs[:3]]
        everything = f"; all: {name}.left_out" if there else ""
        print(f"for example {', '.join(examples)}{everything}")


def _utterances(args: argparse.Namespace, dropped: Dropped) -> Iterable[Utterance]:
    """Read as they are packed; only Kaldi files are held to be shuffled."""
    if args.manifest and args.shuffle:
        shuffled = pack_jobs.read_shuffled(args.manifest, args.seed, dropped)
        return without_white_keys(shuffled, dropped)
    if args.manifest:
        return without_white_keys(read_manifest(args.manifest, dropped), dropped)
    wav_file, text_file = args.inputs
    utterances = list(read_kaldi(wav_file, text_file, args.segments, dropped))
    if args.shuffle:
        random.Random(args.seed).shuffle(utterances)
    return utterances


if __name__ == "__main__":
    sys.exit(main())
