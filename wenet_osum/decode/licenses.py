"""What a model was made from, read off the configurations of its training, and under which licenses that came."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from wenet_osum import lookup, migrate

TABLE = Path(__file__).with_name("licenses.yaml")


class License(NamedTuple):
    """A row of licenses.yaml."""

    name: str
    kind: str  # model, corpus or tool
    matches: str  # regular expression for the names that configurations use
    license: str
    source: str  # URL


def table() -> list[License]:
    """Every model, corpus and tool whose license is known here."""
    return [License(**row) for row in yaml.safe_load(TABLE.read_text(encoding="utf-8"))]


def find(name: str) -> License | None:
    """The row that a model's or corpus's name belongs to, in either case."""
    return next((row for row in table() if re.fullmatch(row.matches, name, re.IGNORECASE) or row.name.lower() == name.lower()), None)


def named(names: Iterable[str]) -> list[License]:
    """The rows of names that a user gave. Raises ValueError for one that is not in the table."""
    rows = [find(name) for name in names]
    for name, row in zip(names, rows, strict=True):
        if row is None:
            raise ValueError(f"--uses: {lookup.unknown('model or corpus', name, [row.name for row in table()])}")
    return rows


def origins(folder: Path) -> list[str]:
    """Names of the models and corpora behind a model folder: train.yaml and data.yaml there, and in the folders that it began from."""
    names, todo, seen = {}, [folder.resolve()], set()
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        model = migrate.train_yaml(_read(here / "train.yaml")).get("model") or {}
        names |= {source["name"]: None for source in _read(here / "data.yaml").get("train") or []}
        begun = [model.get("whisper"), model.get("llm"), model.get("init_from"), *(model.get("init_parts") or {}).values()]
        for name in filter(None, begun):
            if found := _trained(name, here):
                todo.append(found)
            else:
                names[name] = None
    return sorted(names)


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _trained(name: str, here: Path) -> Path | None:
    """The folder of an earlier run, as it was named where training ran: there, or in a folder above ``here``."""
    folders = [Path(name), *(parent / name for parent in here.parents)]
    return next((folder.resolve() for folder in folders if (folder / "train.yaml").is_file()), None)
