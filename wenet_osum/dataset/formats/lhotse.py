"""lhotse's manifests read and written directly: ``*recordings*.jsonl[.gz]`` and ``*supervisions*.jsonl[.gz]`` of a folder.

A supervision is an utterance; its ``custom`` table holds the fields lhotse has no place for. Word times are its ``alignment["word"]``, in the
recording's time as lhotse counts them.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wenet_osum import tasks
from wenet_osum.dataset.drop import note
from wenet_osum.dataset.manifest import from_row, reason_of
from wenet_osum.files import replaced
from wenet_osum.records import Utterance

# our field or label → its place in a supervision
NAMED = {"txt": "text", "lang": "language", "speaker": "speaker", "gender": "gender"}
CUSTOM = ("task", "reply")  # fields without a place


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """The supervisions of a folder as utterances. Raises ValueError when either manifest is missing."""
    recordings = {row["id"]: row for file in _find(path, "recordings") for row in _rows(file)}
    for row in (row for file in _find(path, "supervisions") for row in _rows(file)):
        recording = recordings.get(row["recording_id"])
        if fault := _fault(recording):
            note(dropped, row["id"], fault)
            continue
        try:
            yield from_row(_utterance(row, recording, path))
        except (ValueError, KeyError, TypeError) as error:
            note(dropped, row["id"], "lhotse: " + reason_of(ValueError(str(error))))


def _find(path: str, kind: str) -> list[Path]:
    found = sorted(p for p in Path(path).glob(f"*{kind}*") if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not found:
        raise ValueError(f"{path}: no *{kind}*.jsonl or .jsonl.gz; give the folder lhotse's preparation wrote")
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                row["id"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise ValueError(f"{path} line {number} must be a JSON object with an id, got {line[:80]!r}") from None
            yield row


def _fault(recording: dict[str, Any] | None) -> str | None:
    if recording is None:
        return "supervision without its recording"
    sources = recording.get("sources", [])
    if len(sources) != 1 or len(sources[0].get("channels", [0])) != 1:
        return "recording with several channels or files"
    if sources[0].get("type") not in ("file", "url"):
        return f"recording of type {sources[0].get('type')}"
    return "recording with transforms" if recording.get("transforms") else None


def _utterance(row: dict[str, Any], recording: dict[str, Any], folder: str) -> dict[str, Any]:
    start, length = float(row["start"]), float(row["duration"])
    whole = start == 0 and abs(length - recording["duration"]) < 0.01
    custom = dict(row.get("custom") or {})
    wav = recording["sources"][0]["source"]
    beside = Path(folder) / wav
    own = {name: custom.pop(name) for name in (*CUSTOM, *tasks.label_names()) if name in custom}
    items = (row.get("alignment") or {}).get("word")
    words = [[item[0], round(item[1] - start, 6), round(item[1] + item[2] - start, 6)] for item in items] if items else None
    column = {"duration": length} if whole else {"start": start, "end": round(start + length, 6)}
    text = {name: row.get(column) for name, column in NAMED.items()} | {"words": words}
    path = str(beside) if not Path(wav).exists() and beside.exists() else wav
    return {"key": row["id"], "wav": path, **text, **column, **own, "extra": custom}


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """``recordings.jsonl.gz`` and ``supervisions.jsonl.gz`` in a folder. Recordings that cannot be opened are left out."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    recordings: dict[str, dict[str, Any]] = {}
    count = 0
    with replaced(folder / "supervisions.jsonl.gz") as temporary, gzip.open(temporary, "wt", encoding="utf-8") as out:
        for utterance in utterances:
            recording = recordings.get(utterance.wav) or _recording(utterance, len(recordings))
            if recording is None:
                lost["recording cannot be opened"] += 1
                continue
            recordings[utterance.wav] = recording
            out.write(json.dumps(_supervision(utterance, recording), ensure_ascii=False) + "\n")
            count += 1
    with gzip.open(folder / "recordings.jsonl.gz", "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in recordings.values())
    return count


def _recording(utterance: Utterance, number: int) -> dict[str, Any] | None:
    import soundfile

    try:
        info = soundfile.info(utterance.wav)
    except (soundfile.SoundFileError, OSError, RuntimeError):
        return None
    segment = utterance.start is not None or utterance.end is not None
    channels = list(range(info.channels))
    return {
        "id": f"recording-{number:08d}" if segment else utterance.key,
        "sources": [{"type": "file", "channels": channels, "source": os.path.abspath(utterance.wav)}],
        "sampling_rate": info.samplerate,
        "num_samples": info.frames,
        "duration": info.frames / info.samplerate,
        "channel_ids": channels,
    }


def _supervision(utterance: Utterance, recording: dict[str, Any]) -> dict[str, Any]:
    start = utterance.start or 0.0
    end = utterance.end if utterance.end is not None else recording["duration"]
    row: dict[str, Any] = {"id": utterance.key, "recording_id": recording["id"], "start": start, "duration": round(end - start, 8), "channel": 0}
    named = {column: utterance.get(name) for name, column in NAMED.items()}
    row |= {column: value for column, value in named.items() if value is not None}
    # what has no place in a supervision lies in its table ``custom``
    own = {name: utterance.get(name) for name in CUSTOM} | utterance.labels
    own = {name: value for name, value in own.items() if value is not None and name not in NAMED}
    custom = utterance.extra | own
    if utterance.words:
        row["alignment"] = {"word": [[w.text, round(w.start + start, 6), round(w.end - w.start, 6), None] for w in utterance.words]}
    return row | ({"custom": custom} if custom else {})
