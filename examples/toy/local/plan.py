"""What every utterance of the toy corpus is to be: decided before anything is synthesized, by the
seed alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from grammar import sentence, split_of, written
from prosody import EMOTIONS, STYLES
from questions import KINDS, draw
from voices import GROUPS, Voice, make_voices

from wenet_osum.corpus.event_sounds import SOUNDS

POOLS = ("emotion", "style", "event", "reply")  # the field each quarter of a split has
SIZES = {"train": 2448, "dev": 60, "test": 216}  # utterances of a pool
VOICES = {"train": 36, "dev": 2, "test": 6}  # speakers of each gender and age
LANGS = ("en", "zh")


@dataclass(frozen=True)
class Order:
    """One utterance to be made."""

    key: str
    split: str
    pool: str
    lang: str
    words: tuple[str, ...]
    voice: Voice
    seed: int
    labels: dict[str, str]  # of the utterance: those of the voice, and of a pool that has one
    reply: str | None = None

    @property
    def txt(self) -> str:
        """The transcript."""
        return written(list(self.words), self.lang)


def plan(split: str, seed: int, scale: float) -> list[Order]:
    """All orders of a split, in the order of their keys."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    voices = make_voices(split, VOICES[split], rng)
    count = max(16, round(SIZES[split] * scale))
    used: set[str] = set()
    return [
        order
        for pool in POOLS
        for order in _plan_pool(
            split,
            pool,
            count,
            voices,
            used,
            rng,
        )
    ]


def _plan_pool(
    split: str, pool: str, count: int, voices: dict, used: set[str], rng: np.random.Generator
) -> list[Order]:
    sets = {
        "emotion": list(EMOTIONS),
        "style": list(STYLES),
        "event": list(SOUNDS),
        "reply": [None],
    }[pool]
    queues = (
        {(lang, kind): draw(lang, kind, split, count, rng) for lang in LANGS for kind in KINDS}
        if pool == "reply"
        else {}
    )
    cells = rng.permutation([(lang, *group) for lang in LANGS for group in GROUPS]).tolist()
    orders = []
    # Each label goes round all cells from a start of its own, so that all meet all, in small splits
    # too.
    for i in range(count):
        turn, label = divmod(i, len(sets))
        lang, gender, age = cells[(turn + 5 * label) % len(cells)]
        label = sets[label]
        labels = {"gender": gender, "age": age}
        answer = None
        voice = voices[gender, age][rng.integers(len(voices[gender, age]))]
        if pool == "reply":
            words, answer = queues[lang, _kind(rng)].pop()
        else:
            words = _fresh_sentence(split, lang, label if pool != "event" else None, used, rng)
            labels[pool] = label
        key = f"{split}_{pool}_{i:05d}"
        seed = int(rng.integers(2**31))
        orders.append(
            Order(
                key,
                split,
                pool,
                lang,
                tuple(words),
                voice,
                seed,
                labels,
                answer,
            )
        )
    return orders


def _kind(rng: np.random.Generator) -> str:
    return str(rng.choice(KINDS, p=[0.56, 0.22, 0.22]))


def _fresh_sentence(
    split: str, lang: str, mood: str | None, used: set[str], rng: np.random.Generator
) -> list[str]:
    """A sentence of this split that has not been used."""
    for _ in range(10000):
        words = sentence(lang, mood, rng)
        text = written(words, lang)
        if split_of(text) == split and text not in used:
            used.add(text)
            return words
    raise AssertionError(f"the {lang} grammar has no fresh sentence left for {split}")
