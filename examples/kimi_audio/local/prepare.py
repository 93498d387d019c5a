#!/usr/bin/env python3
"""Many prompts for every task, in English and Chinese: ``OUT/prompts.yaml``, a table for
``prompts:``.

Each is an opener, an ask and an ending of phrases.yaml; the prompts of the toolkit stand before
them, so that the one of scoring stays the first. Kimi-Audio (arXiv 2504.18425) trains with 200 for
recognition and 30 for each other task.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import yaml

from wenet_osum import tasks
from wenet_osum.corpus import command

PHRASES = Path(__file__).with_name("phrases.yaml")
LANGUAGES = ("en", "zh")
RECOGNITION, OTHERS = 200, 30  # least prompts of a task and language


def sentences(openers: list[str], asks: list[str], endings: list[str]) -> list[str]:
    """Return every combination, each beginning with a capital letter."""
    found = []
    for opener, ask, ending in product(openers, asks, endings):
        text = opener + ask + ending
        found.append(text[0].upper() + text[1:])
    return found


def table(phrases: dict) -> dict[str, dict[str, list[str]]]:
    """Return {tags: {language: prompts}}.

    Raises ValueError for a task without asks, and where there are too few or equal prompts.
    """
    made: dict[str, dict[str, list[str]]] = {}
    for name in tasks.names():
        task = tasks.parse(name)
        asks = phrases["asks"].get(name)
        if asks is None:
            raise ValueError(f"{PHRASES.name}: asks has no row for task {name}; add one")
        made[task.tags] = {}
        for lang in LANGUAGES:
            parts = phrases[lang]
            composed = sentences(
                parts["openers"],
                asks[lang],
                parts["endings"],
            )
            own = task.prompts(lang)
            found = [*own, *(prompt for prompt in composed if prompt not in own)]
            check(name, lang, found)
            made[task.tags][lang] = found
    return made


def check(name: str, lang: str, prompts: list[str]) -> None:
    """Raise ValueError for too few prompts, and for one that stands twice."""
    least = RECOGNITION if name == "asr" else OTHERS
    different = len(set(prompts))
    if different < len(prompts):
        raise ValueError(f"{name}, {lang}: {len(prompts) - different} prompts stand twice")
    if different < least:
        raise ValueError(f"{name}, {lang}: {different} prompts, at least {least} are needed")


def prepare(options: argparse.Namespace) -> None:
    """Write the table and say how many prompts there are."""
    phrases = yaml.safe_load(PHRASES.read_text(encoding="utf-8"))
    made = table(phrases)
    options.out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(
        made,
        allow_unicode=True,
        sort_keys=False,
    )
    (options.out / "prompts.yaml").write_text(text, encoding="utf-8")
    for tags, found in made.items():
        counts = ", ".join(f"{len(prompts)} {lang}" for lang, prompts in found.items())
        print(f"{tags}: {counts}")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return command.parser(__doc__).parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
