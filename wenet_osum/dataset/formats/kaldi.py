"""Kaldi's data folder: wav.scp, text, utt2spk, segments, spk2gender, utt2lang, utt2dur.

Labels Kaldi has no file for go by its custom into ``utt2<label>`` (utt2emotion, utt2age, …), which
its tools pass over. ``spk2<label>`` (spk2gender, spk2age), which holds for all utterances of a
speaker, is read, too.
Paths in wav.scp that are relative count from where the run was started, or else from the folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Drop, note
from wenet_osum.dataset.formats._fields import count_lost
from wenet_osum.dataset.manifest import from_row, read_kaldi, reason_of
from wenet_osum.records import Utterance

# field → file
OWN = {"speaker": "utt2spk", "lang": "utt2lang", "duration": "utt2dur", "task": "utt2task"}
NUMBER = re.compile(r"\d+(\.\d+)?")
CODE = re.compile(r"0\d")  # such as 05: a number that means no amount


def by_utterance() -> dict[str, str]:
    """Give the file of each field and label that is told per utterance."""
    return OWN | {name: f"utt2{name}" for name in tasks.label_names()}


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """The utterances of a folder, in the order of ``text`` (of wav.scp where there is none). Raises ValueError without wav.scp."""
    folder = Path(path)
    text = folder / "text" if (folder / "text").exists() else None
    segments = folder / "segments" if (folder / "segments").exists() else None
    tables = {name: table(folder / file) for name, file in by_utterance().items()}
    people = {name: table(folder / f"spk2{name}") for name in tasks.label_names()}
    listed = read_kaldi(folder / "wav.scp", text or segments or folder / "wav.scp", segments, dropped)
    for utterance in listed:
        row = {"key": utterance.key, "wav": utterance.wav, "txt": utterance.txt if text else None, "start": utterance.start, "end": utterance.end}
        row |= {name: rows.get(utterance.key) for name, rows in tables.items()}
        row |= {name: rows.get(row["speaker"]) for name, rows in people.items() if row[name] is None}
        row["wav"] = row["wav"] if Path(row["wav"]).exists() or not (folder / row["wav"]).exists() else str(folder / row["wav"])
        try:
            yield from_row(_typed(row))
        except ValueError as error:
            note(dropped, utterance.key, "kaldi: " + reason_of(error))


def _typed(row: dict) -> dict:
    """Turn numbers from text into such: the duration, and labels such as an age in years."""
    for name in ("duration", *tasks.label_names()):
        text = row.get(name)
        if text is None or not NUMBER.fullmatch(text):
            continue
        if name == "duration" or not CODE.match(text):
            row[name] = float(text)
    return row


def table(path: Path) -> dict[str, str]:
    """Key → the rest of its line; empty when there is no such file. White space of any kind separates."""
    if not path.exists():
        return {}
    rows = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    return {row[0]: row[1].strip() if len(row) > 1 else "" for row in rows}


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """A folder whose files are sorted by key, as Kaldi's tools want them (LC_ALL=C). Keys with white space are left out."""
    files: dict[str, dict[str, str]] = {"wav.scp": {}, "text": {}, "segments": {}}
    recordings: dict[str, str] = {}
    whole: list[Utterance] = []
    keys: set[str] = set()
    kept = frozenset(("key", "wav", "txt", "start", "end", *by_utterance()))
    for utterance in utterances:
        if fault := _fault(utterance, keys):
            lost[fault] += 1
            continue
        keys.add(utterance.key)
        count_lost(utterance, kept, "a Kaldi folder", lost)
        _add(utterance, files, recordings, whole)
    if files["segments"]:
        _segment_whole(whole, files, lost)
    _write_files(Path(path), files)
    return len(files["segments"] or files["wav.scp"])


def _fault(utterance: Utterance, keys: set[str]) -> str | None:
    if utterance.key.split() != [utterance.key]:
        return "utterance whose key holds white space"
    return "utterance whose key stands twice" if utterance.key in keys else None


def _add(utterance: Utterance, files: dict[str, dict[str, str]], recordings: dict[str, str], whole: list[Utterance]) -> None:
    key = utterance.key
    if utterance.start is None and utterance.end is None:
        whole.append(utterance)
        files["wav.scp"][key] = os.path.abspath(utterance.wav)
    else:
        name = recordings.setdefault(utterance.wav, f"rec{len(recordings):06d}-{Path(utterance.wav).stem.replace(' ', '_')}")
        files["wav.scp"][name] = os.path.abspath(utterance.wav)
        end = utterance.end if utterance.end is not None else read_duration(utterance.wav)
        files["segments"][key] = f"{name} {utterance.start or 0.0:.4f} {end:.4f}"
    if utterance.txt is not None:
        files["text"][key] = " ".join(utterance.txt.split())
    for field, file in by_utterance().items():
        if (value := utterance.get(field)) is not None:
            files.setdefault(file, {})[key] = str(value)
    files.setdefault("utt2spk", {}).setdefault(key, key)  # Kaldi wants a speaker of every utterance; one unknown is the utterance itself
    if utterance.speaker and (gender := utterance.get("gender")):
        files.setdefault("spk2gender", {})[utterance.speaker] = str(gender)[0].lower()


def _segment_whole(whole: list[Utterance], files: dict[str, dict[str, str]], lost: Counter) -> None:
    """With a segments file Kaldi knows only what stands in it, so whole recordings become segments, too."""
    for utterance in whole:
        try:
            seconds = utterance.duration or read_duration(utterance.wav)
            files["segments"][utterance.key] = f"{utterance.key} 0.0000 {seconds:.4f}"
        except Drop as drop:
            lost[drop.reason] += 1


def _write_files(folder: Path, files: dict[str, dict[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        if rows:
            lines = (f"{key} {rows[key]}".rstrip() for key in sorted(rows, key=lambda key: key.encode()))
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            (folder / name).unlink(missing_ok=True)
    speakers: dict[str, list[str]] = {}
    for key, speaker in sorted(files.get("utt2spk", {}).items()):
        speakers.setdefault(speaker, []).append(key)
    (folder / "spk2utt").write_text("".join(f"{s} {' '.join(keys)}\n" for s, keys in sorted(speakers.items())), encoding="utf-8")
