"""Praat TextGrid, long or short form, in UTF-8 or UTF-16.

Both forms hold the same values in the same order; in the long one they stand among remarks. Praat
takes free-standing numbers, quoted strings and flags in angle brackets for values and everything
else for remarks, and so does this reader
(https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from wenet_osum.records import Word

SUFFIXES = (".textgrid",)
_STRING = r'"((?:[^"]|"")*)"'
_FLAG = r"(?<!\S)(<\w+>)(?!\S)"
_NUMBER = r"(?<!\S)([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?%?)(?!\S)"
_REMARK = r"!.*"
_VALUE = re.compile("|".join([_STRING, _FLAG, _NUMBER, _REMARK]))
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read(data: bytes) -> dict[str | None, list[Word]]:
    """Read the words of the tier called ``words`` or ``word``, or of the only interval tier.

    Raises ValueError when it is not clear which tier holds the words.
    """
    found = tiers(data)
    named = []
    for name, words in found:
        if name.strip().lower() in ("words", "word"):
            named.append(words)

    if len(named) == 1:
        return {None: named[0]}
    if not named and len(found) == 1:
        _, words = found[0]
        return {None: words}
    names = [name for name, _ in found]
    rule = "a tier called 'words' is needed, or one tier alone"
    raise ValueError(f"{rule}; there are {names}; name the one with the words so")


def tiers(data: bytes) -> list[tuple[str, list[Word]]]:
    """Read (name, intervals) of each interval tier.

    Raises ValueError for what is no TextGrid or ends early.
    """
    values = _values(_text(data))
    try:
        return list(_tiers(values))
    except (StopIteration, RuntimeError):
        rule = "the TextGrid ends before its last interval"
        raise ValueError(f"{rule}; save it again") from None
    except TypeError as error:
        raise ValueError(f"no TextGrid: {error}") from None


def _text(data: bytes) -> str:
    """Decode a file by its byte order mark, or by where its first zero bytes stand."""
    encoding = "utf-8"
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            encoding = name
            break

    # Praat also writes UTF-16 without a mark; half of the bytes of plain letters are zero then.
    if encoding == "utf-8" and data[:4].count(0) == 2:
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        rule = f"a TextGrid must be UTF-8 or UTF-16 ({error})"
        advice = "in Praat: Preferences, Text writing preferences, UTF-8"
        raise ValueError(f"{rule}; {advice}") from None


def _values(text: str) -> Iterator[str | float]:
    """Give strings as str, flags as ``<exists>``, numbers as float."""
    for match in _VALUE.finditer(text):
        string, flag, number = match.groups()
        if string is not None:
            yield string.replace('""', '"')
        elif flag:
            yield flag
        elif number:
            yield float(number.rstrip("%"))


def _tiers(values: Iterator[str | float]) -> Iterator[tuple[str, list[Word]]]:
    kind = (next(values), next(values))
    if kind != ("ooTextFile", "TextGrid"):
        raise TypeError(f"it begins with {kind}, not with ('ooTextFile', 'TextGrid')")
    _skip_times(values)
    if next(values) != "<exists>":
        return

    for _ in range(_count(values)):
        tier_class = next(values)
        name = next(values)
        if tier_class not in ("IntervalTier", "TextTier"):
            raise TypeError(f"tier of the unknown class {tier_class!r}")
        _skip_times(values)

        # Tiers of points are read over: a point has a time and a text, but no end.
        has_ends = tier_class == "IntervalTier"
        rows = []
        for _ in range(_count(values)):
            rows.append(_row(values, has_ends))
        if has_ends:
            yield str(name), rows


def _row(values: Iterator[str | float], has_end: bool) -> Word:
    start = _number(values)
    end = _number(values) if has_end else start
    text = str(next(values))
    return Word(text, start, end)


def _skip_times(values: Iterator[str | float]) -> None:
    """Pass over the first and last time of a file or tier."""
    _number(values)
    _number(values)


def _count(values: Iterator[str | float]) -> int:
    return int(_number(values))


def _number(values: Iterator[str | float]) -> float:
    value = next(values)
    if not isinstance(value, float):
        raise TypeError(f"a number was expected where {value!r} stands")
    return value
