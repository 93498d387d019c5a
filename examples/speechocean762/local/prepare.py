#!/usr/bin/env python3
"""speechocean762 → manifests of train, dev and test with transcript, gender and age.

Reads the official Kaldi folders ``train`` and ``test``; dev is a tenth of the training speakers.
Transcripts, which the corpus has in capitals, become lower case unless ``--case keep`` is given.
Writes ``{split}/manifest.jsonl`` and ``text/train.txt``.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.split import split_by, values
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.formats import kaldi
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import Utterance

DISJOINT = ["speaker", "recording"]  # what train, dev and test must not share
OFFICIAL = {"train": (2500, 125), "test": (2500, 125)}  # utterances, speakers
DEV_SHARE = 0.1  # of the training speakers' speech


def read_split(data_dir: Path, name: str, case: str, dropped: Dropped) -> list[Utterance]:
    """Read the utterances of one official folder; paths in wav.scp count from ``data_dir``.

    Raises ValueError when the folder is not there.
    """
    found = []
    for utterance in kaldi.read(str(data_dir / name), dropped, ""):
        path = data_dir / utterance.wav
        known = {"wav": str(path), "lang": "en"}
        # Published models have hardly seen sentences in capitals: their tokens are those of spelled
        # letters.
        if case == "lower" and utterance.txt:
            known["txt"] = utterance.txt.lower()
        try:
            known["duration"] = round(read_duration(path), 4)
        except ValueError as fault:
            note(dropped, utterance.key, getattr(fault, "reason", str(fault)))
            continue
        found.append(dataclasses.replace(utterance, **known))
    return found


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the official folders to the lists. Raises ValueError for whatever is wrong
    with them.
    """
    dropped = Dropped()
    read = partial(read_split, options.data_dir, case=options.case, dropped=dropped)
    official = {name: read(name) for name in OFFICIAL}
    for name, (utterances, speakers) in OFFICIAL.items():
        print(
            check_count(
                f"speechocean762 {name} utterances",
                len(official[name]),
                utterances,
                options.strict_counts,
            )
        )
        print(
            check_count(
                f"speechocean762 {name} speakers",
                len(values(official[name], "speaker")),
                speakers,
                options.strict_counts,
            )
        )
    shares = {"train": 1 - DEV_SHARE, "dev": DEV_SHARE}
    splits = split_by(official["train"], shares, balance=["age", "gender"], seed=options.seed) | {
        "test": official["test"]
    }
    write_splits(options.out, splits, DISJOINT, dropped)
    age = tasks.parse("sap").fields[-1]
    for name, rows in splits.items():
        print(
            f"{name}: {sum(not age.present(u) for u in rows)} of {len(rows)} utterances have no "
            "age group (13 to 17 years, or not known)"
        )


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(
        __doc__,
        "the official folder, with WAVE/, train/ and test/ in it",
        "stop unless the corpus is complete",
    )
    parser.add_argument("--case", choices=("lower", "keep"), default="lower", help="of transcripts")
    parser.add_argument("--seed", type=int, default=777, help="of the choice of dev speakers")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
