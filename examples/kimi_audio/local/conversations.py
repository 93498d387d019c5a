#!/usr/bin/env python3
"""Conversations of the prepared corpora, in Kimi-Audio's form: ``OUT/train.jsonl`` and ``OUT/test.jsonl``.

Two recordings are transcribed one after the other, and behind each the speaker's gender is asked for in
writing: the second question has no sound of its own, and its answer lies in what was heard before.

    user: prompt, recording · assistant: transcript · user: prompt · assistant: gender · user: …

Utterances with a transcript and a gender are used, neighbors together. With ``--given`` both files are there
already. ``--mixture`` names a data.yaml that gets a row for ``--list``, which tools/convert_manifest.py makes of
train.jsonl.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from wenet_osum import tasks
from wenet_osum.corpus import command
from wenet_osum.dataset.formats import kimi_audio
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.files import write_text
from wenet_osum.records import Utterance

SPLITS = ("train", "test")
TRANSCRIBE, GENDER = tasks.parse("asr"), tasks.parse("<GENDER>")
SPEAKERS = 2  # recordings of a conversation
PASSES = 2.0  # over the conversations, as of the other sets of conf/data.yaml
Prompts = dict[str, dict[str, list[str]]]


def usable(folder: Path, split: str) -> Iterator[Utterance]:
    """Yield the utterances of a corpus that can be asked both, their paths absolute."""
    path = folder / "data" / split / "manifest.jsonl"
    if not path.is_file():
        return
    for utterance in read_manifest(path):
        if utterance.txt and GENDER.present(utterance) and not utterance.turns:
            wav = (folder / utterance.wav).resolve()
            yield replace(utterance, key=f"{folder.name}-{utterance.key}", wav=str(wav))


def turns_of(utterance: Utterance, prompts: Prompts, number: int) -> list[Utterance]:
    """Return the two questions about a recording; ``number`` chooses their wording."""
    asked = []
    lang = "en" if utterance.lang == "en" else "zh"
    for task in (TRANSCRIBE, GENDER):
        own = prompts.get(task.tags, {}).get(lang) or task.prompts(lang)
        asked.append(replace(utterance, task=task.tags, prompt=own[number % len(own)]))
    spoken, written = asked
    return [spoken, replace(written, wav="", txt=None, start=None, end=None, duration=None)]


def conversations(utterances: Iterable[Utterance], prompts: Prompts) -> Iterator[Utterance]:
    """Yield a conversation of every two utterances."""
    waiting: list[Utterance] = []
    for number, utterance in enumerate(utterances):
        waiting += turns_of(utterance, prompts, number)
        if len(waiting) == 2 * SPEAKERS:
            *turns, last = waiting
            yield replace(last, key=f"talk-{last.key}", turns=turns)
            waiting = []


def add_row(mixture: Path, listed: Path) -> None:
    """Add the training conversations to a mixture, once."""
    table = yaml.safe_load(mixture.read_text(encoding="utf-8"))
    rows = [row for row in table["train"] if row["name"] != "talk"]
    # Each turn is asked its own task.
    rows.append({"name": "talk", "list": str(listed.resolve()), "weight": PASSES})
    text = yaml.safe_dump(table | {"train": rows}, allow_unicode=True, sort_keys=False)
    write_text(mixture, text)


def write(options: argparse.Namespace) -> None:
    """Write the conversations of each split; a split without any is named and left out."""
    prompts: Prompts = {}
    if options.prompts:
        prompts = yaml.safe_load(options.prompts.read_text(encoding="utf-8"))
    folders = sorted(path for path in options.data_dir.glob("*") if path.is_dir())
    for split in SPLITS:
        found = (utterance for folder in folders for utterance in usable(folder, split))
        lost: Counter = Counter()
        path = options.out / f"{split}.jsonl"
        count = kimi_audio.write(str(path), conversations(found, prompts), lost)
        if not count:
            path.unlink()
            looked = f"{options.data_dir}/*/data/{split}/manifest.jsonl"
            print(f"conversations of {split} are left out: no {SPEAKERS} utterances with transcript and gender in {looked}")
            continue
        print(f"{split}: {count} conversations", *(f"{times} × {reason}" for reason, times in lost.items()), sep="; ")


def prepare(options: argparse.Namespace) -> None:
    """Write the conversations, unless they are given, and the row of the mixture."""
    if not options.given:
        write(options)
    train = options.out / "train.jsonl"
    if options.given and not train.is_file():
        raise ValueError(f"{train} does not exist; --out must hold train.jsonl and may hold test.jsonl")
    if options.mixture and train.is_file():
        add_row(options.mixture, options.list or options.out / "train.list")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.parser(__doc__, "folder of prepared corpora")
    parser.add_argument("--prompts", type=Path, help="table of prompts; without it those of the toolkit")
    parser.add_argument("--given", action="store_true", help="the files are in OUT already")
    parser.add_argument("--mixture", type=Path, help="data.yaml that gets a row for the conversations")
    parser.add_argument("--list", type=Path, help="list of the row (OUT/train.list)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
