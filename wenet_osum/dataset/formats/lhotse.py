"""lhotse's manifests: ``*recordings*.jsonl[.gz]`` and ``*supervisions*.jsonl[.gz]`` of a folder.

They are read and written without lhotse. A supervision is an utterance; its ``custom`` table holds
the fields lhotse has no place for. Word times are its ``alignment["word"]``, in the recording's
time as lhotse counts them.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from wenet_osum import tasks
from wenet_osum.dataset.drop import note
from wenet_osum.dataset.formats._fields import without_conversations
from wenet_osum.dataset.manifest import from_row, reason_of
from wenet_osum.files import replaced
from wenet_osum.records import Utterance, Word

# our field or label → its place in a supervision
NAMED = {"txt": "text", "lang": "language", "speaker": "speaker", "gender": "gender"}
CUSTOM = ("task", "reply")  # fields without a place
Row = dict[str, Any]


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the supervisions of a folder as utterances.

    Raises ValueError when either manifest is missing.
    """
    recordings = {}
    for row in _rows(path, "recordings"):
        recordings[row["id"]] = row
    for row in _rows(path, "supervisions"):
        recording = recordings.get(row["recording_id"])
        fault = _fault(recording)
        if fault:
            note(dropped, row["id"], fault)
            continue
        try:
            yield from_row(_utterance(row, recording, path))
        except (ValueError, KeyError, TypeError) as error:
            reason = reason_of(ValueError(str(error)))
            note(dropped, row["id"], f"lhotse: {reason}")


def _rows(folder: str, kind: str) -> Iterator[Row]:
    """Yield the rows of all manifests of a kind. Raises ValueError when there is none."""
    found = []
    for path in Path(folder).glob(f"*{kind}*"):
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            found.append(path)
    if not found:
        expected = f"no *{kind}*.jsonl or .jsonl.gz"
        raise ValueError(f"{folder}: {expected}; give the folder lhotse's preparation wrote")
    for path in sorted(found):
        yield from _rows_of(path)


def _rows_of(path: Path) -> Iterator[Row]:
    """Yield the rows of a manifest. Raises ValueError with the number of a line that is none."""
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                row["id"]
            except (json.JSONDecodeError, KeyError, TypeError):
                rule = "must be a JSON object with an id"
                raise ValueError(f"{path} line {number} {rule}, got {line[:80]!r}") from None
            yield row


def _fault(recording: Row | None) -> str | None:
    """Say why a recording cannot be read as one file of one channel."""
    if recording is None:
        return "supervision without its recording"
    sources = recording.get("sources", [])
    several = len(sources) != 1
    if several or len(sources[0].get("channels", [0])) != 1:
        return "recording with several channels or files"
    kind = sources[0].get("type")
    if kind not in ("file", "url"):
        return f"recording of type {kind}"
    if recording.get("transforms"):
        return "recording with transforms"
    return None


def _utterance(row: Row, recording: Row, folder: str) -> Row:
    """Turn a supervision into a row of a manifest."""
    start = float(row["start"])
    length = float(row["duration"])
    custom = dict(row.get("custom") or {})
    own = {}
    for name in (*CUSTOM, *tasks.label_names()):
        if name in custom:
            own[name] = custom.pop(name)
    made = {"key": row["id"], "wav": _find(recording, folder)}
    for name, column in NAMED.items():
        made[name] = row.get(column)
    made["words"] = _words(row, start)

    # a supervision of all its recording is no segment
    if start == 0 and abs(length - recording["duration"]) < 0.01:
        made["duration"] = length
    else:
        made["start"] = start
        made["end"] = round(start + length, 6)
    return made | own | {"extra": custom}


def _find(recording: Row, folder: str) -> str:
    """Return where a recording is: a relative path may also count from the folder."""
    wav = recording["sources"][0]["source"]
    beside = Path(folder) / wav
    if not Path(wav).exists() and beside.exists():
        return str(beside)
    return wav


def _words(row: Row, start: float) -> list[list] | None:
    """Return the word times of a supervision, from where it begins."""
    alignment = row.get("alignment") or {}
    words = []
    for item in alignment.get("word") or []:
        begin = item[1]
        end = begin + item[2]
        times = [round(begin - start, 6), round(end - start, 6)]
        words.append([item[0], *times])
    return words or None


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write ``recordings.jsonl.gz`` and ``supervisions.jsonl.gz`` into a folder.

    Recordings that cannot be opened are left out.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    recordings: dict[str, Row] = {}
    count = 0
    with _writing(folder / "supervisions.jsonl.gz") as out:
        for utterance in without_conversations(utterances, "lhotse's manifests", lost):
            wav = utterance.wav
            if wav not in recordings:
                made = _recording(utterance, len(recordings))
                if made is None:
                    lost["recording cannot be opened"] += 1
                    continue
                recordings[wav] = made
            row = _supervision(utterance, recordings[wav])
            out.write(_line(row))
            count += 1
    with gzip.open(folder / "recordings.jsonl.gz", "wt", encoding="utf-8") as out:
        for row in recordings.values():
            out.write(_line(row))
    return count


@contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    """Open a gzip file for text; it appears whole or not at all."""
    with replaced(path) as temporary, gzip.open(temporary, "wt", encoding="utf-8") as out:
        yield out


def _line(row: Row) -> str:
    text = json.dumps(row, ensure_ascii=False)
    return f"{text}\n"


def _recording(utterance: Utterance, number: int) -> Row | None:
    """Return the row of an utterance's recording; None where it cannot be opened."""
    import soundfile

    wav = utterance.wav
    try:
        info = soundfile.info(wav)
    except (soundfile.SoundFileError, OSError, RuntimeError):
        return None
    # one that several utterances are cut from bears the key of none
    name = utterance.key
    if utterance.start is not None or utterance.end is not None:
        name = f"recording-{number:08d}"
    channels = list(range(info.channels))
    path = os.path.abspath(wav)  # noqa: PTH100 - links stay as they are
    source = {"type": "file", "channels": channels, "source": path}
    return {
        "id": name,
        "sources": [source],
        "sampling_rate": info.samplerate,
        "num_samples": info.frames,
        "duration": info.frames / info.samplerate,
        "channel_ids": channels,
    }


def _supervision(utterance: Utterance, recording: Row) -> Row:
    """Return the row of an utterance."""
    start = utterance.start or 0.0
    end = utterance.end
    if end is None:
        end = recording["duration"]
    row: Row = {
        "id": utterance.key,
        "recording_id": recording["id"],
        "start": start,
        "duration": round(end - start, 8),
        "channel": 0,
    }
    for name, column in NAMED.items():
        value = utterance.get(name)
        if value is not None:
            row[column] = value
    if utterance.words:
        words = [_aligned(word, start) for word in utterance.words]
        row["alignment"] = {"word": words}
    custom = _custom(utterance)
    if custom:
        row["custom"] = custom
    return row


def _aligned(word: Word, start: float) -> list:
    """Return a word as lhotse keeps it: text, begin in the recording, duration, no score."""
    begin = round(word.start + start, 6)
    length = round(word.end - word.start, 6)
    return [word.text, begin, length, None]


def _custom(utterance: Utterance) -> Row:
    """Return what has no place of its own in a supervision."""
    own = {name: utterance.get(name) for name in CUSTOM}
    own |= utterance.labels
    custom = dict(utterance.extra)
    for name, value in own.items():
        if value is not None and name not in NAMED:
            custom[name] = value
    return custom
