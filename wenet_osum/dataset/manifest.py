"""Manifests: one JSON object per line, read and written as Utterances."""

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
from wenet_osum.tasks.lid import language_code
from wenet_osum.turns import named

# A reason that is counted.
WHITE_KEY = "key: holds white space, which ends a key in text files"
_TEXTS = ("txt", "task", "lang", "speaker", "reply", "prompt")
# How corpora and the published layout write "not known".
_UNKNOWN = frozenset(("", "none", "null", "nan", "unk", "unknown", "n/a"))


def read_manifest(path: str | Path, dropped: Counter | None = None) -> Iterator[Utterance]:
    """Yield the utterances of a manifest (also WeNet's raw lists).

    Lines that cannot be read are counted in ``dropped`` by reason; without it the first one raises
    ValueError with its line number. Raises ValueError when the file does not exist.
    """
    labels = tasks.label_names()
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            yield parse_line(line, labels)
        except ValueError as error:
            where = f"{path} line {number}"
            if dropped is None:
                raise ValueError(f"{where}: {error}") from None
            note(dropped, where, "manifest: " + reason_of(error))


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


def unique(utterances: Iterable[Utterance], dropped: Counter) -> Iterator[Utterance]:
    """Yield the first utterance of each key; others are counted in ``dropped``."""
    seen: set[str] = set()
    for utterance in utterances:
        key = utterance.key
        if key in seen:
            note(dropped, key, "duplicate key")
            continue
        seen.add(key)
        yield utterance


def reason_of(error: ValueError) -> str:
    """Return the countable part of a line's fault: what comes before the first ", got" or colon."""
    text = str(error)
    rule, _, _ = text.partition(", got")
    reason, _, _ = rule.partition(":")
    return reason


def parse_line(line: bytes, labels: Collection[str] | None = None) -> Utterance:
    """Read one manifest line. Raises ValueError with the value and the rule.

    ``labels`` are the names of label fields; default: those of the known tasks.
    """
    rule = "a line must be one JSON object in UTF-8"
    try:
        text = line.decode("utf-8-sig")
        row = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{rule}, got {line[:80]!r}: {error}") from None
    if not isinstance(row, dict):
        got = str(row)[:80]
        raise ValueError(f"{rule}, got {got}")
    return from_row(row, labels)


def from_row(row: dict[str, Any], labels: Collection[str] | None = None) -> Utterance:
    """Check and tidy a row: types, times, ``<CN>`` → zh, ``<SAD>`` → SAD, ``none`` → absent.

    ``labels`` are the names of label fields; default: those of the known tasks. One that stands in
    ``extra``, as in a shard packed before its task was there, is taken out of it. Raises
    ValueError.
    """
    if labels is None:
        labels = tasks.label_names()
    row = _tidied(row, labels)
    if row.get("turns"):
        turns = named(row.get("key"), row["turns"])
        row["turns"] = [_tidied(turn, labels) for turn in turns]
    _check_unicode(row)
    utterance = Utterance.from_dict(row, labels)
    for turn in (*(utterance.turns or ()), utterance):
        _check_times(turn)
    return utterance


def _tidied(row: dict[str, Any], labels: Collection[str]) -> dict[str, Any]:
    """Return a row with its texts and labels as the record takes them. Raises ValueError."""
    row = {name: value for name, value in row.items() if value is not None}
    _check_texts(row)
    extra = row.get("extra")
    if "extra" in row and not isinstance(extra, dict):
        row["extra"] = {"extra": extra}
    if row.get("extra"):
        _claim(row, labels)
    named = [name for name in ("lang", "speaker", *labels) if name in row]
    texts = tasks.free_texts(named)
    for name in named:
        if name in texts:
            row[name] = _tidy_text(name, row[name])
        else:
            row[name] = tidy_label(name, row[name])
    return row


def _check_texts(row: dict[str, Any]) -> None:
    """Turn numbers into text where text belongs. Raises ValueError for anything else."""
    for name in _TEXTS:
        if name not in row:
            continue
        value = row[name]
        if _is_number(value):
            row[name] = str(value)
        elif not isinstance(value, str):
            got = str(value)[:80]
            raise ValueError(f"{name!r} must be text, got {got!r}")


def _is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a number; Python takes true for one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _claim(row: dict[str, Any], labels: Collection[str]) -> None:
    """Move labels from ``extra`` to the top level; what is no label's value stays where it is."""
    found = {}
    rest = {}
    for name, value in row["extra"].items():
        if name in labels and name not in row and _can_be_label(value):
            found[name] = value
        else:
            rest[name] = value
    if found:
        row |= found
        row["extra"] = rest


