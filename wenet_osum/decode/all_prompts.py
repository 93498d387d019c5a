"""A task asked with every wording it has: how far its figures move with the prompt. ``score`` reads what this leaves."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from wenet_osum.decode import load
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.tasks.base import Task
from wenet_osum.text.template import LANGUAGES, Template

FILE = "prompts.json"  # names the folders, the scoring prompt's first; written when all are complete
SETS = ("all", *LANGUAGES)  # values of --prompts


class Wording(NamedTuple):
    """One prompt and the folder of its answers."""

    folder: str  # e.g. zh_0
    lang: str
    text: str


def wordings(template: Template, task: Task, which: str = "all") -> list[Wording]:
    """The prompts of a task in all languages or in one, the scoring prompt first. Raises ValueError for a language without any."""
    table = template.prompts.get(task.tags) or {lang: task.prompts(lang) for lang in LANGUAGES}
    if which != "all" and which not in table:
        raise ValueError(f"--prompts {which}: the model's prompts for {task.tags} are in {', '.join(table)}")
    langs = [*table] if which == "all" else [which]
    return [Wording(f"{lang}_{i}", lang, text) for lang in langs for i, text in enumerate(table[lang])]


def planned(args: argparse.Namespace) -> list[tuple[Wording, argparse.Namespace]]:
    """Each wording of ``args.prompts`` with the arguments of its run. Raises ValueError for options that do not fit."""
    if args.task == "auto" or args.prompt:
        other = "--task auto" if args.task == "auto" else "--prompt"
        raise ValueError(f"--prompts {args.prompts} asks one task with each of its own wordings; leave {other} out")
    template = Template.load(args.model)
    found = wordings(template, template.task(args.task), args.prompts)
    changes = [{"prompt": w.text, "lang": w.lang, "out": str(Path(args.out) / w.folder)} for w in found]
    return [(w, argparse.Namespace(**vars(args) | change)) for w, change in zip(found, changes, strict=True)]


def loaded_once() -> Callable[[argparse.Namespace], Recognizer]:
    """A maker of recognizers that loads the model at its first call only and changes the prompt at the others."""
    kept: list[Recognizer] = []

    def make(args: argparse.Namespace) -> Recognizer:
        if not kept:
            kept.append(load.recognizer(args))
        return dataclasses.replace(kept[0], prompt=args.prompt, lang=args.lang, counts=Counter())

    return make


def write(folder: str | Path, task: str, asked: list[Wording]) -> Path:
    """Name the folders for the scorer; returns the file."""
    path = Path(folder) / FILE
    rows = {"task": task, "prompts": [w._asdict() for w in asked]}
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path
