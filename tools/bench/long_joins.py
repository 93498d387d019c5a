#!/usr/bin/env python3
"""What joining the pieces of long audio costs a recognizer that never errs, in steady noise.

    python tools/bench/long_joins.py
    python tools/bench/long_joins.py --borders 200 --snr 15 --lang zh

Recordings are words as bursts of noise, in sentences with pauses between them and lectures that go
on for minutes without one; white noise lies over all. The recognizer writes the words that lie
wholly inside a piece. Words are drawn by Zipf's law, and none follows itself: one said twice right
at a border without a pause cannot be told from one that is heard twice. Fails when a word is
lost or doubled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from wenet_osum.decode import longform, overlap  # noqa: E402
from wenet_osum.records import Hypothesis, Word  # noqa: E402
from wenet_osum.score.align import count  # noqa: E402
from wenet_osum.tasks import parse  # noqa: E402
from wenet_osum.tasks.base import join_words  # noqa: E402

RATE = 8000  # Hz
SNRS_DB = (30.0, 20.0, 15.0, 10.0)
VOCABULARY = 2000  # words or characters
WORD_S = {"en": (0.12, 0.5), "zh": (0.12, 0.3)}  # length of a word
GAP_S = (0.02, 0.08)  # between two words
PAUSE_S = (0.3, 2.0)  # between two sentences
SENTENCE = (5, 25)  # words
LECTURE = (150, 400)  # words that follow each other without a pause
LECTURES = 0.05  # share of such sentences
LEVEL = 0.1  # root mean square of a word …
LEVEL_DB = (-4.0, 4.0)  # … give or take
EDGE_S = 0.02  # a word fades in and out


class Recording(NamedTuple):
    """A recording and what is said in it."""

    audio: np.ndarray  # (samples,) at RATE
    words: list[Word]  # with their true times


class Outcome(NamedTuple):
    """What became of the words of a recording."""

    pauses: int  # borders at a pause
    others: int  # borders without one
    words: int
    errors: int


def vocabulary(lang: str) -> list[str]:
    """Return the words by rank: made of syllables in English, characters in Chinese."""
    if lang == "zh":
        return [chr(0x4E00 + rank) for rank in range(VOCABULARY)]
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    longer = [one + other for one in syllables for other in syllables]
    return (syllables + longer)[:VOCABULARY]


def draw_words(lang: str, size: int, draws: np.random.Generator) -> list[str]:
    """Return ``size`` words by Zipf's law; none follows itself."""
    known = vocabulary(lang)
    chances = 1 / np.arange(1, VOCABULARY + 1)
    ranks = draws.choice(VOCABULARY, 2 * size + 20, p=chances / chances.sum())
    kept = ranks[np.flatnonzero(np.diff(ranks, prepend=-1))]
    return [known[rank] for rank in kept[:size]]


def record(
    lang: str, seconds: float, snr_db: float, draws: np.random.Generator, lectures: float = LECTURES
) -> Recording:
    """Return a recording whose words are ``snr_db`` louder than its noise, on average."""
    words = []
    at = 0.5
    left = 0
    for text in draw_words(lang, round(seconds / WORD_S[lang][0]), draws):
        # A new sentence begins after a pause.
        if not left:
            left = int(draws.integers(*(LECTURE if draws.random() < lectures else SENTENCE)))
            at += draws.uniform(*PAUSE_S)
        end = at + draws.uniform(*WORD_S[lang])
        if end > seconds:
            break
        words.append(Word(text, at, end))
        at, left = end + draws.uniform(*GAP_S), left - 1

    audio = draws.normal(0, LEVEL * 10 ** (-snr_db / 20), round(seconds * RATE))
    for word in words:
        burst = sound(word, draws)
        first = round(word.start * RATE)
        audio[first : first + len(burst)] += burst
    return Recording(audio.astype(np.float32), words)


def sound(word: Word, draws: np.random.Generator) -> np.ndarray:
    """Return a burst of noise, (samples,), for a word."""
    size = round((word.end - word.start) * RATE)
    edge = round(EDGE_S * RATE)
    level = LEVEL * 10 ** (draws.uniform(*LEVEL_DB) / 20)
    burst = draws.normal(
        0,
        level,
        size,
    )
    fade = np.sin(
        np.linspace(
            0,
            np.pi / 2,
            edge,
        )
    )
    burst[:edge] *= fade
    burst[-edge:] *= fade[::-1]
    return burst


def blocks(audio: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the recording in blocks, as it is read from a file."""
    size = round(longform.BLOCK_S * RATE)
    return (audio[at : at + size] for at in range(0, len(audio), size))


def heard(recording: Recording, piece: longform.Piece, timed: bool) -> Hypothesis:
    """Return the answer of a recognizer that hears the words wholly inside the piece."""
    inside = [w for w in recording.words if piece.start <= w.start and w.end <= piece.end]
    words = [
        Word(
            w.text,
            w.start - piece.start,
            w.end - piece.start,
        )
        for w in inside
    ]
    return Hypothesis(
        "k",
        "",
        "",
        join_words([w.text for w in words]),
        words if timed else None,
    )


def check(
    recording: Recording, timed: bool = False, longest_s: float = longform.LONGEST_S
) -> Outcome:
    """Split the recording, hear the pieces and join them; ``timed`` joins words with times."""
    pieces = list(longform.split(blocks(recording.audio), RATE, longest_s))
    answers = [heard(recording, piece, timed) for piece in pieces]
    joined = longform.join(
        pieces,
        answers,
        parse("srwt" if timed else "asr"),
        "k",
    )
    said = join_words([w.text for w in recording.words])
    others = sum(piece.overlap > 0 for piece in pieces)
    wrong = errors(said, joined.transcript)
    return Outcome(
        len(pieces) - 1 - others,
        others,
        len(recording.words),
        wrong,
    )


def errors(said: str, written: str) -> int:
    """Return how many words were lost, doubled or changed."""
    if said == written:
        return 0
    one, other = ([m[0] for m in overlap.TOKEN.finditer(text)] for text in (said, written))
    return sum(count(one, other)[1:])


def measure(lang: str, snr_db: float, borders: int) -> Outcome:
    """Return the sums over as many recordings of 5 minutes as have ``borders`` borders."""
    draws = np.random.default_rng(round(snr_db))
    total = Outcome(
        0,
        0,
        0,
        0,
    )
    while total.pauses + total.others < borders:
        one = check(record(lang, 300.0, snr_db, draws))
        total = Outcome(*(a + b for a, b in zip(total, one, strict=True)))
    return total


def main(argv: list[str] | None = None) -> int:
    """Print a row per language and noise; 1 when a word is lost or doubled."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--borders", type=int, default=2000, help="borders in a row of the table")
    parser.add_argument(
        "--snr",
        type=float,
        nargs="+",
        default=SNRS_DB,
        help="dB",
    )
    parser.add_argument("--lang", nargs="+", default=[*WORD_S], choices=WORD_S)
    args = parser.parse_args(argv)
    print("| language | SNR, dB | borders at a pause | without | words | errors |")
    print("|---|---|---|---|---|---|")
    failed = False
    for lang in args.lang:
        for snr in args.snr:
            total = measure(lang, snr, args.borders)
            print(f"| {lang} | {snr:g} |", " | ".join(map(str, total)), "|", flush=True)
            failed |= total.errors > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