def _can_be_label(value: Any) -> bool:
    """Tell whether a value is a text or a finite number."""
    if isinstance(value, str):
        return True
    return _is_number(value) and math.isfinite(value)


def tidy_label(name: str, value: Any) -> str | float | None:
    """Return a label without the brackets of the published layout; None for "not known".

    A number, such as an age in years, stays one. Raises ValueError for anything else.
    """
    if not _can_be_label(value):
        rule = f"{name!r} must be a label (a text or a finite number)"
        got = str(value)[:80]
        raise ValueError(f"{rule}, got {got!r}")
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1].strip()
    small = text.lower()
    if small in _UNKNOWN:
        return None
    if name == "lang":
        return language_code(text)
    return text


def _tidy_text(name: str, value: Any) -> str | None:
    """Return a free text as it is, for "none" is a word in it; None for an empty one.

    Raises ValueError for what is no text.
    """
    if _is_number(value):
        value = str(value)
    if not isinstance(value, str):
        got = str(value)[:80]
        raise ValueError(f"{name!r} must be text, got {got!r}")
    return value.strip() or None


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> int:
    """Write utterances a JSON line each; the file appears whole or not at all.

    Returns their number.
    """
    rows = (("", utterance) for utterance in utterances)
    counts = write_manifests({"": Path(path)}, rows)
    return counts[""]


def write_lines(path: str | Path, lines: Iterable[str]) -> int:
    """Write lines of JSON; the file appears whole or not at all. Returns their number."""
    count = 0
    with replaced(Path(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for line in lines:
            file.write(f"{line}\n")
            count += 1
    return count


def write_manifests(paths: dict[str, Path], rows: Iterable[tuple[str, Utterance]]) -> Counter:
    """Write each utterance to the manifest its name stands for.

    All files appear whole, or none does. Returns the number in each.
    """
    counts = Counter(dict.fromkeys(paths, 0))
    with contextlib.ExitStack() as stack:
        # Leaving runs backwards: all files are closed before the first of them takes its place.
        temporary = {}
        for name, path in paths.items():
            temporary[name] = stack.enter_context(replaced(path))
        files = {}
        for name, path in temporary.items():
            files[name] = stack.enter_context(open(path, "w", encoding="utf-8", newline="\n"))

        for name, utterance in rows:
            line = utterance.to_json()
            files[name].write(f"{line}\n")
            counts[name] += 1
    return counts


def read_lines(path: str | Path) -> Iterator[bytes]:
    """Yield the lines of a file. Raises ValueError when it does not exist."""
    try:
        with open(path, "rb") as lines:
            yield from lines
    except FileNotFoundError:
        advice = "check the path, or run the stage that writes it"
        raise ValueError(f"{path} does not exist; {advice}") from None


def _check_unicode(row: dict[str, Any]) -> None:
    """Raise ValueError for text that UTF-8 cannot hold."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        rule = "text must be valid Unicode, got half of a surrogate pair in"
        key = ascii(row.get("key"))
        raise ValueError(f"{rule} {key}: {error.reason}") from None


def _check_times(utterance: Utterance) -> None:
    """Raise ValueError for times that are no times, or run backwards."""
    key = utterance.key
    for name in ("start", "end", "duration"):
        value = getattr(utterance, name)
        if value is None:
            continue
        if not _is_number(value) or not math.isfinite(value) or value < 0:
            raise ValueError(f"{name!r} must be seconds of 0 or more, got {value!r} in {key!r}")
    start, end = utterance.start, utterance.end
    if end is not None and end <= (start or 0):
        raise ValueError(f"'end' must lie after 'start', got {start} to {end} in {key!r}")
    _check_word_times(utterance)


def _check_word_times(utterance: Utterance) -> None:
    """Raise ValueError for words whose times are no times, or run backwards."""
    before = 0.0
    for word in utterance.words or ():
        if not math.isfinite(word.start) or not math.isfinite(word.end):
            rule = "'words' must have finite times, got NaN or infinity"
            raise ValueError(f"{rule} in {utterance.key!r}")
        if not before <= word.start <= word.end:
            rule = "'words' must have times of 0 or more that run forward"
            raise ValueError(f"{rule}, got {word} after {before} s in {utterance.key!r}")
        before = word.start
