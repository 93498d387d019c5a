"""A folder that Hugging Face's ``datasets`` saved (``save_to_disk``). The library is asked for only here: `pip install datasets`.

The transcript is the column ``txt``, ``text``, ``sentence`` or ``transcription``, the key ``key``, ``id`` or the row's number; columns named like our
fields are those fields, class labels by their names, and all others go to ``extra``.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from wenet_osum import tasks
from wenet_osum.dataset.drop import Drop, note
from wenet_osum.dataset.formats.shard import save_audio
from wenet_osum.dataset.manifest import from_row, reason_of
from wenet_osum.dataset.pack import recording
from wenet_osum.records import Utterance

TEXTS = ("txt", "text", "sentence", "transcription")
KEYS = ("key", "id")


def _library() -> ModuleType:
    try:
        return importlib.import_module("datasets")  # by name: an extra that no requirement states
    except ImportError:
        raise ValueError("the format hf needs Hugging Face's library: pip install datasets") from None


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """The rows of a saved split; audio stored inside becomes files in ``audio_dir``. Raises ValueError for several splits, or no column ``audio``."""
    library = _library()
    try:
        rows = library.load_from_disk(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: {error}; give a folder written by save_to_disk") from None
    if not hasattr(rows, "column_names") or isinstance(rows, dict):
        raise ValueError(f"{path} holds several splits ({', '.join(rows)}); give the folder of one, e.g. {path}/{next(iter(rows))}")
    if "audio" not in rows.column_names:
        raise ValueError(f"{path}: a column 'audio' is needed; there are {rows.column_names}")
    names = {name: f.int2str for name, f in rows.features.items() if isinstance(f, library.ClassLabel)}
    for number, row in enumerate(rows.cast_column("audio", library.Audio(decode=False))):
        row |= {name: text(row[name]) for name, text in names.items() if row[name] is not None}
        try:
            yield from_row(_row(row, number, audio_dir))
        except ValueError as error:
            note(dropped, str(number), "hf: " + reason_of(error))


def _row(row: dict[str, Any], number: int, audio_dir: str) -> dict[str, Any]:
    audio = row.pop("audio")
    key = next((str(row.pop(name)) for name in KEYS if row.get(name) is not None), f"row{number:09d}")
    text = next((row.pop(name) for name in TEXTS if row.get(name) is not None), None)
    data, path = audio.get("bytes"), audio.get("path") or ""
    if data is None and not path:
        raise ValueError("row without audio")
    wav = save_audio(audio_dir, key, Path(path).suffix or ".wav", data) if data is not None else path
    extra = row.pop("extra", None) or {}
    if row.get("words"):
        row["words"] = [[word["text"], word["start"], word["end"]] for word in row["words"]]
    return {k: v for k, v in row.items() if v is not None} | {"key": key, "wav": wav, "txt": text, "extra": {k: v for k, v in extra.items() if v is not None}}


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """A folder for ``load_from_disk`` with the audio inside; a segment is cut out. Words are a list of {text, start, end}."""
    library = _library()
    rows = []
    for utterance in utterances:
        try:
            row = utterance.to_dict()
            row["audio"] = {"bytes": recording(utterance, utterance.wav), "path": Path(utterance.wav).name}
        except Drop as drop:
            lost[drop.reason] += 1
            continue
        row["words"] = [dict(zip(("text", "start", "end"), word, strict=True)) for word in row["words"]] if row.get("words") else None
        rows.append({k: v for k, v in row.items() if k not in ("wav", "start", "end")})
    names = sorted({name for row in rows for name in row})
    # some labels are a text here and a number there (an age in years): a column has one type
    for name in tasks.label_names():
        if len({type(row.get(name)) for row in rows} - {type(None)}) > 1:
            rows = [row | {name: None if row.get(name) is None else str(row[name])} for row in rows]
    table = library.Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    table.cast_column("audio", library.Audio(decode=False)).save_to_disk(path)
    return len(rows)
