#!/usr/bin/env python3
"""Many prompts for every task, in English and Chinese, into ``OUT/prompts.yaml``.

It is a table for ``prompts:``. Each is an opener, an ask and an ending of phrases.yaml; the prompts
of the toolkit stand before them, so that the one of scoring stays the first. Kimi-Audio (arXiv
2504.18425) trains with 200 for recognition and 30 for each other task.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import yaml

from wenet_osum import tasks
from wenet_osum.corpus import command
from wenet_osum.files import write_text

PHRASES = Path(__file__).with_name("phrases.yaml")
LANGUAGES = ("en", "zh")
# Least prompts of a task and language: of recognition, and of each other task.
RECOGNITION, OTHERS = 200, 30


def sentences(openers: list[str], asks: list[str], endings: list[str]) -> list[str]:
    """Return every combination, each beginning with a capital letter."""
    found = []
    for parts in product(openers, asks, endings):
        text = "".join(parts)
        first = text[0].upper()
        found.append(first + text[1:])
    return found


def table(phrases: dict) -> dict[str, dict[str, list[str]]]:
    """Return {tags: {language: prompts}}.

    Raises ValueError for a task without asks, and where there are too few or equal prompts.
    """
    made: dict[str, dict[str, list[str]]] = {}
    for name in tasks.default_names():
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
            # The prompts of the toolkit come first, and once.
            prompts = task.prompts(lang)
            prompts = [*prompts, *(text for text in composed if text not in prompts)]
            check(name, lang, prompts)
            made[task.tags][lang] = prompts
    return made


def check(name: str, lang: str, prompts: list[str]) -> None:
    """Raise ValueError for too few prompts, and for one that stands twice."""
    least = OTHERS
    if name == "asr":
        least = RECOGNITION
    different = len(set(prompts))
    twice = len(prompts) - different
    place = f"{name}, {lang}"
    if twice:
        raise ValueError(f"{place}: {twice} prompts stand twice")
    if different < least:
        raise ValueError(f"{place}: {different} prompts, at least {least} are needed")


def prepare(options: argparse.Namespace) -> None:
    """Write the table and say how many prompts there are."""
    phrases = yaml.safe_load(PHRASES.read_text(encoding="utf-8"))
    made = table(phrases)
    text = yaml.safe_dump(
        made,
        allow_unicode=True,
        sort_keys=False,
    )
    write_text(options.out / "prompts.yaml", text)
    for tags, by_lang in made.items():
        counts = []
        for lang, prompts in by_lang.items():
            counts.append(f"{len(prompts)} {lang}")
        print(f"{tags}: {', '.join(counts)}")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return command.parser(__doc__).parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
