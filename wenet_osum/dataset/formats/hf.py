"""A folder that Hugging Face's ``datasets`` saved (``save_to_disk``).

The library is asked for only here: `pip install datasets`.

The transcript is the column ``txt``, ``text``, ``sentence`` or ``transcription``, the key ``key``,
``id`` or the row's number; columns named like our fields are those fields, class labels by their
names, and all others go to ``extra``. There a time of day or a date is text, bytes are base64, NaN
is not known; words of another form than ours are no word times. An entry of ``extra`` that has
several types is written as JSON text.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from wenet_osum import tasks
from wenet_osum.dataset.drop import Drop, note
from wenet_osum.dataset.formats._fields import without_conversations
from wenet_osum.dataset.formats.shard import save_audio
from wenet_osum.dataset.manifest import from_row, reason_of
from wenet_osum.dataset.recording import whole_recording
from wenet_osum.records import Utterance

TEXTS = ("txt", "text", "sentence", "transcription")
KEYS = ("key", "id")
# columns of a row that ``audio`` stands for
UNKNOWN = -1  # number of a class that is not known
REPLACED = ("wav", "start", "end")
Row = dict[str, Any]


def _library() -> ModuleType:
    """Import ``datasets``, by name: it is an extra that no requirement states."""
    try:
        return importlib.import_module("datasets")
    except ImportError:
        raise ValueError(
            "the format hf needs Hugging Face's library: pip install datasets"
        ) from None


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the rows of a saved split; audio stored inside becomes files in ``audio_dir``.

    Raises ValueError for several splits, or no column ``audio``.
    """
    library = _library()
    table = _load(library, path)
    names = _class_names(library, table)
    # files as they are, not decoded
    undecoded = table.cast_column("audio", library.Audio(decode=False))
    seen: set[str] = set()
    for number, row in enumerate(undecoded):
        try:
            _name_classes(row, names)
            yield from_row(_row(row, number, audio_dir, seen))
        except ValueError as error:
            note(dropped, str(number), "hf: " + reason_of(error))


