#!/usr/bin/env python3
"""Free Spoken Digit Dataset → strings of 3 to 8 digits with word times that are true by
construction.

Reads ``recordings/{digit}_{speaker}_{take}.wav`` (8 kHz) and writes, under ``--out``,
``wav/{split}/*.wav`` (16 kHz), ``{split}/manifest.jsonl`` for train, dev and test, and
``text/train.txt``. The official split: takes 0–4 are the test set.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from wenet_osum.corpus import command, mix
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.split import check_disjoint
from wenet_osum.dataset.audio import decode
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.files import write_text
from wenet_osum.records import SAMPLE_RATE, Utterance, Word

DISJOINT = [
    "recording"
]  # what train, dev and test must not share; leaving a speaker out adds the speaker
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS, TAKES = 6, 50  # of the official release: 6 speakers × 10 digits × 50 takes
TEST_TAKES = range(0, 5)  # the official test set
DEV_TAKES = range(45, 50)  # our own choice, from the official training set
LENGTHS = (3, 8)  # digits in a string, shortest and longest
SHORT, SHORT_SHARE = (1, 2), 0.3  # training also has strings as short as these, as this share
PAUSE_S = (0.05, 0.5)  # before, between and after the digits, s
NOISE_COLOR = (0.0, 2.0)  # exponent of the background noise: 0 white, 2 brown


class Recording(NamedTuple):
    """One spoken digit."""

    path: Path
    digit: int
    speaker: str
    take: int


def find_recordings(data_dir: Path) -> list[Recording]:
    """All recordings, sorted by name. Raises ValueError for a folder without any, or with wav files
    named otherwise.
    """
    found = []
    strange = []
    for path in sorted((data_dir / "recordings").glob("*.wav")):
        match = re.fullmatch(r"(\d)_(\w+)_(\d+)", path.stem)
        if match:
            found.append(Recording(path, int(match[1]), match[2], int(match[3])))
        else:
            strange.append(path.name)
    if strange:
        rule = "{digit}_{speaker}_{take}.wav"
        raise ValueError(
            f"{len(strange)} files are not named {rule}, e.g. {strange[0]}; move them out of "
            f"{data_dir}/recordings"
        )
    if not found:
        raise ValueError(
            f"no wav file in {data_dir}/recordings; run stage -1, or point --data_dir at a copy of "
            "the official repository"
        )
    return found


def split(recordings: list[Recording], leave_out: str | None = None) -> dict[str, list[Recording]]:
    """Official split, or train and dev without speaker ``leave_out`` and all of that speaker as
    test.
    """
    speakers = sorted({r.speaker for r in recordings})
    if leave_out is not None and leave_out not in speakers:
        raise ValueError(f"--leave_out {leave_out}: no such speaker; known: {', '.join(speakers)}")
    in_test = [
        r for r in recordings if (r.speaker == leave_out if leave_out else r.take in TEST_TAKES)
    ]
    others = [r for r in recordings if r.speaker != leave_out and r.take not in TEST_TAKES]
    in_dev = [r for r in others if r.take in DEV_TAKES]
    return {"train": [r for r in others if r.take not in DEV_TAKES], "dev": in_dev, "test": in_test}


def official_counts(leave_out: str | None) -> dict[str, int]:
    """Recordings of each split in the full release."""
    speakers = SPEAKERS - bool(leave_out)
    test = 10 * TAKES if leave_out else 10 * SPEAKERS * len(TEST_TAKES)
    dev = 10 * speakers * len(DEV_TAKES)
    return {"train": 10 * speakers * (TAKES - len(TEST_TAKES)) - dev, "dev": dev, "test": test}


def deal(
    recordings: list[Recording], strings: int, rng: np.random.Generator, short_share: float = 0.0
) -> list[list[Recording]]:
    """Make strings of one speaker each, the speakers in turn.

    A recording is used again only when all of its speaker's were.
    """
    own: dict[str, list[Recording]] = {}
    for recording in recordings:
        own.setdefault(recording.speaker, []).append(recording)
    speakers = sorted(own)
    decks = [_endless(own[speaker], rng) for speaker in speakers]
    lengths = rng.integers(LENGTHS[0], LENGTHS[1] + 1, strings)
    lengths = np.where(
        rng.random(strings) < short_share, rng.integers(SHORT[0], SHORT[1] + 1, strings), lengths
    )
    strings_of = []
    for place, length in enumerate(lengths):
        deck = decks[place % len(decks)]
        strings_of.append([next(deck) for _ in range(length)])
    return strings_of


def _endless(recordings: list[Recording], rng: np.random.Generator) -> Iterator[Recording]:
    while True:
        for i in rng.permutation(len(recordings)):
            yield recordings[i]


def read(recording: Recording) -> np.ndarray:
    """The recording at 16 kHz. Raises ValueError when it cannot be read or is empty."""
    try:
        return decode(recording.path.read_bytes())
    except Drop as fault:
        raise ValueError(f"{recording.path}: {fault}; download it again") from None


def make_string(
    parts: list[Recording], snr_db: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, list[Word]]:
    """The parts with pauses between them under background noise: audio and word times."""
    pieces = [read(part) for part in parts]
    audio, begins = mix.join(pieces, list(rng.uniform(*PAUSE_S, len(parts) + 1)))
    noise = mix.colored_noise(
        len(audio),
        rng.uniform(*NOISE_COLOR),
        rng,
    )
    audio = mix.add_noise(audio, noise, rng.uniform(*snr_db))
    words = [
        Word(DIGITS[p.digit], b, b + len(a) / SAMPLE_RATE)
        for p, a, b in zip(
            parts,
            pieces,
            begins,
            strict=True,
        )
    ]
    return audio / max(1.0, np.abs(audio).max() / 0.98), words  # loud noise must not clip


def write_split(
    name: str, strings: list[list[Recording]], out: Path, snr_db: tuple[float, float], seed: int
) -> list[Utterance]:
    """Write the audio of a split and, when all of it is there, its list."""
    folder = out / "wav" / name
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for i, parts in enumerate(strings):
        audio, words = make_string(parts, snr_db, np.random.default_rng([seed, *name.encode(), i]))
        key = f"{name}-{parts[0].speaker}-{i:05d}"
        path = folder / f"{key}.wav"
        soundfile.write(
            path,
            audio,
            SAMPLE_RATE,
            subtype="PCM_16",
        )
        text = " ".join(w.text for w in words)
        sources = [p.path.name for p in parts]
        row = Utterance(
            key,
            str(path),
            text,
            lang="en",
            speaker=parts[0].speaker,
            words=words,
            duration=len(audio) / SAMPLE_RATE,
        )
        row.extra["recordings"] = sources
        utterances.append(row)
    (out / name).mkdir(exist_ok=True)
    write_manifest(out / name / "manifest.jsonl", utterances)
    return utterances


def check_splits(splits: dict[str, list[Utterance]], leave_out: str | None) -> None:
    """Stop when the splits share what they must not; print what else they share."""
    for note in check_disjoint(splits, DISJOINT):
        print(f"note: {note}")
    if leave_out:
        check_disjoint(
            {"train and dev": splits["train"] + splits["dev"], "test": splits["test"]}, ["speaker"]
        )


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the recordings to the lists. Raises ValueError for whatever is wrong with
    them.
    """
    recordings = split(find_recordings(options.data_dir), options.leave_out)
    official = official_counts(options.leave_out)
    for name, found in recordings.items():
        print(
            check_count(
                f"fsdd {name} recordings", len(found), official[name], options.strict_counts
            )
        )
    splits = {}
    for name, found in recordings.items():
        rng = np.random.default_rng([options.seed, *name.encode()])
        strings = deal(
            found,
            getattr(options, f"{name}_strings"),
            rng,
            SHORT_SHARE if name == "train" else 0.0,
        )
        splits[name] = write_split(
            name,
            strings,
            options.out,
            options.snr_db,
            options.seed,
        )
        seconds = sum(u.duration for u in splits[name])
        print(
            f"fsdd {name}: {len(strings)} strings, {sum(map(len, strings))} digits, "
            f"{seconds / 60:.1f} min"
        )
    check_splits(splits, options.leave_out)
    lines = [f"{utterance.txt}\n" for utterance in splits["train"]]
    write_text(options.out / "text/train.txt", "".join(lines))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(
        __doc__,
        "copy of the official repository, with recordings/ in it",
        "stop unless the corpus is complete",
    )
    parser.add_argument(
        "--leave_out", help="speaker to keep for test alone (leave-one-speaker-out)"
    )
    parser.add_argument("--train_strings", type=int, default=3000)
    parser.add_argument("--dev_strings", type=int, default=100)
    parser.add_argument("--test_strings", type=int, default=300)
    parser.add_argument(
        "--snr_db",
        type=float,
        nargs=2,
        default=(10.0, 30.0),
        metavar=("LOW", "HIGH"),
        help="range of the background noise, dB",
    )
    parser.add_argument("--seed", type=int, default=777)
    options = parser.parse_args(argv)
    options.leave_out = options.leave_out or None
    return options


if __name__ == "__main__":
    command.run(prepare, arguments())
