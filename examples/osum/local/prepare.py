#!/usr/bin/env python3
"""A manifest a task → ``OUT/train/TASK.jsonl``, ``OUT/dev/TASK.list`` and, where there is a
``TASK.test.jsonl``, ``OUT/test/TASK.list``.

Utterances that lack a field of their task are left out and counted. Dev is taken by speaker where
speakers are named, else by key, up to ``--dev`` utterances; no speaker is then in both.
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
    """The utterances that can be asked ``task``. Raises ValueError when there are none. Prints how
    many are left out.
    """
    wanted = tasks.parse(task)
    every = list(read_manifest(path))
    found = [u for u in every if wanted.present(u)]
    print(
        f"{path}: {len(found)} of {len(every)} utterances hold "
        f"{', '.join(f.name for f in wanted.fields)}"
    )
    if not found:
        raise ValueError(
            f"{path} has no utterance for task {task}; take the task out of --tasks, or add its "
            "fields"
        )
    for utterance in found:
        utterance.wav = (
            utterance.wav
            if "://" in utterance.wav
            else str((path.parent / utterance.wav).resolve())
        )
    return found


def split(
    utterances: list[Utterance], most: int, share: float = SHARE
) -> tuple[list[Utterance], list[Utterance]]:
    """(train, dev): groups of a speaker, or single utterances, in the order of a hash of their
    name, until dev is full.
    """
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(
            f"speaker {utterance.speaker}" if utterance.speaker else f"key {utterance.key}", []
        ).append(utterance)
    order = sorted(groups, key=lambda name: zlib.crc32(name.encode()))
    chosen = set()
    dev = []
    for name in order[: max(1, round(share * len(order)))]:
        if len(dev) >= most or len(order) == 1:
            break
        chosen.add(name)
        dev += groups[name]
    return [u for name in groups if name not in chosen for u in groups[name]], dev[:most]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--dev", type=int, default=500, help="dev utterances a task at most")
    args = parser.parse_args(argv)
    try:
        for task in args.tasks.split():
            prepare(args.data_dir, args.out, task, args.dev)
    except (ValueError, OSError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(data_dir: Path, out: Path, task: str, most: int) -> None:
    """Write the lists of one task. Raises ValueError for a manifest that is missing or has nothing
    of the task, and for shared speakers.
    """
    source = data_dir / f"{task}.jsonl"
    test = data_dir / f"{task}.test.jsonl"
    if not source.exists():
        raise ValueError(
            f"{source} does not exist; write a manifest a task (README.md), or shorten tasks= in "
            "run.sh"
        )
    train, dev = split(usable(source, task), most)
    splits = {"train": train, "dev": dev} | ({"test": usable(test, task)} if test.exists() else {})
    if not dev:
        raise ValueError(
            f"{source} has one speaker or one utterance: nothing can be set aside for dev"
        )
    for note in check_disjoint(
        {name: rows for name, rows in splits.items() if name != "test"}, by=["speaker"]
    ):
        print(f"{task}: {note}")
    for name, rows in splits.items():
        write_manifest(out / name / f"{task}.{'jsonl' if name == 'train' else 'list'}", rows)


if __name__ == "__main__":
    sys.exit(main())
