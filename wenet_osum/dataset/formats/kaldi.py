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
from wenet_osum.dataset.formats._fields import count_lost, without_conversations
from wenet_osum.dataset.kaldi_files import read_kaldi
from wenet_osum.dataset.manifest import from_row, reason_of
from wenet_osum.files import write_text
from wenet_osum.records import Utterance

FORM = "a Kaldi folder"
# field → file
OWN = {"speaker": "utt2spk", "lang": "utt2lang", "duration": "utt2dur", "task": "utt2task"}
NUMBER = re.compile(r"\d+(\.\d+)?")
CODE = re.compile(r"0\d")  # such as 05: a number that means no amount


def by_utterance() -> dict[str, str]:
    """Give the file of each field and label that is told per utterance."""
    files = dict(OWN)
    for name in tasks.label_names():
        files[name] = f"utt2{name}"
    return files


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the utterances of a folder, in the order of ``text`` (of wav.scp where there is none).

    Raises ValueError without wav.scp.
    """
    folder = Path(path)
    scp = folder / "wav.scp"
    text = _if_there(folder / "text")
    segments = _if_there(folder / "segments")
    per_utterance, per_speaker = _tables(folder)
    for utterance in read_kaldi(scp, text or segments or scp, segments, dropped):
        row = {
            "key": utterance.key,
            "wav": _find(utterance.wav, folder),
            # without a file of texts, what stands in its place is none
            "txt": utterance.txt if text else None,
            "start": utterance.start,
            "end": utterance.end,
        }
        for name, rows in per_utterance.items():
            row[name] = rows.get(utterance.key)
        for name, rows in per_speaker.items():
            if row[name] is None:
                row[name] = rows.get(row["speaker"])
        try:
            yield from_row(_typed(row))
        except ValueError as error:
            note(dropped, utterance.key, "kaldi: " + reason_of(error))


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None


def _find(wav: str, folder: Path) -> str:
    """Return where a recording is: a relative path may also count from the folder."""
    beside = folder / wav
    if not Path(wav).exists() and beside.exists():
        return str(beside)
    return wav


def _tables(folder: Path) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Read what is told of each utterance, and of each speaker, by field."""
    per_utterance = {}
    for name, file in by_utterance().items():
        per_utterance[name] = table(folder / file)
    per_speaker = {}
    for name in tasks.label_names():
        per_speaker[name] = table(folder / f"spk2{name}")
    return per_utterance, per_speaker


def _typed(row: dict) -> dict:
    """Turn numbers from text into such: the duration, and labels such as an age in years."""
    texts = tasks.free_texts(row)
    for name in ("duration", *tasks.label_names()):
        text = row.get(name)
        if text is None or name in texts:
            continue
        if not NUMBER.fullmatch(text):
            continue
        if name == "duration" or not CODE.match(text):
            row[name] = float(text)
    return row


