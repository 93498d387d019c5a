#!/usr/bin/env python3
"""Small sets of clips with an index.jsonl → manifests: words with times, odd styles of speech,
Mandarin.

    python local/prepare.py --set en_word_times --data_dir corpora/en_word_times \\
        --out data/en_word_times

An index has the lines of a manifest: ``key``, ``wav`` (from the index's folder), ``txt``, ``lang``,
``speaker`` and, where they are known, ``words`` with times in seconds. ``en_word_times`` and
``mfa_styles`` become a test set alone. ``cmn`` takes the folders ``cmn_words`` and ``cmn_strings``
in --data_dir: one speaker's words and strings are trained on, and strings joined from the other
speaker's syllables are the test set.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from wenet_osum.corpus import command, mix
from wenet_osum.corpus.split import check_disjoint
from wenet_osum.dataset.audio import decode, read_duration
from wenet_osum.dataset.drop import Drop, Dropped, note, table
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.records import SAMPLE_RATE, Utterance, Word

SYLLABLES = Path(__file__).resolve().parents[1] / "conf/syllables.txt"
STRINGS = 60  # test strings of Mandarin syllables
LENGTHS = (3, 6)  # syllables in a string, fewest and most
PAUSE_S = (0.15, 0.5)  # before, between and after them
TRIM_DB = 40.0  # ends quieter than this below the peak are no part of a syllable
EVERY_DEV = 10  # every tenth Mandarin utterance is dev
MARKS = re.compile(r"<[^>]*>|\[[^\]]*\]")  # noises and fragments written into a transcript


def read_index(folder: Path, dropped: Dropped) -> Iterator[Utterance]:
    """Read the clips of an index, their paths absolute, without notes on noises in the text.

    Labels of the set's own, which are no labels here, stay in ``extra``, under names that no task
    reads. Raises ValueError without an index.
    """
    for row in read_manifest(folder / "index.jsonl", dropped):
        path = (folder / row.wav).resolve()
        own = {f"index_{name}": label for name, label in row.labels.items()}
        known = {"wav": str(path), "labels": {}, "extra": row.extra | own}
        if row.txt is not None:
            known["txt"] = " ".join(MARKS.sub(" ", row.txt).split())
        try:
            known["duration"] = round(read_duration(path), 4)
        except ValueError as fault:
            note(
                dropped,
                row.key,
                getattr(
                    fault,
                    "reason",
                    str(fault),
                ),
            )
            continue
        yield dataclasses.replace(row, **known)


def english(folder: Path, dropped: Dropped) -> dict[str, list[Utterance]]:
    """A set of English clips: nothing of it is trained on."""
    return {"test": list(read_index(folder, dropped))}


def mandarin(folder: Path, out: Path, dropped: Dropped) -> dict[str, list[Utterance]]:
    """Train and dev of one speaker, and test strings of the other one's syllables."""
    words = list(read_index(folder / "cmn_words", dropped))
    spoken = [u for u in words if u.txt] + list(read_index(folder / "cmn_strings", dropped))
    splits = {"train": [u for i, u in enumerate(spoken) if i % EVERY_DEV]}
    splits["dev"] = spoken[::EVERY_DEV]
    splits["test"] = join_syllables(
        [u for u in words if not u.txt],
        out,
        dropped,
    )
    return splits


def join_syllables(syllables: list[Utterance], out: Path, dropped: Dropped) -> list[Utterance]:
    """Strings of syllables with exact times, each written as a common character that is read so."""
    characters = dict(line.split() for line in SYLLABLES.read_text(encoding="utf-8").splitlines())
    known: list[Utterance] = []
    for row in syllables:
        if row.extra.get("pinyin") in characters:
            known.append(row)
        else:
            note(dropped, row.key, "syllable without a common character")
    rng = np.random.default_rng(777)
    (out / "wav").mkdir(parents=True, exist_ok=True)
    strings = []
    for i in range(STRINGS if known else 0):
        count = min(rng.integers(LENGTHS[0], LENGTHS[1] + 1), len(known))
        parts = [known[j] for j in rng.choice(len(known), count, replace=False)]
        strings.append(
            _string(
                f"cmnsyl_{i:02d}",
                parts,
                characters,
                out,
                rng,
            )
        )
    return strings


def _string(
    key: str,
    parts: list[Utterance],
    characters: dict[str, str],
    out: Path,
    rng: np.random.Generator,
) -> Utterance:
    """One string: its audio is written, its words are where the pieces were put."""
    pieces = [trimmed(decode(Path(part.wav).read_bytes())) for part in parts]
    audio, begins = mix.join(pieces, list(rng.uniform(*PAUSE_S, len(parts) + 1)))
    texts = [characters[part.extra["pinyin"]] for part in parts]
    words = [
        Word(text, begin, begin + len(piece) / SAMPLE_RATE)
        for text, begin, piece in zip(
            texts,
            begins,
            pieces,
            strict=True,
        )
    ]
    path = out / "wav" / f"{key}.wav"
    soundfile.write(
        path,
        audio,
        SAMPLE_RATE,
        subtype="PCM_16",
    )
    extra = {"recordings": [part.wav for part in parts]}
    seconds = round(len(audio) / SAMPLE_RATE, 4)
    row = Utterance(
        key,
        str(path.resolve()),
        "".join(texts),
        lang="zh",
        words=words,
    )
    return dataclasses.replace(row, speaker=parts[0].speaker, duration=seconds, extra=extra)


def trimmed(audio: np.ndarray) -> np.ndarray:
    """Cut off both ends where they are quiet."""
    loud = np.flatnonzero(np.abs(audio) >= np.abs(audio).max() * 10 ** (-TRIM_DB / 20))
    return audio[loud[0] : loud[-1] + 1]


def prepare(options: argparse.Namespace) -> None:
    """Write the manifests of one set. Raises ValueError for whatever is wrong with its index."""
    dropped = Dropped()
    try:
        if options.set == "cmn":
            splits = mandarin(
                options.data_dir,
                options.out,
                dropped,
            )
        else:
            splits = english(options.data_dir, dropped)
    except Drop as fault:
        raise ValueError(f"{options.set}: {fault}; download it again") from None
    check_disjoint({name: rows for name, rows in splits.items() if name != "dev"}, ["speaker"])
    for name, rows in splits.items():
        count = write_manifest(options.out / name / "manifest.jsonl", rows)
        timed = sum(bool(u.words) for u in rows)
        hours = sum(u.duration for u in rows) / 3600
        print(
            f"{options.set} {name}: {count} utterances, {hours:.3f} h, {timed} of them with word "
            "times"
        )
    if "train" in splits:  # few and short: a plain list, not packed
        write_manifest(options.out / "train/data.list", splits["train"])
    if dropped:
        print(f"left out:\n{table(dropped)}")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.parser(__doc__, "folder of the set; of cmn_words and cmn_strings for cmn")
    parser.add_argument(
        "--set",
        required=True,
        choices=("en_word_times", "mfa_styles", "cmn"),
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
