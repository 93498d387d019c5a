"""Label maps: how a public corpus spells a field's labels, and what they are here.

A map is a yaml file of ``maps/``:

    source: where the corpus's labels are defined
    emotion:
      angry: anger
      bored: null        # no label of ours: left out and counted

Maps lie beside the label sets they lead to, where recipes, which write manifests, and the scorer
can both read them. A label that a map does not name stops the run with the known ones: a corpus
that came in another version must not lose a class in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from wenet_osum import lookup, tasks
from wenet_osum.records import Utterance
from wenet_osum.tasks.base import Field

FOLDER = Path(__file__).parent / "maps"
# Characters of a wrong value that a message shows.
SHOWN = 60


@dataclass(frozen=True)
class LabelMap:
    """The labels of one corpus."""

    name: str
    source: str
    # field name → folded corpus label → our label; None for a label that is left out
    fields: dict[str, dict[str, str | None]]

    def label(self, field: str, text: object) -> str | None:
        """Return our label for a corpus label of a field, None when it has none here.

        Raises ValueError for a label the map does not name.
        """
        table = self.fields[field]
        folded = fold(text)
        if folded not in table:
            unknown = lookup.unknown(field, text, [*table])
            raise ValueError(
                f"label map {self.name}: {unknown}; "
                "a list that holds our labels already needs no map"
            )
        return table[folded]

    def mapped(self, utterance: Utterance, left_out: Counter) -> Utterance:
        """Return the utterance with our labels.

        ``left_out`` counts labels that have none here, under the field and the corpus label.
        Raises ValueError as ``label`` does.
        """
        changes: dict[str, str | None] = {}
        for field in tasks.label_fields().values():
            # A map need not have every field.
            if field.name not in self.fields:
                continue
            raw = utterance.get(field.attribute)
            if raw is None:
                continue

            label = self.label(field.name, raw)
            changes[field.attribute] = label
            left_out[f"{field.name} {raw}"] += label is None
        return utterance.with_values(changes)


def fold(text: object) -> str:
    """Return a label's spelling without case, ``_``, ``-`` and outer spaces."""
    text = str(text)
    spaced = re.sub(r"[_-]", " ", text)
    words = spaced.lower().split()
    return " ".join(words)


def names() -> list[str]:
    """Return the names of the maps that come with the toolkit."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, labels: dict[str, list[str]] | None = None) -> LabelMap:
    """Read a map by its name, or a user's own by its path (``*.yaml``).

    ``labels`` are the model's own sets by field name.

    Raises ValueError for an unknown name, and for a map with an unknown field, a key that is no
    text or a label we do not have.
    """
    path = FOLDER / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
    if not path.is_file():
        unknown = lookup.unknown("label map", name, names())
        raise ValueError(f"{unknown}; or give the path of your own yaml")

    # What stands beside the source are fields.
    tree = _read(path)
    source = tree.pop("source")
    known = tasks.label_fields(labels)
    tables = {}
    for field, rows in tree.items():
        tables[field] = _table(path, field, rows, known)
    return LabelMap(path.stem, source, tables)


def _read(path: Path) -> dict:
    """Read the yaml of a map. Raises ValueError when it has no source or no field."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"label map {path}: no yaml: {why}") from None

    source = tree.get("source") if isinstance(tree, dict) else None
    if not isinstance(source, str) or len(tree) < 2:
        raise ValueError(
            f"label map {path} must hold 'source: …' and at least one field "
            "with its table of labels"
        )
    return tree


def _table(path: Path, field: str, rows: object, known: dict[str, Field]) -> dict[str, str | None]:
    """Check the table of one field and fold its spellings."""
    if field not in known:
        unknown = lookup.unknown("label field", field, sorted(known))
        raise ValueError(f"label map {path}: {unknown}")
    if not isinstance(rows, dict) or not rows:
        got = str(rows)[:SHOWN]
        raise ValueError(
            f"label map {path}: {field} must hold 'corpus label: our label' lines, got {got}"
        )

    table: dict[str, str | None] = {}
    for spelling, label in rows.items():
        _check_row(path, known[field], spelling, label)
        first = table.setdefault(fold(spelling), label)
        if first != label:
            raise ValueError(
                f"label map {path}: {field} {spelling!r} stands twice with different labels"
            )
    return table


def _check_row(path: Path, field: Field, spelling: object, label: object) -> None:
    """Raise ValueError for a line that does not lead from a text to a label we have, or to null."""
    if not isinstance(spelling, str) or not isinstance(label, str | None):
        raise ValueError(
            f"label map {path}: {field.name} {spelling!r}: {label!r} must be texts; "
            "yaml reads bare numbers and yes/no as such, so quote them"
        )
    if label is None:
        return
    known = list(field.labels.names)
    if label not in known:
        unknown = lookup.unknown(f"{field.name} label", label, known)
        raise ValueError(f"label map {path}: {spelling!r}: {unknown}")
