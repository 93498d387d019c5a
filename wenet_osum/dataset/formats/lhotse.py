"""lhotse's manifests: ``*recordings*.jsonl[.gz]`` and ``*supervisions*.jsonl[.gz]`` of a folder.

A folder of several splits is read one by one, by the file of its supervisions or the beginning of
its name. They are read and written without lhotse. A supervision is an utterance; its ``custom``
table holds the fields lhotse has no place for. Word times are its ``alignment["word"]``, in the
recording's time as lhotse counts them.
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
from wenet_osum.dataset.recording import ROUNDING_S
from wenet_osum.files import replaced
from wenet_osum.records import Utterance, Word

# our field or label → its place in a supervision
NAMED = {"txt": "text", "lang": "language", "speaker": "speaker", "gender": "gender"}
CUSTOM = ("task", "reply", "prompt")  # fields without a place
Row = dict[str, Any]


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the supervisions of a folder as utterances.

    Where it holds those of several splits, ``path`` is a file of supervisions, or what its name
    begins with. Raises ValueError when either manifest is missing, and when several are meant.
    """
    supervisions = _supervisions(Path(path))
    recordings = {}
    for row in _rows_of(_recordings(supervisions)):
        recordings[row["id"]] = row

    folder = str(supervisions.parent)
    seen: set[str] = set()
    for row in _rows_of(supervisions):
        recording = recordings.get(row.get("recording_id"))
        fault = "duplicate key" if row["id"] in seen else _fault(recording)
        if fault:
            note(dropped, row["id"], fault)
            continue
        seen.add(row["id"])
        try:
            yield from_row(_utterance(row, recording, folder))
        except (ValueError, KeyError, TypeError) as error:
            reason = reason_of(ValueError(str(error)))
            note(dropped, row["id"], f"lhotse: {reason}")


def _supervisions(path: Path) -> Path:
    """Return the manifest of supervisions at a path. Raises ValueError unless there is one."""
    if path.is_file():
        return path
    folder, beginning = path, ""
    if not path.is_dir():
        folder, beginning = path.parent, path.name
    found = []
    for name in _manifests(folder, "supervisions"):
        if name.startswith(beginning):
            found.append(name)
    if len(found) == 1:
        return folder / found[0]
    if not found:
        expected = "no *supervisions*.jsonl or .jsonl.gz"
        raise ValueError(f"{path}: {expected}; give the folder lhotse's preparation wrote")
    names = ", ".join(found[:5])
    raise ValueError(f"{path} holds several manifests ({names}); give the path of one of them")


def _recordings(supervisions: Path) -> Path:
    """Return the manifest of recordings that belongs to one of supervisions: of the same name, or
    the only one beside it. Raises ValueError when there is none."""
    named = _stem(supervisions.name).replace("supervisions", "recordings")
    found = _manifests(supervisions.parent, "recordings")
    for name in found:
        if _stem(name) == named or len(found) == 1:
            return supervisions.parent / name
    expected = f"{named}.jsonl or .jsonl.gz"
    raise ValueError(f"{supervisions}: its recordings are not beside it; {expected} is needed")


def _manifests(folder: Path, kind: str) -> list[str]:
    """Return the names of the manifests of a kind in a folder."""
    found = []
    for path in folder.glob(f"*{kind}*"):
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            found.append(path.name)
    return sorted(found)


def _stem(name: str) -> str:
    """Return the name of a manifest without its suffix."""
    return name.removesuffix(".gz").removesuffix(".jsonl")


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
    ends_s = start + length
    if ends_s > recording["duration"] + ROUNDING_S:
        raise ValueError(f"segment ends beyond the recording: at {ends_s} s")
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
        made["end"] = round(ends_s, 6)
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
