#!/usr/bin/env python3
"""Make conversations of the prepared corpora in Kimi-Audio's form: ``OUT/train.jsonl`` and
``OUT/test.jsonl``.

Two recordings are transcribed one after the other. After each transcript the user asks in writing
for the speaker's gender; that question has no sound of its own and is about what was heard before.

    user: prompt, recording
    assistant: transcript
    user: prompt
    assistant: gender

Utterances with a transcript and a gender are used, neighbors together. With ``--given`` both files
are there already. ``--mixture`` names a data.yaml that gets a row for ``--list``, which
tools/convert_manifest.py makes of train.jsonl.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
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
        whole = utterance.txt and GENDER.present(utterance)
        if whole and not utterance.turns:
            wav = folder / utterance.wav
            key = f"{folder.name}-{utterance.key}"
            yield replace(utterance, key=key, wav=str(wav.resolve()))


def turns_of(utterance: Utterance, prompts: Prompts, number: int) -> list[Utterance]:
    """Return the two questions about a recording; ``number`` chooses their wording."""
    lang = "en" if utterance.lang == "en" else "zh"
    asked = []
    for task in (TRANSCRIBE, GENDER):
        by_lang = prompts.get(task.tags, {})
        wordings = by_lang.get(lang) or task.prompts(lang)
        prompt = wordings[number % len(wordings)]
        asked.append(replace(utterance, task=task.tags, prompt=prompt))
    spoken, written = asked

    # The second question is in writing.
    written = replace(
        written,
        wav="",
        txt=None,
        start=None,
        end=None,
        duration=None,
    )
    return [spoken, written]


def conversations(utterances: Iterable[Utterance], prompts: Prompts) -> Iterator[Utterance]:
    """Yield a conversation of every two utterances."""
    waiting: list[Utterance] = []
    for number, utterance in enumerate(utterances):
        waiting += turns_of(utterance, prompts, number)
        if len(waiting) == 2 * SPEAKERS:
            *turns, last = waiting
            key = f"talk-{last.key}"
            yield replace(last, key=key, turns=turns)
            waiting = []


def add_row(mixture: Path, listed: Path) -> None:
    """Add the training conversations to a mixture, once."""
    text = mixture.read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    rows = [row for row in table["train"] if row["name"] != "talk"]
    # Each turn is asked its own task.
    path = str(listed.resolve())
    rows.append({"name": "talk", "list": path, "weight": PASSES})
    table["train"] = rows
    text = yaml.safe_dump(
        table,
        allow_unicode=True,
        sort_keys=False,
    )
    write_text(mixture, text)


def write(options: argparse.Namespace) -> None:
    """Write the conversations of each split; a split without any is named and left out."""
    prompts: Prompts = {}
    if options.prompts:
        table = options.prompts.read_text(encoding="utf-8")
        prompts = yaml.safe_load(table)
    for split in SPLITS:
        lost: Counter = Counter()
        path = options.out / f"{split}.jsonl"
        found = usable_of_all(options.data_dir, split)
        count = kimi_audio.write(str(path), conversations(found, prompts), lost)
        if not count:
            path.unlink()
            print(
                f"conversations of {split} are left out: no {SPEAKERS} utterances with transcript "
                f"and gender in {options.data_dir}/*/data/{split}/manifest.jsonl"
            )
            continue
        told = [f"{split}: {count} conversations"]
        for reason, times in lost.items():
            told.append(f"{times} × {reason}")
        print("; ".join(told))


def usable_of_all(root: Path, split: str) -> Iterator[Utterance]:
    """Yield the utterances of all corpora in ``root`` that can be asked both, each recording once.

    A recipe keeps parts of a corpus as corpora of their own; the largest come first, so that the
    parts bring nothing.
    """
    seen: set[tuple[str, float | None, float | None]] = set()
    for folder in sorted(root.glob("*"), key=partial(_order, split)):
        if not folder.is_dir():
            continue
        for utterance in usable(folder, split):
            recording = (utterance.wav, utterance.start, utterance.end)
            if recording not in seen:
                seen.add(recording)
                yield utterance


def _order(split: str, folder: Path) -> tuple[int, str]:
    """Return what sorts corpora by the sizes of their manifests, the largest first."""
    manifest = folder / "data" / split / "manifest.jsonl"
    size = manifest.stat().st_size if manifest.is_file() else 0
    return -size, folder.name


def prepare(options: argparse.Namespace) -> None:
    """Write the conversations, unless they are given, and the row of the mixture."""
    if not options.given:
        write(options)
    train = options.out / "train.jsonl"
    if options.given and not train.is_file():
        raise ValueError(
            f"{train} does not exist; --out must hold train.jsonl and may hold test.jsonl"
        )
    if options.mixture and train.is_file():
        listed = options.list or options.out / "train.list"
        add_row(options.mixture, listed)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.parser(__doc__, "folder of prepared corpora")
    add = parser.add_argument
    add("--prompts", type=Path, help="table of prompts; without it those of the toolkit")
    add("--given", action="store_true", help="the files are in OUT already")
    add("--mixture", type=Path, help="data.yaml that gets a row for the conversations")
    add("--list", type=Path, help="list of the row (OUT/train.list)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
