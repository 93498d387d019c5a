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
from wenet_osum.dataset.address import is_url
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Drop, note
from wenet_osum.dataset.formats._fields import count_lost, without_conversations
from wenet_osum.dataset.kaldi_files import read_kaldi, text_lines
from wenet_osum.dataset.manifest import from_row, reason_of
from wenet_osum.files import write_text
from wenet_osum.records import Utterance
from wenet_osum.tasks.sgc import GENDER

FORM = "a Kaldi folder"
# field → file
OWN = {"speaker": "utt2spk", "lang": "utt2lang", "duration": "utt2dur", "task": "utt2task"}
INITIALS = {"female": "f", "male": "m"}  # of spk2gender
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

    White space of any kind separates. Raises ValueError with the line that is not UTF-8.
    """
    if not path.exists():
        return {}
    rows = {}
    for line in text_lines(path):
        key, *rest = line.split(maxsplit=1) or [""]
        if key:
            rows[key] = rest[0].strip() if rest else ""
    return rows


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a folder whose files are sorted by key, as Kaldi's tools want them (LC_ALL=C).

    Keys with white space are left out. Kaldi's own tables are written where they are complete.
    """
    rows = []
    keys: set[str] = set()
    for utterance in without_conversations(utterances, FORM, lost):
        fault = _fault(utterance, keys)
        if fault:
            lost[fault] += 1
            continue
        keys.add(utterance.key)
        rows.append(utterance)

    # Beside segments whole recordings are segments, too: Kaldi knows only what stands in the file.
    folder = Folder(any(map(_is_segment, rows)))
    kept = frozenset(("key", "wav", "txt", "start", "end", *by_utterance()))
    for utterance in rows:
        try:
            folder.add(utterance, lost)
        except Drop as drop:
            lost[drop.reason] += 1
            continue
        count_lost(utterance, kept, FORM, lost)
    folder.leave_out_incomplete(lost)
    folder.write(Path(path))
    return len(folder.files["utt2spk"])


def _fault(utterance: Utterance, keys: set[str]) -> str | None:
    """Return why an utterance cannot be written beside those of ``keys``, or an empty text."""
    if utterance.key.split() != [utterance.key]:
        return "utterance whose key holds white space"
    if utterance.key in keys:
        return "utterance whose key stands twice"
    return None


def _is_segment(utterance: Utterance) -> bool:
    return utterance.start is not None or utterance.end is not None


class Folder:
    """The lines of each file to write, by key."""

    def __init__(self, has_segments: bool) -> None:
        self.has_segments = has_segments
        names = ("wav.scp", "text", "segments", "spk2gender", *by_utterance().values())
        self.files: dict[str, dict[str, str]] = {name: {} for name in names}
        self.recordings: dict[str, str] = {}  # path → its key in wav.scp, of those with segments

    def add(self, utterance: Utterance, lost: Counter) -> None:
        """Add an utterance's lines to all files. Raises Drop for a segment of no known end."""
        key = utterance.key
        if self.has_segments:
            self._add_segment(utterance)
        else:
            self.files["wav.scp"][key] = _absolute(utterance.wav)
        if utterance.txt is not None:
            on_one_line = " ".join(utterance.txt.split())
            self.files["text"][key] = on_one_line
        for field, file in by_utterance().items():
            value = utterance.get(field)
            if value is not None:
                self.files[file][key] = str(value)
        self._add_speaker(utterance, lost)

    def _add_speaker(self, utterance: Utterance, lost: Counter) -> None:
        """Add who speaks: of every utterance Kaldi wants one; one unknown is the utterance."""
        speaker = utterance.speaker or utterance.key
        parts = speaker.split()
        if parts != [speaker]:
            lost["white space in the name of a speaker, written as _"] += 1
        name = "_".join(parts)
        self.files["utt2spk"][utterance.key] = name
        gender = utterance.get(GENDER.attribute)
        if gender is None:
            return
        known = GENDER.labels.find(gender)
        if known in INITIALS:
            self.files["spk2gender"][name] = INITIALS[known]
        else:
            lost["gender that is neither female nor male, for spk2gender"] += 1

    def _add_segment(self, utterance: Utterance) -> None:
        """Add the recording of a segment, once, and the segment."""
        key = utterance.key
        wav = utterance.wav
        start = utterance.start or 0.0
        end = utterance.end
        if end is None and utterance.duration is not None:
            end = start + utterance.duration
        if end is None:
            end = read_duration(wav)
        name = key
        if _is_segment(utterance):
            number = len(self.recordings)
            stem = "_".join(Path(wav).stem.split())
            name = self.recordings.setdefault(wav, f"rec{number:06d}-{stem}")
        self.files["wav.scp"][name] = _absolute(wav)
        self.files["segments"][key] = f"{name} {start:.4f} {end:.4f}"

    def leave_out_incomplete(self, lost: Counter) -> None:
        """Empty the tables that Kaldi refuses where they lack an utterance or a speaker."""
        speakers = self.files["utt2spk"]
        whole = {"spk2gender": set(speakers.values())}
        for name in ("utt2lang", "utt2dur"):
            whole[name] = speakers.keys()
        for name, keys in whole.items():
            rows = self.files[name]
            if rows and rows.keys() != keys:
                lost[f"line of {name}, which Kaldi takes only when it is complete"] += len(rows)
                rows.clear()

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
        for key, speaker in sorted(self.files["utt2spk"].items()):
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
    """Return a path from the root; links stay as they are, and so does a URL."""
    if is_url(path):
        return path
    return os.path.abspath(path)  # noqa: PTH100
