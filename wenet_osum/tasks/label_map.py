"""Label maps: how a public corpus spells a field's labels, and what they are here. A map is a yaml file of ``maps/``.

    source: where the corpus's labels are defined
    emotion:
      angry: anger
      bored: null        # no label of ours: left out and counted

Maps lie beside the label sets they lead to, where recipes, which write manifests, and the scorer can both read them. A label that a map
does not name stops with the known ones: a corpus that came in another version must not lose a class in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from wenet_osum import lookup, tasks
from wenet_osum.records import Utterance

FOLDER = Path(__file__).parent / "maps"


@dataclass(frozen=True)
class LabelMap:
    """The labels of one corpus."""

    name: str
    source: str
    fields: dict[str, dict[str, str | None]]  # field name → corpus label, folded → our label; None: left out

    def label(self, field: str, text: object) -> str | None:
        """Our label for a corpus label of a field, None when it has none here. Raises ValueError for a label the map does not name."""
        table = self.fields[field]
        if (found := fold(text)) not in table:
            raise ValueError(
                f"label map {self.name}: {lookup.unknown(field, text, [*table])}; a list that holds our labels already needs no map"
            )
        return table[found]

    def mapped(self, utterance: Utterance, left_out: Counter) -> Utterance:
        """The utterance with our labels. ``left_out`` counts labels that have none here, as ``field label``."""
        changes: dict[str, str | None] = {}
        for field in tasks.label_fields().values():
            raw = utterance.get(field.attribute)
            if field.name in self.fields and raw is not None:
                changes[field.attribute] = self.label(field.name, raw)
                left_out[f"{field.name} {raw}"] += changes[field.attribute] is None
        return utterance.with_values(changes)


def fold(text: object) -> str:
    """A label's spelling without case, ``_``, ``-`` and outer spaces."""
    return " ".join(re.sub(r"[_-]", " ", str(text)).lower().split())


def names() -> list[str]:
    """Names of the maps that come with the toolkit."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, labels: dict[str, list[str]] | None = None) -> LabelMap:
    """A map by its name, or a user's own by its path (``*.yaml``).

    ``labels`` are the model's own sets by field name.

    Raises ValueError for an unknown name, and for a map with an unknown field, a key that is no text or a label we do not have.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"{lookup.unknown('label map', name, names())}; or give the path of your own yaml")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"label map {path}: no yaml: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("source"), str) or len(tree) < 2:
        raise ValueError(f"label map {path} must hold 'source: …' and at least one field with its table of labels")
    known = tasks.label_fields(labels)
    source = tree.pop("source")
    tables = {field: _table(path, field, rows, known) for field, rows in tree.items()}
    return LabelMap(path.stem, source, tables)


def _table(path: Path, field: str, rows: object, known: dict[str, Field]) -> dict[str, str | None]:
    if field not in known:
        raise ValueError(f"label map {path}: {lookup.unknown('label field', field, sorted(known))}")
    if not isinstance(rows, dict) or not rows:
        raise ValueError(f"label map {path}: {field} must hold 'corpus label: our label' lines, got {str(rows)[:60]}")
    table: dict[str, str | None] = {}
    for spelling, label in rows.items():
        if not isinstance(spelling, str) or not isinstance(label, str | None):
            why = "must be texts; yaml reads bare numbers and yes/no as such, so quote them"
            raise ValueError(f"label map {path}: {field} {spelling!r}: {label!r} {why}")
        if label is not None and label not in known[field].labels.names:
            raise ValueError(f"label map {path}: {spelling!r}: {lookup.unknown(f'{field} label', label, list(known[field].labels.names))}")
        if table.setdefault(fold(spelling), label) != label:
            raise ValueError(f"label map {path}: {field} {spelling!r} stands twice with different labels")
    return table
