"""Manifests: one JSON object a line, read and written as Utterances; Kaldi text files read as such."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from wenet_osum import tasks
from wenet_osum.dataset.drop import note
from wenet_osum.files import replaced
from wenet_osum.records import Utterance

WHITE_KEY = "key: holds white space, which ends a key in text files"  # counted reason
_TEXTS = ("txt", "task", "lang", "speaker", "reply")
_UNKNOWN = frozenset(("", "none", "null", "nan", "unk", "unknown", "n/a"))  # how corpora and the published layout write "not known"
_LANGS = {"cn": "zh", "zho": "zh", "cmn": "zh", "chinese": "zh", "mandarin": "zh", "eng": "en", "english": "en"}


def read_manifest(path: str | Path, dropped: Counter | None = None) -> Iterator[Utterance]:
    """Yield the utterances of a manifest (also WeNet's raw lists).

    Lines that cannot be read are counted in ``dropped`` by reason; without it the first one raises ValueError with its line number.
    Raises ValueError when the file does not exist.
    """
    labels = tasks.label_names()
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            yield parse_line(line, labels)
        except ValueError as error:
            if dropped is None:
                raise ValueError(f"{path} line {number}: {error}") from None
            note(dropped, f"{path} line {number}", "manifest: " + reason_of(error))


def has_white_space(key: str) -> bool:
    """Tell whether a key holds a space, tab, line break or other Unicode white space."""
    return key.split() != [key]


def without_white_keys(utterances: Iterable[Utterance], dropped: Counter) -> Iterator[Utterance]:
    """Yield the utterances whose keys hold no white space; others are counted in ``dropped``."""
    for utterance in utterances:
        if has_white_space(utterance.key):
            note(dropped, repr(utterance.key), WHITE_KEY)
        else:
            yield utterance


def reason_of(error: ValueError) -> str:
    """The countable part of a line's fault: what comes before the first ", got" or colon."""
    return str(error).split(", got")[0].split(":")[0]


def parse_line(line: bytes, labels: Collection[str] | None = None) -> Utterance:
    """One manifest line → Utterance. Raises ValueError with the value and the rule.

    ``labels`` are the names of label fields; default: those of the known tasks.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"a line must be one JSON object in UTF-8, got {line[:80]!r}: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"a line must be one JSON object in UTF-8, got {str(row)[:80]}")
    return from_row(row, labels)


def from_row(row: dict[str, Any], labels: Collection[str] | None = None) -> Utterance:
    """Check and tidy a row: types, finite times, ``<CN>`` → zh, ``<SAD>`` → SAD, ``none`` → absent.

    ``labels`` are the names of label fields; default: those of the known tasks. One that stands in
    ``extra``, as in a shard packed before its task was there, is taken out of it. Raises ValueError.
    """
    labels = tasks.label_names() if labels is None else labels
    row = {k: v for k, v in row.items() if v is not None}
    for name in _TEXTS:
        if isinstance(row.get(name), (int, float)) and not isinstance(row[name], bool):
            row[name] = str(row[name])
        if not isinstance(row.get(name, ""), str):
            raise ValueError(f"{name!r} must be text, got {str(row[name])[:80]!r}")
    for name in ("lang", "speaker"):
        if name in row:
            row[name] = tidy_label(name, row[name])
    if not isinstance(row.get("extra", {}), dict):
        row["extra"] = {"extra": row["extra"]}
    if row.get("extra"):
        _claim(row, labels)
    for name in labels:
        if name in row:
            row[name] = tidy_label(name, row[name])
    _check_unicode(row)
    utterance = Utterance.from_dict(row, labels)
    _check_times(utterance)
    return utterance


def _claim(row: dict[str, Any], labels: Collection[str]) -> None:
    """Move labels from ``extra`` to the top level; what is no label's value stays where it is."""
    extra = row["extra"]
    found = {k: v for k, v in extra.items() if k in labels and k not in row and _can_be_label(v)}
    if found:
        row |= found | {"extra": {k: v for k, v in extra.items() if k not in found}}


def _can_be_label(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str) or (number and math.isfinite(value))


def tidy_label(name: str, value: Any) -> str | float | None:
    """A label without the brackets of the published layout; None for its words for "not known".

    A number, such as an age in years, stays one. Raises ValueError for anything else.
    """
    if not _can_be_label(value):
        rule = f"{name!r} must be a label (a text or a finite number)"
        raise ValueError(f"{rule}, got {str(value)[:80]!r}")
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1].strip()
    if text.lower() in _UNKNOWN:
        return None
    return _LANGS.get(text.lower(), text.lower()) if name == "lang" else text


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> int:
    """Write utterances a JSON line each; the file appears whole or not at all. Returns their number."""
    return write_manifests({"": Path(path)}, (("", utterance) for utterance in utterances))[""]