def table(path: Path) -> dict[str, str]:
    """Read key → the rest of its line; empty when there is no such file.

    White space of any kind separates.
    """
    if not path.exists():
        return {}
    rows = {}
    text = path.read_text(encoding="utf-8-sig")
    for line in text.splitlines():
        key, *rest = line.split(maxsplit=1) or [""]
        if key:
            rows[key] = rest[0].strip() if rest else ""
    return rows


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a folder whose files are sorted by key, as Kaldi's tools want them (LC_ALL=C).

    Keys with white space are left out.
    """
    folder = Folder()
    keys: set[str] = set()
    kept = frozenset(("key", "wav", "txt", "start", "end", *by_utterance()))
    for utterance in without_conversations(utterances, FORM, lost):
        fault = _fault(utterance, keys)
        if fault:
            lost[fault] += 1
            continue
        try:
            folder.add(utterance)
        except Drop as drop:
            lost[drop.reason] += 1
            continue
        keys.add(utterance.key)
        count_lost(utterance, kept, FORM, lost)
    if folder.files["segments"]:
        folder.segment_whole(lost)
    folder.write(Path(path))
    return len(folder.files["segments"] or folder.files["wav.scp"])


def _fault(utterance: Utterance, keys: set[str]) -> str | None:
    """Return why an utterance cannot be written beside those of ``keys``, or an empty text."""
    if utterance.key.split() != [utterance.key]:
        return "utterance whose key holds white space"
    if utterance.key in keys:
        return "utterance whose key stands twice"
    return None


class Folder:
    """The lines of each file to write, by key."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, str]] = {
            "wav.scp": {},
            "text": {},
            "segments": {},
        }
        self.recordings: dict[str, str] = {}  # path → its key in wav.scp, of those with segments
        self.whole: list[Utterance] = []  # recordings that are one utterance

    def _put(self, file: str, key: str, text: str) -> None:
        """Set the line of a key."""
        lines = self.files.setdefault(file, {})
        lines[key] = text

    def add(self, utterance: Utterance) -> None:
        """Add an utterance's lines to all files. Raises Drop for a segment of no known end."""
        key = utterance.key
        if utterance.start is None and utterance.end is None:
            self.whole.append(utterance)
            self._put("wav.scp", key, _absolute(utterance.wav))
        else:
            self._add_segment(utterance)
        if utterance.txt is not None:
            on_one_line = " ".join(utterance.txt.split())
            self._put("text", key, on_one_line)
        for field, file in by_utterance().items():
            value = utterance.get(field)
            if value is not None:
                self._put(file, key, str(value))

        # Kaldi wants a speaker of every utterance; one unknown is the utterance itself.
        speakers = self.files.setdefault("utt2spk", {})
        speakers.setdefault(key, key)
        gender = utterance.get("gender")
        if utterance.speaker and gender:
            initial = str(gender)[0].lower()
            people = self.files.setdefault("spk2gender", {})
            people[utterance.speaker] = initial

    def _add_segment(self, utterance: Utterance) -> None:
        """Add the recording of a segment, once, and the segment."""
        wav = utterance.wav
        start = utterance.start or 0.0
        end = utterance.end
        if end is None:
            end = read_duration(wav)
        name = self.recordings.get(wav)
        if name is None:
            number = len(self.recordings)
            stem = Path(wav).stem
            name = f"rec{number:06d}-{stem.replace(' ', '_')}"
            self.recordings[wav] = name
        self._put("wav.scp", name, _absolute(wav))
        line = f"{name} {start:.4f} {end:.4f}"
        self._put("segments", utterance.key, line)

    def segment_whole(self, lost: Counter) -> None:
        """Make whole recordings segments: with such a file Kaldi knows only what stands in it."""
        for utterance in self.whole:
            key = utterance.key
            try:
                seconds = utterance.duration or read_duration(utterance.wav)
            except Drop as drop:
                lost[drop.reason] += 1
                continue
            self.files["segments"][key] = f"{key} 0.0000 {seconds:.4f}"

    def write(self, folder: Path) -> None:
        """Write all files, and take away those of an earlier run that would be empty."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in self.files.items():
            path = folder / name
            if rows:
                write_text(path, _sorted_lines(rows))
            else:
                path.unlink(missing_ok=True)

        # the same pairs as utt2spk, by speaker
        speakers: dict[str, list[str]] = {}
        for key, speaker in sorted(self.files.get("utt2spk", {}).items()):
            speakers.setdefault(speaker, []).append(key)
        lines = []
        for speaker, keys in sorted(speakers.items()):
            together = " ".join(keys)
            lines.append(f"{speaker} {together}\n")
        write_text(folder / "spk2utt", "".join(lines))


def _sorted_lines(rows: dict[str, str]) -> str:
    """Write lines in the order of their keys' bytes."""
    lines = []
    keys = sorted(rows, key=str.encode)
    for key in keys:
        line = f"{key} {rows[key]}"
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def _absolute(path: str) -> str:
    """Return a path from the root; links stay as they are."""
    return os.path.abspath(path)  # noqa: PTH100
