"""A task asked with every wording it has: how far its metrics move with the prompt.

The command ``score`` reads what this leaves.
"""

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
from wenet_osum.files import write_text
from wenet_osum.tasks.base import Task
from wenet_osum.text.template import LANGUAGES, Template

# The file that names the folders, the scoring prompt's first; written when all are complete.
FILE = "prompts.json"
# Values of --prompts.
SETS = ("all", *LANGUAGES)


class Wording(NamedTuple):
    """One prompt and the folder of its answers, e.g. ``zh_0``."""

    folder: str
    lang: str
    text: str


def wordings(template: Template, task: Task, which: str = "all") -> list[Wording]:
    """Return the prompts of a task in all languages or in one, the scoring prompt first.

    Raises ValueError for a language without any.
    """
    table = template.prompts.get(task.tags)
    if not table:
        # The model's folder names no wordings of its own: the toolkit's are asked.
        table = {lang: task.prompts(lang) for lang in LANGUAGES}
    if which != "all" and which not in table:
        known = ", ".join(table)
        raise ValueError(f"--prompts {which}: the model's prompts for {task.tags} are in {known}")

    found = []
    langs = list(table) if which == "all" else [which]
    for lang in langs:
        for number, text in enumerate(table[lang]):
            folder = f"{lang}_{number}"
            found.append(Wording(folder, lang, text))
    return found


def planned(args: argparse.Namespace) -> list[tuple[Wording, argparse.Namespace]]:
    """Return each wording of ``args.prompts`` with the arguments of its run.

    Raises ValueError for options that do not fit.
    """
    if args.task == "auto" or args.prompt:
        other = "--task auto" if args.task == "auto" else "--prompt"
        rule = "asks one task with each of its own wordings"
        raise ValueError(f"--prompts {args.prompts} {rule}; leave {other} out")

    template = Template.load(args.model)
    task = template.task(args.task)
    plan = []
    for wording in wordings(template, task, args.prompts):
        own = argparse.Namespace(**vars(args))
        own.prompt = wording.text
        own.lang = wording.lang
        own.out = str(Path(args.out) / wording.folder)
        plan.append((wording, own))

    return plan


def loaded_once() -> Callable[[argparse.Namespace], Recognizer]:
    """Return a maker of recognizers that loads the model at its first call alone.

    At the others it changes the prompt, and counts anew.
    """
    loaded: list[Recognizer] = []

    def make(args: argparse.Namespace) -> Recognizer:
        if not loaded:
            loaded.append(load.recognizer(args))
        return dataclasses.replace(
            loaded[0],
            prompt=args.prompt,
            lang=args.lang,
            counts=Counter(),
        )

    return make


def write(folder: str | Path, task: str, asked: list[Wording]) -> Path:
    """Name the folders for the scorer; returns the file."""
    path = Path(folder) / FILE
    prompts = [wording._asdict() for wording in asked]
    rows = {"task": task, "prompts": prompts}
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    write_text(path, text + "\n")
    return path
