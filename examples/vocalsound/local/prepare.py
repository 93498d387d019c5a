#!/usr/bin/env python3
"""VocalSound → manifests of train, dev and test with the vocal event of each clip, by the official
splits.

Reads ``datafiles/{tr,val,te}.json`` and ``audio_16k/<speaker>_<n>_<sound>.wav``. Labels are those
of the map wenet_osum/tasks/maps/vocalsound.yaml.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path, PurePosixPath

from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.events import named
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.files import write_text
from wenet_osum.records import Utterance
from wenet_osum.tasks import label_map
from wenet_osum.tasks.ved import EVENT

DISJOINT = ["speaker", "recording"]  # what train, dev and test must not share
# split: its list, its clips by the paper (arXiv 2205.03433); released lists are reported to be a
# little shorter
OFFICIAL = {"train": ("tr", 15570), "dev": ("val", 1860), "test": ("te", 3594)}
NAME = re.compile(r"([fm]\d+)_(\d+)_(\w+)")
GENDERS = {"f": "female", "m": "male"}


def read_list(data_dir: Path, name: str) -> list[str]:
    """File names of an official list, whose paths are those of its makers' machine. Raises
    ValueError when it is missing or no such list.
    """
    path = data_dir / f"datafiles/{name}.json"
    if not path.exists():
        raise ValueError(f"no {path}; run stage -1, or point --data_dir at the unpacked archive")
    try:
        return [
            PurePosixPath(row["wav"]).name
            for row in json.loads(path.read_text(encoding="utf-8"))["data"]
        ]
    except (ValueError, KeyError, TypeError) as fault:
        raise ValueError(
            f'{path} must read {{"data": [{{"wav": …}}, …]}}: {fault!r}; download it again'
        ) from None


def read_split(data_dir: Path, names: list[str], dropped: Dropped) -> tuple[list[Utterance], int]:
    """The clips with a label of ours, and how many of the list are there in all."""
    events, found, total = label_map.load("vocalsound"), [], 0
    for name in names:
        path, match = data_dir / "audio_16k" / name, NAME.fullmatch(Path(name).stem)
        try:
            if match is None:
                raise ValueError("file name of another form")
            seconds = round(read_duration(path), 4)
        except ValueError as fault:
            note(dropped, name, getattr(fault, "reason", str(fault)))
            continue
        total += 1
        label = events.label("event", match[3])
        if label is None:
            note(dropped, name, f"no label for {match[3]}")
            continue
        labels = {"event": label, "gender": GENDERS[match[1][0]]}
        extra = {"corpus": "vocalsound", "sound": match[3]}
        found.append(
            Utterance(
                path.stem,
                str(path),
                "",
                speaker=match[1],
                labels=labels,
                duration=seconds,
                extra=extra,
            )
        )
    return found, total


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the lists to the manifests. Raises ValueError for whatever is wrong with
    them.
    """
    dropped, splits = Dropped(), {}
    for split, (name, clips) in OFFICIAL.items():
        names = read_list(options.data_dir, name)
        splits[split], total = read_split(options.data_dir, names, dropped)
        print(check_count(f"vocalsound {split} clips", total, len(names), options.strict_counts))
        print(check_count(f"vocalsound {split} list, beside the paper's figure", len(names), clips))
    write_splits(options.out, splits, DISJOINT, dropped)
    # The clips have no words to make a tokenizer and a small LLM from: each event is named instead.
    labels = EVENT.labels.names
    lines = [f"{label}\n" for label in labels]
    write_text(options.out / "text/train.txt", "".join(lines))
    write_manifest(options.out / "text/written.jsonl", named(labels))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    folder = "the unpacked archive, with audio_16k/ and datafiles/ in it"
    return command.parser(
        __doc__, folder, "stop unless every clip of the lists is there"
    ).parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
