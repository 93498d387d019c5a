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
from wenet_osum.decode.blocks import BLOCK_S  # noqa: E402
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
    chances /= chances.sum()
    # More than needed, for those that follow themselves are left out.
    ranks = draws.choice(VOCABULARY, 2 * size + 20, p=chances)
    changes = np.flatnonzero(np.diff(ranks, prepend=-1))
    kept = ranks[changes][:size]
    return [known[rank] for rank in kept]


def record(
    lang: str, seconds: float, snr_db: float, draws: np.random.Generator, lectures: float = LECTURES
) -> Recording:
    """Return a recording whose words are ``snr_db`` louder than its noise, on average."""
    words = placed_words(lang, seconds, draws, lectures)
    noise = LEVEL * 10 ** (-snr_db / 20)
    audio = draws.normal(0, noise, round(seconds * RATE))
    for word in words:
        burst = sound(word, draws)
        first = round(word.start * RATE)
        audio[first : first + len(burst)] += burst
    return Recording(audio.astype(np.float32), words)


def placed_words(
    lang: str, seconds: float, draws: np.random.Generator, lectures: float
) -> list[Word]:
    """Return the words of a recording with their times."""
    shortest, _ = WORD_S[lang]
    words = []
    at = 0.5
    left = 0
    for text in draw_words(lang, round(seconds / shortest), draws):
        # A new sentence begins after a pause.
        if not left:
            lengths = LECTURE if draws.random() < lectures else SENTENCE
            left = int(draws.integers(*lengths))
            at += draws.uniform(*PAUSE_S)
        end = at + draws.uniform(*WORD_S[lang])
        if end > seconds:
            break
        words.append(Word(text, at, end))
        at = end + draws.uniform(*GAP_S)
        left -= 1
    return words


def sound(word: Word, draws: np.random.Generator) -> np.ndarray:
    """Return a burst of noise, (samples,), for a word."""
    seconds = word.end - word.start
    level_db = draws.uniform(*LEVEL_DB)
    level = LEVEL * 10 ** (level_db / 20)
    burst = draws.normal(0, level, round(seconds * RATE))

    # A quarter of a sine at both ends.
    edge = round(EDGE_S * RATE)
    fade = np.sin(np.linspace(0, np.pi / 2, edge))
    burst[:edge] *= fade
    burst[-edge:] *= fade[::-1]
    return burst


def blocks(audio: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the recording in blocks, as it is read from a file."""
    size = round(BLOCK_S * RATE)
    return (audio[at : at + size] for at in range(0, len(audio), size))


def heard(recording: Recording, piece: longform.Piece, timed: bool) -> Hypothesis:
    """Return the answer of a recognizer that hears the words wholly inside the piece."""
    words = []
    for word in recording.words:
        if piece.start <= word.start and word.end <= piece.end:
            start = word.start - piece.start
            end = word.end - piece.start
            words.append(Word(word.text, start, end))
    text = join_words([word.text for word in words])
    return Hypothesis(
        "k",
        "",
        "",
        text,
        words if timed else None,
    )


def check(
    recording: Recording, timed: bool = False, longest_s: float = longform.LONGEST_S
) -> Outcome:
    """Split the recording, hear the pieces and join them; ``timed`` joins words with times."""
    pieces = list(longform.split(blocks(recording.audio), RATE, longest_s))
    answers = [heard(recording, piece, timed) for piece in pieces]
    task = parse("srwt" if timed else "asr")
    joined = longform.join(
        pieces,
        answers,
        task,
        "k",
    )
    said = join_words([word.text for word in recording.words])

    # Pieces overlap where there was no pause to split at.
    others = sum(piece.overlap > 0 for piece in pieces)
    return Outcome(
        pauses=len(pieces) - 1 - others,
        others=others,
        words=len(recording.words),
        errors=errors(said, joined.transcript),
    )


def errors(said: str, written: str) -> int:
    """Return how many words were lost, doubled or changed."""
    if said == written:
        return 0
    _, *wrong = count(overlap.TOKEN.findall(said), overlap.TOKEN.findall(written))
    return sum(wrong)


def measure(lang: str, snr_db: float, borders: int) -> Outcome:
    """Return the sums over as many recordings of 5 minutes as have ``borders`` borders."""
    draws = np.random.default_rng(round(snr_db))
    total = Outcome(0, 0, 0, 0)
    while total.pauses + total.others < borders:
        recording = record(lang, 300.0, snr_db, draws)
        one = check(recording)
        total = Outcome(
            pauses=total.pauses + one.pauses,
            others=total.others + one.others,
            words=total.words + one.words,
            errors=total.errors + one.errors,
        )
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
            cells = " | ".join(map(str, total))
            print(f"| {lang} | {snr:g} | {cells} |", flush=True)
            failed |= total.errors > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
