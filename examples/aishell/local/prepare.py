#!/usr/bin/env python3
"""AISHELL-1 → manifests of train, dev and test with transcript, speaker and gender.

Reads ``wav/{train,dev,test}/S####/*.wav``, ``transcript/aishell_transcript_v0.8.txt`` and
``resource_aishell/speaker.info``; the split is the official one. Writes ``{split}/manifest.jsonl``
and ``text/train.txt``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.split import values
from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.formats import kaldi
from wenet_osum.dataset.headers import with_durations
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import Utterance
from wenet_osum.tasks import label_map

DISJOINT = ["speaker", "recording"]  # what train, dev and test must not share
OFFICIAL = {
    "train": (120_098, 340),
    "dev": (14_326, 40),
    "test": (7_176, 20),
}  # utterances with a transcript, speakers
TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"


def folder_of(data_dir: Path) -> Path:
    """The folder with wav/ in it. Raises ValueError when it is not there or its archives are still
    packed.
    """
    folder = data_dir if (data_dir / "wav").is_dir() else data_dir / "data_aishell"
    if not (folder / TRANSCRIPT).is_file():
        raise ValueError(
            f"no {TRANSCRIPT} in {folder}; give --data_dir a folder with data_aishell/ in it, or "
            "run stage -1"
        )
    if packed := [*(folder / "wav").glob("*.tar.gz")]:
        raise ValueError(
            f"{len(packed)} speakers are still packed, e.g. {packed[0].name}; unpack them all in "
            f"{folder / 'wav'}: tar -xzf NAME"
        )
    return folder


def read_genders(folder: Path) -> dict[str, str]:
    """Speaker → our label, from speaker.info beside the corpus; its lines read ``0002 F``. Empty,
    with a note, when there is no such file.
    """
    places = [
        folder.parent / "resource_aishell/speaker.info",
        folder / "resource_aishell/speaker.info",
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        print(f"note: no {places[0]}: gender is not known; give run.sh --tasks asr")
        return {}
    labels = label_map.load("aishell1")
    return {
        f"S{speaker.removeprefix('S')}": labels.label("gender", gender)
        for speaker, gender in kaldi.table(found).items()
    }


def read_split(
    folder: Path, name: str, texts: dict[str, str], genders: dict[str, str], dropped: Dropped
) -> Iterator[Utterance]:
    """The recordings of a split that have a transcript; words there are set apart by spaces, which
    Mandarin does not write.
    """
    for path in sorted((folder / "wav" / name).glob("*/*.wav")):
        text, speaker = "".join(texts.pop(path.stem, "").split()), path.parent.name
        if text:
            yield Utterance(
                path.stem,
                str(path),
                text,
                lang="zh",
                speaker=speaker,
                labels={"gender": genders.get(speaker)},
            )
        else:
            note(dropped, path.stem, f"{name}: recording without a transcript")


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the official folders to the lists. Raises ValueError for whatever is wrong
    with them.
    """
    dropped, folder = Dropped(), folder_of(options.data_dir)
    texts, genders = kaldi.table(folder / TRANSCRIPT), read_genders(folder)
    splits = {
        name: list(with_durations(read_split(folder, name, texts, genders, dropped), dropped))
        for name in OFFICIAL
    }
    for key in texts:
        note(dropped, key, "transcript without a recording")
    for name, (utterances, speakers) in OFFICIAL.items():
        print(
            check_count(
                f"aishell {name} utterances", len(splits[name]), utterances, options.strict_counts
            )
        )
        print(
            check_count(
                f"aishell {name} speakers",
                len(values(splits[name], "speaker")),
                speakers,
                options.strict_counts,
            )
        )
    write_splits(options.out, splits, DISJOINT, dropped)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    folder = "folder with data_aishell/ and resource_aishell/ in it, speakers unpacked"
    return command.parser(__doc__, folder, "stop unless the corpus is complete").parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