def _load(library: ModuleType, path: str) -> Any:
    """Load one split. Raises ValueError for anything else."""
    try:
        table = library.load_from_disk(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: {error}; give a folder written by save_to_disk") from None
    if isinstance(table, dict) or not hasattr(table, "column_names"):
        splits = ", ".join(table)
        first = next(iter(table))
        raise ValueError(
            f"{path} holds several splits ({splits}); give the folder of one, e.g. {path}/{first}"
        )
    if "audio" not in table.column_names:
        raise ValueError(f"{path}: a column 'audio' is needed; there are {table.column_names}")
    return table


def _class_names(library: ModuleType, table: Any) -> dict[str, Callable[[int], str]]:
    """Return, for each column of class labels, what turns their numbers into names."""
    names = {}
    for column, feature in table.features.items():
        if isinstance(feature, library.ClassLabel):
            names[column] = feature.int2str
    return names


def _name_classes(row: Row, names: dict[str, Callable[[int], str]]) -> None:
    """Put names in the place of a row's class numbers; -1 is how a table writes "not known"."""
    for column, name_of in names.items():
        if row[column] == UNKNOWN:
            row[column] = None
        if row[column] is not None:
            row[column] = name_of(row[column])


def _row(row: Row, number: int, audio_dir: str, seen: set[str]) -> Row:
    """Turn a row of the table into one of a manifest. Raises ValueError without audio.

    An id that rows before have, ``seen``, is made one of its own: in FLEURS it is the sentence's.
    """
    audio = row.pop("audio")
    row = _as_json(row)
    key = _take_first(row, KEYS)
    key = f"row{number:09d}" if key is None else str(key)
    if key in seen:
        key = f"{key}-row{number:09d}"
    seen.add(key)
    text = _take_first(row, TEXTS)
    extra = row.pop("extra", None) or {}
    wav = _save(audio, key, audio_dir)
    words = _timed(row.get("words"))
    if words is None and row.get("words"):
        extra["words"] = row.pop("words")

    # a table has every column in every row, empty or not
    named = {"key": key, "wav": wav, "txt": text, "words": words, "extra": _known(extra)}
    return _known(row) | named


def _take_first(row: Row, columns: tuple[str, ...]) -> Any:
    """Take the first of the columns that is there and not empty out of a row."""
    for name in columns:
        if row.get(name) is not None:
            return row.pop(name)
    return None


def _known(row: Row) -> Row:
    """Leave out what is None."""
    return {name: value for name, value in row.items() if value is not None}


def _as_json(value: Any) -> Any:
    """Return a value of a table as JSON holds it."""
    if isinstance(value, dict):
        return {name: _as_json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_as_json(part) for part in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def _timed(words: Any) -> list | None:
    """Return words as a manifest has them; None for none and for a column of another kind."""
    if not words:
        return None
    try:
        return [[word["text"], float(word["start"]), float(word["end"])] for word in words]
    except (KeyError, TypeError, ValueError):
        return None


def _save(audio: Row, key: str, audio_dir: str) -> str:
    """Return the path of a row's audio, written where it is stored inside."""
    data = audio.get("bytes")
    path = audio.get("path") or ""
    if data is None and not path:
        raise ValueError("row without audio")
    if data is None:
        return path
    suffix = Path(path).suffix or ".wav"
    return save_audio(audio_dir, key, suffix, data)


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a folder for ``load_from_disk`` with the audio inside; a segment is cut out.

    Words are a list of {text, start, end}.
    """
    library = _library()
    rows = []
    for utterance in without_conversations(utterances, "a table of datasets", lost):
        try:
            rows.append(_row_of(utterance))
        except Drop as drop:
            lost[drop.reason] += 1
    _give_labels_one_type(rows)
    _give_extras_one_type(rows)
    table = library.Dataset.from_dict(_columns(rows))
    undecoded = table.cast_column("audio", library.Audio(decode=False))
    undecoded.save_to_disk(path)
    return len(rows)


def _row_of(utterance: Utterance) -> Row:
    """Return an utterance as a row of the table. Raises Drop where its audio cannot be read."""
    row = utterance.to_dict()
    audio = whole_recording(utterance, utterance.wav)
    file = Path(utterance.wav).name
    row["audio"] = {"bytes": audio, "path": file}
    words = None
    if row.get("words"):
        words = []
        for text, start, end in row["words"]:
            words.append({"text": text, "start": start, "end": end})
    row["words"] = words
    for name in REPLACED:
        row.pop(name, None)
    return row


def _give_labels_one_type(rows: list[Row]) -> None:
    """Write a label as text where it is a text in one row and a number in another.

    An age in years is such a label, and a column has one type.
    """
    for name in tasks.label_names():
        labeled = [row for row in rows if row.get(name) is not None]
        types = {type(row[name]) for row in labeled}
        if len(types) > 1:
            for row in labeled:
                row[name] = str(row[name])


def _give_extras_one_type(rows: list[Row]) -> None:
    """Write an entry of ``extra`` as JSON text where it, or a part of it, has several types."""
    kinds: dict[str, dict[str, str]] = {}  # entry → place in it → type
    mixed: set[str] = set()
    extras = [row["extra"] for row in rows if row.get("extra")]
    for extra in extras:
        for name, value in extra.items():
            own = kinds.setdefault(name, {})
            for place, kind in _kinds(value):
                if own.setdefault(place, kind) != kind:
                    mixed.add(name)
    for row in rows:
        extra = dict(row.get("extra") or {})
        for name in mixed.intersection(extra):
            extra[name] = json.dumps(extra[name], ensure_ascii=False)
            row["extra"] = extra


def _kinds(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the places in a value and the types there; an int may stand among floats."""
    if value is None:
        return
    kind = type(value).__name__
    if kind in ("int", "float"):
        kind = "number"
    yield place, kind
    if isinstance(value, list):
        for part in value:
            yield from _kinds(part, f"{place}[]")
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _kinds(part, f"{place}.{name}")


def _columns(rows: list[Row]) -> dict[str, list]:
    """Turn rows into columns, None where a row has no entry."""
    names = set()
    for row in rows:
        names.update(row)
    columns = {}
    for name in sorted(names):
        columns[name] = [row.get(name) for row in rows]
    return columns
