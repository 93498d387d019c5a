"""Spoken questions whose answer has to be composed: two slots, each mapped on its own.

Each mapping is seen in training with many partners; which pairs go to which split is fixed by the
pair, so every test question asks for a combination that training never had.
"""

from __future__ import annotations

import itertools

import numpy as np
from grammar import WORDS, split_of, written

KINDS = ("opposite", "after", "color")
FORMS = {
    "en": {
        "opposite": "opposite of {} and {}",
        "after": "what follows {} and {}",
        "color": "color of {} and {}",
        "answer": "{} and {}",
    },
    "zh": {
        "opposite": "{} 和 {} 的 反 义 词",
        "after": "{} 和 {} 的 后 面",
        "color": "{} 和 {} 的 颜 色",
        "answer": "{} 和 {}",
    },
}


def mapping(lang: str, kind: str) -> dict[str, str]:
    """What each word of a slot is answered with."""
    words = WORDS[lang]
    if kind == "opposite":  # adjectives stand in pairs
        pairs = list(zip(words["adj"][::2], words["adj"][1::2], strict=True))
        return dict(pairs) | {b: a for a, b in pairs}
    if kind == "after":
        return dict(itertools.pairwise(words["number"]))
    return dict(
        zip(
            words["item"],
            words["color"],
            strict=True,
        )
    )


def questions(lang: str, kind: str, split: str) -> list[tuple[list[str], str]]:
    """All questions of a kind in a split: the question's words and its answer."""
    answers = mapping(lang, kind)
    found = []
    for a, b in itertools.permutations(answers, 2):
        if answers[a] == b:  # "big and small" would be answered by swapping
            continue
        words = FORMS[lang][kind].format(a, b).split()
        if split_of(written(words, lang)) == split:
            found.append(
                (words, written(FORMS[lang]["answer"].format(answers[a], answers[b]).split(), lang))
            )
    return found


def draw(
    lang: str, kind: str, split: str, count: int, rng: np.random.Generator
) -> list[tuple[list[str], str]]:
    """``count`` questions: all of them in random order, again and again."""
    pool = questions(
        lang,
        kind,
        split,
    )
    order: list[int] = []
    while len(order) < count:
        order += rng.permutation(len(pool)).tolist()
    return [pool[i] for i in order[:count]]
