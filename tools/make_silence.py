#!/usr/bin/env python3
"""Make recordings in which nobody speaks, with an empty transcript, for training and for tests.

    python tools/make_silence.py --share 0.05 --recordings musan/noise.list \\
        --wav_dir data/silence/wav data/train.jsonl data/silence.jsonl

There are as many as make up --share of the manifest and themselves together; their lengths are
drawn from those of the manifest. Silence, noise and excerpts of --recordings (noise or music
without speech) come in equal numbers. In the mixture the list is a source with without_speech:
true. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.dataset import without_speech  # noqa: E402
from wenet_osum.dataset.augment import read_list  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    dropped = Dropped()
    try:
        written = _make(args, dropped)
    except (ValueError, OSError) as error:
        print(f"make_silence.py: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {written} recordings without speech, {dropped.total()} left out")
    if dropped:
        print(table(dropped))
    return 0 if written else 1


def _make(args: argparse.Namespace, dropped: Dropped) -> int:
    """Write the recordings and their manifest; returns how many there are."""
    rows = list(read_manifest(args.manifest, dropped))
    count = without_speech.how_many(len(rows), args.share)
    made = without_speech.make(
        count,
        without_speech.durations(rows, args.manifest, dropped),
        args.wav_dir,
        dropped,
        _sources(args.recordings),
        args.recordings or "",
        args.seed,
    )
    return write_manifest(args.out, made)


def _sources(path: str | None) -> Sequence[Utterance]:
    """Return the recordings of a list: a manifest, or a path per line."""
    if not path:
        return []
    if Path(path).suffix == ".jsonl":
        return list(read_manifest(path))
    return [Utterance(Path(wav).stem, wav) for wav in read_list(path)]


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = args.add_argument
    add("--share", type=float, default=0.05, help="share of all utterances (0.05)")
    add("--recordings", help="noise or music without speech: a path per line, or a .jsonl manifest")
    add("--wav_dir", required=True, help="folder of the recordings to write")
    add("--seed", type=int, default=777, help="of what is drawn (777)")
    add("manifest", help="the utterances that they are to stand among")
    add("out", help="manifest to write")
    return args


if __name__ == "__main__":
    sys.exit(main())
