#!/usr/bin/env python3
"""Training, dev and test lists out of a manifest per task.

They are ``OUT/train/TASK.jsonl``, ``OUT/dev/TASK.list`` and, where there is a ``TASK.test.jsonl``,
``OUT/test/TASK.list``. Utterances that lack a field of their task are left out and counted. Dev is
taken by speaker where speakers are named, else by key, up to ``--dev`` utterances; no speaker is
then in both.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.corpus.split import check_disjoint
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.records import Utterance

SHARE = 0.02  # of speakers, or of utterances without one, that go to dev


def usable(path: Path, task: str) -> list[Utterance]:
    """Read the utterances that can be asked ``task``; prints how many are left out.

    Raises ValueError when there are none.
    """
    wanted = tasks.parse(task)
    every = list(read_manifest(path))
    found = [utterance for utterance in every if wanted.present(utterance)]
    fields = ", ".join(field.name for field in wanted.fields)
    print(f"{path}: {len(found)} of {len(every)} utterances hold {fields}")
    if not found:
        raise ValueError(
            f"{path} has no utterance for task {task}; take the task out of --tasks, or add its "
            "fields"
        )
    for utterance in found:
        if "://" not in utterance.wav:
            wav = Path(utterance.wav)
            if not wav.exists():
                wav = path.parent / wav
            utterance.wav = str(wav.resolve())
    return found


def split(
    utterances: list[Utterance], most: int, share: float = SHARE
) -> tuple[list[Utterance], list[Utterance]]:
    """Return train and dev.

    Groups of a speaker, or single utterances, go to dev in the order of a hash of their name, until
    it is full.
    """
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        name = f"key {utterance.key}"
        if utterance.speaker:
            name = f"speaker {utterance.speaker}"
        groups.setdefault(name, []).append(utterance)
    order = sorted(groups, key=lambda name: zlib.crc32(name.encode()))
    wanted = max(1, round(share * len(order)))
    chosen = set()
    dev = []
    for name in order[:wanted]:
        if len(dev) >= most or len(order) == 1:
            break
        chosen.add(name)
        dev += groups[name]
    train = []
    for name, group in groups.items():
        if name not in chosen:
            train += group
    return train, dev[:most]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--dev", type=int, default=500, help="dev utterances per task at most")
    args = parser.parse_args(argv)
    try:
        for task in args.tasks.split():
            prepare(args.data_dir, args.out, task, args.dev)
    except (ValueError, OSError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(data_dir: Path, out: Path, task: str, most: int) -> None:
    """Write the lists of one task.

    Raises ValueError for a manifest that is missing or has nothing of the task, and for shared
    speakers.
    """
    source = data_dir / f"{task}.jsonl"
    if not source.exists():
        raise ValueError(
            f"{source} does not exist; write a manifest a task (README.md), or shorten tasks= in "
            "run.sh"
        )
    train, dev = split(usable(source, task), most)
    paths = {
        out / "train" / f"{task}.jsonl": train,
        out / "dev" / f"{task}.list": dev,
    }
    test = data_dir / f"{task}.test.jsonl"
    tested: list[Utterance] = []
    if test.exists():
        tested = usable(test, task)
        paths[out / "test" / f"{task}.list"] = tested
    if not dev:
        raise ValueError(
            f"{source} has one speaker or one utterance: nothing can be set aside for dev"
        )
    for note in check_disjoint({"train": train, "dev": dev}, by=["speaker"]):
        print(f"{task}: {note}")
    splits = {"train": train, "test": tested}
    for note in check_disjoint(splits, by=["recording"]):
        print(f"{task}: {note}")
    for path, rows in paths.items():
        write_manifest(path, rows)


if __name__ == "__main__":
    sys.exit(main())
