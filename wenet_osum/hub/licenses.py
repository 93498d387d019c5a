"""What a model was made from, read off the configurations of its training, and the licenses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from wenet_osum import lookup, migrate

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


def origins(folder: Path) -> list[str]:
    """Return the names of the models and corpora behind a model folder, sorted.

    They stand in train.yaml and data.yaml there, and in the folders that it began from.
    """
    names: set[str] = set()
    waiting, seen = [folder.resolve()], set()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for source in _read(here / "data.yaml").get("train") or []:
            names.add(source["name"])

        # A name of a model is that of an earlier run, whose configurations tell more, or final.
        for name in _begun_from(here):
            earlier = _earlier_run(name, here)
            if earlier is None:
                names.add(name)
            else:
                waiting.append(earlier)
    return sorted(names)


def _begun_from(folder: Path) -> list[str]:
    """Return the models from which the training in ``folder`` took weights."""
    model = migrate.train_yaml(_read(folder / "train.yaml")).get("model") or {}
    parts = model.get("init_parts") or {}
    encoder = (model.get("encoder") or {}).get("source")
    begun = [model.get("whisper"), encoder, model.get("llm"), model.get("init_from")]
    names = [*begun, *parts.values()]
    return [name for name in names if name]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _earlier_run(name: str, here: Path) -> Path | None:
    """Return the folder of an earlier run, as it was named where training ran.

    It is looked for there, and in the folders above ``here``.
    """
    above = [parent / name for parent in here.parents]
    for folder in [Path(name), *above]:
        if (folder / "train.yaml").is_file():
            return folder.resolve()
    return None
