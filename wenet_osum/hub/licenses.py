"""The licenses of models, corpora and tools."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import yaml

from wenet_osum import lookup

TABLE = Path(__file__).with_name("licenses.yaml")


class License(NamedTuple):
    """A row of licenses.yaml.

    ``kind`` is model, corpus or tool; ``matches`` a regular expression for the names that
    configurations use; ``source`` a URL.
    """

    name: str
    kind: str
    matches: str
    license: str
    source: str


def table() -> list[License]:
    """Return every model, corpus and tool whose license is known here."""
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [License(**row) for row in rows]


def find(name: str) -> License | None:
    """Return the row that a model's or corpus's name belongs to, in either case; None without."""
    for row in table():
        if row.name.lower() == name.lower():
            return row
        if re.fullmatch(row.matches, name, re.IGNORECASE):
            return row
    return None


def named(names: Iterable[str]) -> list[License]:
    """Return the rows of names that a user gave. Raises ValueError for one not in the table."""
    rows = []
    for name in names:
        row = find(name)
        if row is None:
            known = [row.name for row in table()]
            raise ValueError(f"--uses: {lookup.unknown('model or corpus', name, known)}")
        rows.append(row)
    return rows
