"""Columns of text that take few bytes an utterance and can lie in a mapped file.

Texts of many values are one run of UTF-8 bytes and the places where each begins and ends; texts of
few values are numbers into a table.

Letters: n texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

ERRORS = "surrogatepass"  # a label may hold half of a surrogate pair, which UTF-8 has no place for


class Texts(Sequence[str]):
    """Texts in one run of bytes."""

    def __init__(self, blob: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> None:
        """Take the bytes (uint8), and where each text begins and ends in them, (n,)."""
        self.blob = blob
        self.begins = begins
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, rows: Any) -> Any:
        """Return one text, or the Texts of a slice, a mask or positions."""
        if isinstance(rows, (int, np.integer)):
            return self._text(
                self.begins[rows],
                self.ends[rows],
            )
        return Texts(
            self.blob,
            self.begins[rows],
            self.ends[rows],
        )

    def __iter__(self) -> Iterator[str]:
        places = zip(
            self.begins.tolist(),
            self.ends.tolist(),
            strict=True,
        )
        for begin, end in places:
            yield self._text(begin, end)

    def _text(self, begin: int, end: int) -> str:
        raw = self.blob[int(begin) : int(end)].tobytes()
        return raw.decode("utf-8", ERRORS)

    def tolist(self) -> list[str]:
        """Return the texts as a list, as an array does."""
        return [*self]

    @cached_property
    def known(self) -> list[str]:
        """The texts as a list, decoded once: for tables."""
        return self.tolist()

    @cached_property
    def number(self) -> dict[str, int]:
        """Text → its place, made once: for tables."""
        return {text: place for place, text in enumerate(self.known)}


def join(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Join texts: their UTF-8 bytes (uint8), and where each ends, (n,) uint64."""
    parts = [str(text).encode("utf-8", ERRORS) for text in texts]
    sizes = np.array(
        [len(part) for part in parts],
        dtype=np.uint64,
    )
    blob = np.frombuffer(b"".join(parts), dtype=np.uint8)
    return blob, np.cumsum(sizes, dtype=np.uint64)


def split(blob: np.ndarray, ends: np.ndarray) -> Texts:
    """Return the texts that ``join`` has joined."""
    begins = np.zeros_like(ends)
    begins[1:] = ends[:-1]
    return Texts(blob, begins, ends)


class Coded:
    """Texts of few values: numbers (n,) into a table."""

    def __init__(self, codes: np.ndarray, table: Texts) -> None:
        self.codes = codes
        self.table = table

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Any:
        """Return one text, or the column of a slice, a mask or positions."""
        if isinstance(rows, (int, np.integer)):
            return self.table[int(self.codes[rows])]
        return Coded(self.codes[rows], self.table)

    def __iter__(self) -> Iterator[str]:
        values, place = self.distinct()
        for number in place.tolist():
            yield values[number]

    def tolist(self) -> list[str]:
        """Return the texts as a list, as an array does."""
        return [*self]

    def array(self) -> np.ndarray:
        """Return the texts as an array, (n,) str."""
        return np.array(self.tolist(), dtype=np.str_)

    def distinct(self) -> tuple[list[str], np.ndarray]:
        """Return the values that occur, and the place among them of each text, (n,)."""
        used, place = np.unique(self.codes, return_inverse=True)
        return [self.table[int(code)] for code in used], place

    def equal(self, value: str) -> np.ndarray:
        """Tell which texts are ``value``, (n,) bool."""
        code = self.table.number.get(value)
        if code is None:
            return np.zeros(len(self), dtype=bool)
        return self.codes == code


Column = np.ndarray | Coded  # (n,) str


def distinct(column: Column) -> tuple[list[str], np.ndarray]:
    """Return the values that occur in a column, and the place among them of each text, (n,)."""
    if isinstance(column, Coded):
        return column.distinct()
    values, place = np.unique(column, return_inverse=True)
    return values.tolist(), place


def equal(column: Column, value: str) -> np.ndarray:
    """Tell which texts of a column are ``value``, (n,) bool."""
    if isinstance(column, Coded):
        return column.equal(value)
    return column == value


def narrow(numbers: np.ndarray) -> np.ndarray:
    """Return whole numbers in the smallest unsigned type that holds them.

    Those with a negative one among them become int64.
    """
    if numbers.min(initial=0) < 0:
        return numbers.astype(np.int64)
    most = int(numbers.max(initial=0))
    return numbers.astype(np.min_scalar_type(most), copy=False)
