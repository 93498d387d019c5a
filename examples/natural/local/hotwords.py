#!/usr/bin/env python3
"""Words that the recognizer is told beforehand: the rare ones of each utterance, among others.

    python local/hotwords.py --train corpora/speechocean762/data/train/manifest.jsonl \\
        --manifest corpora/test300/data/test/manifest.jsonl --distractors 10 \\
        --out corpora/hot300/data/test/manifest.jsonl

A word is rare when it has four letters or more and the training transcripts have it at most --most
times. Each utterance is told its own rare words and, drawn by a hash of its key, as many of other
utterances as --distractors says; one without a rare word is told the others alone. So a list that
is told may hold nothing that is spoken, which is where words leak.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections import Counter
from itertools import chain
from pathlib import Path

from wenet_osum.context import HOTWORDS
from wenet_osum.corpus import command
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.records import Utterance

SHORTEST = 4  # letters of a word


def words_of(utterance: Utterance) -> list[str]:
    """Return the words of a transcript, in lower case."""
    text = utterance.txt or ""
    return text.lower().split()


def rare_words(utterance: Utterance, trained: Counter[str], most: int) -> list[str]:
    """Return the rare words of an utterance in the order in which they are spoken, each once."""
    words = words_of(utterance)
    found = []
    for word in dict.fromkeys(words):
        if len(word) >= SHORTEST and trained[word] <= most:
            found.append(word)
    return found


def told(utterance: Utterance, own: list[str], every: list[str], distractors: int) -> Utterance:
    """Return the utterance with its hotwords, in an order that says nothing."""
    spoken = words_of(utterance)
    others = [word for word in every if word not in spoken]
    count = min(distractors, len(others))
    draw = random.Random(utterance.key)

    words = own + draw.sample(others, count)
    draw.shuffle(words)
    extra = {**utterance.extra, HOTWORDS: words}
    return dataclasses.replace(utterance, extra=extra)


def make(options: argparse.Namespace) -> None:
    """Write the list. Raises ValueError for a bad manifest."""
    trained: Counter[str] = Counter()
    for utterance in read_manifest(options.train):
        words = words_of(utterance)
        trained.update(words)
    utterances = list(read_manifest(options.manifest))

    # The rare words of all utterances are what distractors are drawn from.
    rare = []
    for utterance in utterances:
        own = rare_words(utterance, trained, options.most)
        rare.append(own)
    words = chain(*rare)
    every = list(dict.fromkeys(words))

    rows = []
    for utterance, own in zip(utterances, rare, strict=True):
        row = told(utterance, own, every, options.distractors)
        rows.append(row)
    write_manifest(options.out, rows)

    some = sum(map(bool, rare))
    told_of = f"{some} with one of {len(every)} rare words"
    print(f"{options.out}: {len(rows)} utterances, {told_of}")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("--train", type=Path, required=True, help="manifest of the training transcripts")
    add("--manifest", type=Path, required=True)
    add("--most", type=int, default=1, help="times that training may have a rare word")
    add("--distractors", type=int, default=10, help="words told that are not spoken")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(make, arguments())