def write_manifests(paths: dict[str, Path], rows: Iterable[tuple[str, Utterance]]) -> Counter:
    """Write each utterance to the manifest its name stands for; all files appear whole, or none does. Returns the number in each."""
    counts, files = Counter(dict.fromkeys(paths, 0)), {}
    with contextlib.ExitStack() as stack:
        # Leaving runs backwards: all files are closed before the first of them takes its place.
        temporary = {name: stack.enter_context(replaced(path)) for name, path in paths.items()}
        for name, path in temporary.items():
            files[name] = stack.enter_context(open(path, "w", encoding="utf-8", newline="\n"))
        for name, utterance in rows:
            files[name].write(utterance.to_json() + "\n")
            counts[name] += 1
    return counts


def read_kaldi(wav: str | Path, text: str | Path, segments: str | Path | None = None, dropped: Counter | None = None) -> Iterator[Utterance]:
    """Yield utterances from Kaldi's ``wav.scp``, ``text`` and ``segments`` (``key recording start end``), in the order of ``text``.

    Lines without a partner, keys with white space and pipes are counted in ``dropped``. Raises ValueError for a missing file or a malformed line.
    """
    dropped = Counter() if dropped is None else dropped
    wavs, spans = _table(wav, dropped), _segments(segments, dropped) if segments else {}
    used = set()
    for key, txt in _table(text, dropped).items():
        span = spans.get(key) if segments else (key, None, None)
        fault = WHITE_KEY if has_white_space(key) else _fault(span, wavs)
        if fault:
            note(dropped, key, fault)
            continue
        used.add(key)
        yield Utterance(key=key, wav=wavs[span[0]], txt=txt, start=span[1], end=span[2])
    for key in (spans if segments else wavs).keys() - used - {k for k, _ in getattr(dropped, "pairs", [])}:
        note(dropped, key, "recording without a line in text")


def _fault(span: tuple | None, wavs: dict[str, str]) -> str | None:
    if span is None:
        return "text without a line in segments"
    if span[0] not in wavs:
        return "text without a recording"
    if wavs[span[0]].endswith("|"):
        return "wav.scp holds a pipe; run it and give the file it makes"
    return None


def _table(path: str | Path, dropped: Counter) -> dict[str, str]:
    rows: dict[str, str] = {}
    for line in _lines(path):
        key, _, rest = line.decode("utf-8-sig").strip().partition(" ") if b"\t" not in line else line.decode("utf-8-sig").strip().partition("\t")
        if key in rows:
            note(dropped, key, f"duplicate key in {Path(path).name}")
        elif key:
            rows[key] = rest.strip()
    return rows


def _segments(path: str | Path, dropped: Counter) -> dict[str, tuple[str, float, float]]:
    rows = {}
    for key, rest in _table(path, dropped).items():
        try:
            recording, start, end = rest.split()
            rows[key] = (recording, float(start), float(end))
        except ValueError:
            raise ValueError(f"{path}: a line must read 'key recording start_s end_s', got {key + ' ' + rest!r}") from None
    return rows


def _lines(path: str | Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as lines:
            yield from lines
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; check the path, or run the stage that writes it") from None


def _check_unicode(row: dict[str, Any]) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text must be valid Unicode, got half of a surrogate pair in {ascii(row.get('key'))}: {error.reason}") from None


def _check_times(utterance: Utterance) -> None:
    for name in ("start", "end", "duration"):
        value = getattr(utterance, name)
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value < 0):
            raise ValueError(f"{name!r} must be seconds of 0 or more, got {value!r} in {utterance.key!r}")
    if utterance.end is not None and utterance.end <= (utterance.start or 0):
        raise ValueError(f"'end' must lie after 'start', got {utterance.start} to {utterance.end} in {utterance.key!r}")
    if not all(math.isfinite(w.start) and math.isfinite(w.end) for w in utterance.words or []):
        raise ValueError(f"'words' must have finite times, got NaN or infinity in {utterance.key!r}")
