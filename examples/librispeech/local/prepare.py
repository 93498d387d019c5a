#!/usr/bin/env python3
"""LibriSpeech → manifests of train, dev, test_clean and test_other with transcript, speaker and
gender.

Reads ``{part}/speaker/chapter/*.flac`` with ``*.trans.txt`` beside them, and ``SPEAKERS.TXT``. Dev
is dev-clean and dev-other. Writes ``{split}/manifest.jsonl`` and ``text/train.txt``; transcripts
stay in capitals, as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from wenet_osum import lookup
from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.split import values
from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.formats import kaldi
from wenet_osum.dataset.headers import with_durations
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import Utterance

DISJOINT = ["speaker", "recording"]  # what train, dev and the test sets must not share
OFFICIAL = {  # utterances, speakers
    "train-clean-100": (28_539, 251),
    "train-clean-360": (104_014, 921),
    "train-other-500": (148_688, 1_166),
    "dev-clean": (2_703, 40),
    "dev-other": (2_864, 33),
    "test-clean": (2_620, 40),
    "test-other": (2_939, 33),
}
HELD_OUT = {
    "dev": ["dev-clean", "dev-other"],
    "test_clean": ["test-clean"],
    "test_other": ["test-other"],
}


def read_genders(path: Path) -> dict[str, str]:
    """Return the gender of each speaker from SPEAKERS.TXT.

    Its lines read ``14 | F | train-clean-360 | 25.03 | name``; ``;`` begins a remark.
    """
    if not path.is_file():
        print(f"note: no {path}: gender is not known")
        return {}
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith(";")
    ]
    names = {"F": "female", "M": "male"}
    genders = {}
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 2 or cells[1] not in names:
            raise ValueError(
                f"{path}: a line must read 'speaker | F or M | part | minutes | name', got {line!r}"
            )
        speaker, letter, *_ = cells
        genders[speaker] = names[letter]
    return genders


def read_part(folder: Path, genders: dict[str, str], dropped: Dropped) -> Iterator[Utterance]:
    """The recordings of a part, chapter by chapter; those without a line in their chapter's
    transcript, and lines without a recording, are counted.
    """
    for chapter in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        speaker = chapter.parent.name
        texts = kaldi.table(chapter / f"{speaker}-{chapter.name}.trans.txt")
        for path in sorted(chapter.glob("*.flac")):
            if text := texts.pop(path.stem, ""):
                yield Utterance(
                    path.stem,
                    str(path),
                    text,
                    lang="en",
                    speaker=speaker,
                    labels={"gender": genders.get(speaker)},
                )
            else:
                note(dropped, path.stem, f"{folder.name}: recording without a transcript")
        for key in texts:
            note(dropped, key, f"{folder.name}: transcript without a recording")


def read_split(
    options: argparse.Namespace, parts: list[str], genders: dict[str, str], dropped: Dropped
) -> list[Utterance]:
    """The utterances of some parts, counted against the official figures. A part that is not there
    is said, and stops with --strict_counts.
    """
    rows: list[Utterance] = []
    for part in parts:
        if not (options.data_dir / part).is_dir():
            line = f"librispeech {part}: subset: 0 of {OFFICIAL[part][0]}, the folder is not there"
            if options.strict_counts:
                raise ValueError(f"{line}; --strict_counts wants all parts: download it")
            print(line)
            continue
        found = list(with_durations(read_part(options.data_dir / part, genders, dropped), dropped))
        for what, number, official in zip(
            ("utterances", "speakers"),
            (len(found), len(values(found, "speaker"))),
            OFFICIAL[part],
            strict=True,
        ):
            print(
                check_count(f"librispeech {part} {what}", number, official, options.strict_counts)
            )
        rows += found
    return rows


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the official folders to the lists. Raises ValueError for whatever is wrong
    with them.
    """
    train = options.train.split()
    for part in train:
        if part not in OFFICIAL or not part.startswith("train"):
            known = [name for name in OFFICIAL if name.startswith("train")]
            raise ValueError(f"--train: {lookup.unknown('part', part, known)}")
    dropped, genders = Dropped(), read_genders(options.data_dir / "SPEAKERS.TXT")
    splits = {
        name: read_split(options, parts, genders, dropped)
        for name, parts in ({"train": train} | HELD_OUT).items()
    }
    if lacking := [name for name in ("train", "dev") if not splits[name]]:
        raise ValueError(
            f"nothing for {' and '.join(lacking)} in {options.data_dir}; give --data_dir the "
            "folder LibriSpeech/, or run stage -1"
        )
    splits = {name: rows for name, rows in splits.items() if rows}
    write_splits(options.out, splits, DISJOINT, dropped)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(
        __doc__, "the folder LibriSpeech/", "stop unless the parts are complete"
    )
    parser.add_argument(
        "--train",
        default="train-clean-100 train-clean-360 train-other-500",
        help="parts that are trained on",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
