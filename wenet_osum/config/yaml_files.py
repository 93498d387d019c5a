"""Read configurations from yaml files, which may build on one another, and write them.

A file may begin with ``base: other.yaml``, a path relative to the file itself, or a list of such.
It then says only what is its own: its tables are merged into those of the base, any other value,
lists too, replaces the one of the base. Of several bases the later are merged over the earlier.
Bases may have bases.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wenet_osum.config.rules import broken_rules
from wenet_osum.config.tables import TrainConfig
from wenet_osum.files import write_text
from wenet_osum.typed import ConfigError, apply_override, build

BASE = "base"


@dataclass
class Merged:
    """The tables of a yaml file merged into those of its bases, and where each value comes from."""

    tree: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Path] = field(default_factory=dict)  # dotted name → the last file to set it

    def put(self, own: dict[str, Any], path: Path) -> None:
        """Merge the tables of the file ``path`` over what is there."""
        self._put_table(self.tree, own, "", path)

    def _put_table(self, below: dict, above: dict, prefix: str, path: Path) -> None:
        for key, value in above.items():
            name = f"{prefix}{key}"
            self.origin[name] = path
            if not isinstance(value, dict):
                below[key] = value
                continue
            # Tables merge; a table over anything else is a new one.
            if not isinstance(below.get(key), dict):
                below[key] = {}
            self._put_table(below[key], value, f"{name}.", path)


def load(path: str | Path, cls: type = TrainConfig, overrides: Sequence[str] | None = None) -> Any:
    """Read a yaml file, and the files it builds on, into ``cls``.

    ``overrides`` are ``a.b=value`` with the value in yaml notation. Raises ConfigError that lists
    every unknown key, wrong type and broken rule; what a base is to blame for names the base.
    """
    path = Path(os.path.normpath(path))
    merged = read_merged(path)
    for override in overrides or []:
        apply_override(merged.tree, override)
        # The command line is to blame for it from now on.
        merged.origin.pop(override.partition("=")[0], None)

    built, faults = _build(cls, merged.tree)
    if faults:
        told = [_with_origin(fault, merged.origin, path) for fault in faults]
        raise _error(str(path), told)
    return built


def from_dict(tree: dict[str, Any], cls: type = TrainConfig, where: str = "config") -> Any:
    """Build ``cls`` from plain tables. Raises ConfigError with all faults."""
    built, faults = _build(cls, tree)
    if faults:
        raise _error(where, faults)
    return built


def _build(cls: type, tree: dict[str, Any]) -> tuple[Any, list[str]]:
    """Build ``cls``; returns it with its faults. Rules are for what has the right types."""
    faults: list[str] = []
    built = build(cls, tree, "", faults)
    if not faults:
        faults = broken_rules(built)
    return built, faults


def _error(where: str, faults: list[str]) -> ConfigError:
    lines = [f"{where}: {len(faults)} faults"]
    if len(faults) == 1:
        lines = [f"{where}: 1 fault"]
    for fault in faults:
        lines.append(f"  - {fault}")
    text = "\n".join(lines)
    return ConfigError(text)


def _with_origin(fault: str, origin: dict[str, Path], path: Path) -> str:
    """Name the file that a fault comes from, where it is another than the one that was asked for.

    A fault begins with the dotted name of its value; ``train[2].weight`` lies in a list ``train``.
    """
    value = fault.partition(": ")[0]
    name = value.partition("[")[0]
    source = origin.get(name, path)
    if source == path:
        return fault
    return f"{fault} (in {source})"


def read_merged(path: Path) -> Merged:
    """Read a yaml file and all it builds on, merged.

    Raises ConfigError for a file that is missing or no table, and for a circle.
    """
    merged = Merged()
    for source, tree in lineage(path).items():
        merged.put(tree, source)
    return merged


def lineage(path: Path, above: tuple[Path, ...] = ()) -> dict[Path, dict[str, Any]]:
    """Read a file and its bases, each once, every base before what builds on it.

    ``above`` are the files between the one that was asked for and this one.
    """
    tree = _read_table(path, above)
    found = {}
    for base in _bases(tree.pop(BASE, []), path):
        chain = (*above, path)
        if base in chain:
            circle = " → ".join(str(link) for link in (*chain, base))
            raise ConfigError(f"config {path}: its base leads back to where it began: {circle}")
        # A base that two others share counts once, where it stands first.
        for source, inherited in lineage(base, chain).items():
            found.setdefault(source, inherited)
    found[path] = tree
    return found


def _bases(value: Any, path: Path) -> list[Path]:
    """Return the files that ``base`` of ``path`` names. Raises ConfigError for what is no path."""
    names = [value] if isinstance(value, str) else value
    found = []
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str):
            raise ConfigError(
                f"config {path}: base {value!r} must be a path relative to this file, or a list of "
                "such, the later over the earlier; e.g. base: train_1.yaml"
            )
        # normpath, not resolve: a message shows paths as the user wrote them.
        normal = os.path.normpath(path.parent / name)
        found.append(Path(normal))
    return found


def _refuse_doubles(node: yaml.Node | None) -> None:
    """Raise YAMLError for a key that stands twice in a table: one of its values would be lost."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_doubles(item)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen:
            line = key.start_mark.line + 1
            raise yaml.YAMLError(f"the key {name!r} stands twice in a table, again in line {line}")
        seen.add(name)
        _refuse_doubles(value)


def _read_table(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Read one file. Raises ConfigError when it is missing, no yaml, or no table."""
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_doubles(yaml.compose(text, yaml.SafeLoader))
        tree = yaml.safe_load(text) or {}
    except FileNotFoundError:
        if above:
            raise ConfigError(
                f"config {above[-1]}: its base {path} does not exist; "
                "the path of a base is relative to the file that names it"
            ) from None
        raise ConfigError(f"config {path} does not exist") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not valid yaml: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config {path} must be a table of keys, got {type(tree).__name__}")
    return tree


def save(conf: Any, path: str | Path) -> None:
    """Write the final form of a configuration, defaults and what its bases said included."""
    text = yaml.safe_dump(plain(conf), allow_unicode=True, sort_keys=False)
    write_text(path, text)


def plain(conf: Any) -> dict[str, Any]:
    """Turn a configuration into tables, lists and values, as yaml holds them."""
    return _plain(dataclasses.asdict(conf))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
