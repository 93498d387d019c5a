#!/usr/bin/env python3
"""MELD → manifests of train, dev and test with transcript and emotion, by the official splits.

Reads ``{train,dev,test}_sent_emo.csv`` and, of each clip, ``dia*_utt*.wav``, or the mp4 of the
release, whose sound ffmpeg takes out. Labels are those of the map wenet_osum/tasks/maps/meld.yaml.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import SAMPLE_RATE, Utterance
from wenet_osum.tasks import label_map

DISJOINT = [
    "recording"
]  # what train, dev and test must not share; the six friends speak in all of them
OFFICIAL = {"train": 9989, "dev": 1109, "test": 2610}  # rows of the tables
# Folders of the release whose clips are the split's, and of wavs that somebody has taken out.
FOLDERS = {
    "train": ("train_splits", "train"),
    "dev": ("dev_splits_complete", "dev"),
    "test": ("output_repeated_splits_test", "test"),
}
KNOWN_BROKEN = {
    ("train", "dia125_utt3"): "cannot be decoded",
    ("dev", "dia110_utt7"): "is missing",
}  # in the release itself
HOW = f"ffmpeg -i dia0_utt0.mp4 -vn -ac 1 -ar {SAMPLE_RATE} dia0_utt0.wav"
COLUMNS = {"Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID"}


def read_table(data_dir: Path, split: str) -> list[dict[str, str]]:
    """The rows of a split's table, anywhere under ``data_dir``. Raises ValueError when it is
    missing, or lacks a column.
    """
    found = sorted(data_dir.rglob(f"{split}_sent_emo.csv"))
    if not found:
        raise ValueError(
            f"no {split}_sent_emo.csv under {data_dir}; point --data_dir at MELD.Raw, its inner "
            "archives unpacked"
        )
    with open(found[0], encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        if missing := COLUMNS - set(rows.fieldnames or ()):
            raise ValueError(
                f"{found[0]} lacks the columns {', '.join(sorted(missing))}; it has "
                f"{', '.join(rows.fieldnames or ())}"
            )
        return list(rows)


def find_clips(data_dir: Path, split: str) -> dict[str, Path]:
    """dia0_utt0 → its file; a wav goes before an mp4."""
    folders = [
        p
        for name in FOLDERS[split]
        for p in [data_dir / name, *sorted(data_dir.rglob(name))]
        if p.is_dir()
    ]
    found: dict[str, Path] = {}
    for path in (
        p
        for folder in folders
        for p in sorted(folder.iterdir())
        if re.fullmatch(r"dia\d+_utt\d+", p.stem)
    ):
        if path.suffix == ".wav" or (path.suffix == ".mp4" and path.stem not in found):
            found[path.stem] = path
    return found


def sound_of(clip: Path, wav: Path) -> Path:
    """The clip's sound as 16 kHz mono; made once. Raises Drop when ffmpeg cannot read it,
    ValueError when there is no ffmpeg.
    """
    if clip.suffix == ".wav" or wav.exists():
        return clip if clip.suffix == ".wav" else wav
    if not shutil.which("ffmpeg"):
        raise ValueError(
            f"{clip.name} needs ffmpeg, which is not installed; install it, or put wavs beside the "
            f"clips, made elsewhere by: {HOW}"
        )
    wav.parent.mkdir(parents=True, exist_ok=True)
    unfinished = wav.with_name(f"{wav.stem}.part.wav")
    words = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-y",
        "-i",
        str(clip),
        "-vn",
        "-ac",
        "1",
        "-ar",
        str(SAMPLE_RATE),
        str(unfinished),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        raise Drop("ffmpeg cannot read the clip", done.stderr[-200:])
    return unfinished.replace(wav)


def mend(text: str) -> str:
    """The words with one space between them; quotation marks that were read in the wrong encoding
    (U+0080 to U+009F) are put right.
    """
    return " ".join(
        re.sub(
            "[\x80-\x9f]", lambda m: m[0].encode("latin-1").decode("cp1252", "ignore"), text
        ).split()
    )


def utterance_of(
    split: str,
    row: dict[str, str],
    clips: dict[str, Path],
    wav_dir: Path,
    emotions: label_map.LabelMap,
) -> Utterance:
    """One row with its sound. Raises Drop when it cannot be used, ValueError when the table or the
    machine is to blame.
    """
    name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
    try:
        if name not in clips:
            raise Drop("no clip")
        path = sound_of(clips[name], wav_dir / split / f"{name}.wav")
        seconds = round(read_duration(path), 4)
    except Drop as drop:
        known = KNOWN_BROKEN.get((split, name))
        raise Drop(
            f"{split} {name}: {known} in the official release" if known else drop.reason,
            drop.detail,
        ) from None
    if not (words := mend(row["Utterance"])):
        raise Drop("no words")
    extra = {"corpus": "meld", "dialogue": f"{split} {row['Dialogue_ID']}"}
    labels = {"emotion": emotions.label("emotion", row["Emotion"])}
    speaker = mend(row["Speaker"])
    return Utterance(
        f"{split}_{name}",
        str(path),
        words,
        lang="en",
        speaker=speaker,
        labels=labels,
        duration=seconds,
        extra=extra,
    )


def read_split(options: argparse.Namespace, split: str, dropped: Dropped) -> list[Utterance]:
    """The usable utterances of a split; rows and clips are held against the official figures."""
    rows, clips, emotions = (
        read_table(options.data_dir, split),
        find_clips(options.data_dir, split),
        label_map.load("meld"),
    )
    print(check_count(f"meld {split} rows", len(rows), OFFICIAL[split], options.strict_counts))

    def one(row: dict[str, str]) -> Utterance | Drop:
        try:
            return utterance_of(split, row, clips, options.out / "wav", emotions)
        except Drop as drop:
            return drop

    with ThreadPoolExecutor(options.jobs) as pool:
        made = list(pool.map(one, rows))
    for row, result in zip(rows, made, strict=True):
        if isinstance(result, Drop):
            note(
                dropped, f"{split} dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}", result.reason
            )
    found = [u for u in made if isinstance(u, Utterance)]
    usable = OFFICIAL[split] - sum(where == split for where, _ in KNOWN_BROKEN)
    print(check_count(f"meld {split} clips", len(found), usable, options.strict_counts))
    spare = len(
        clips.keys() - {f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}" for row in rows}
    )
    if spare:
        print(f"meld {split}: {spare} clips stand in no row of the table and are not used")
    return found


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the tables to the lists. Raises ValueError for whatever is wrong with
    them.
    """
    dropped = Dropped()
    splits = {split: read_split(options, split, dropped) for split in OFFICIAL}
    write_splits(options.out, splits, DISJOINT, dropped)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    folder = "MELD.Raw, inner archives unpacked; or the tables with train/ dev/ test/ of wavs"
    parser = command.parser(__doc__, folder, "stop unless the corpus is complete")
    parser.add_argument(
        "--jobs", type=int, default=1, help="clips whose sound is taken out at a time"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
