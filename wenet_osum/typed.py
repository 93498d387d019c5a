"""Turn plain tables, as yaml gives them, into typed dataclasses.

Every fault is noted under the dotted name of its value.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, Union

import yaml

from wenet_osum import lookup


class ConfigError(ValueError):
    """All faults of a configuration, one per line."""


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set ``a.b=value`` in a table, the value in yaml notation.

    Raises ConfigError for an override of another form, and for a value that is no yaml.
    """
    name, sign, value = override.partition("=")
    if not sign:
        raise ConfigError(f"override {override!r} must read name=value, e.g. optim.lr=1e-4")
    *parents, last = name.split(".")
    for parent in parents:
        # A value that stands where a table is wanted is replaced by one.
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(
            f"override {override!r}: the value is no yaml; in a shell, a list with blanks needs "
            "quotes around it"
        ) from None


def build(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    """Turn a yaml value into ``kind``, a type as it stands in a hint.

    ``name`` is the dotted name of the value. What does not fit is added to ``faults`` under it, and
    the value is returned as it is.
    """
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _build_union(kind, value, name, faults)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, name, faults)
    if origin is Literal:
        return _build_literal(kind, value, name, faults)
    if origin is list:
        return _build_list(kind, value, name, faults)
    if origin is tuple:
        return _build_tuple(kind, value, name, faults)
    if origin is dict:
        return _build_dict(kind, value, name, faults)
    return _build_scalar(kind, value, name, faults)


def _build_union(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    """Build the option of a union that the value is meant for."""
    none = type(None)
    options = list(typing.get_args(kind))
    if none in options:
        if value is None:
            return None
        options.remove(none)

    # A table of yaml is meant for the option that is one, any other value for one that is not.
    for option in options:
        if _is_table(option) == isinstance(value, dict):
            return build(option, value, name, faults)
    return build(options[0], value, name, faults)


def _is_table(kind: Any) -> bool:
    return typing.get_origin(kind) is dict or dataclasses.is_dataclass(kind)


def _build_literal(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    allowed = typing.get_args(kind)
    if value not in allowed:
        words = [str(word) for word in allowed]
        fault = lookup.unknown("value", value, words)
        faults.append(f"{name}: {fault}")
    return value


def _build_list(kind: Any, value: Any, name: str, faults: list[str]) -> list:
    [inner] = typing.get_args(kind)
    if not _is_a(list, value, name, faults):
        return []
    built = []
    for index, part in enumerate(value):
        part_name = f"{name}[{index}]"
        built.append(build(inner, part, part_name, faults))
    return built


def _build_tuple(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    kinds = typing.get_args(kind)
    if not isinstance(value, (list, tuple)) or len(value) != len(kinds):
        faults.append(f"{name}: expected {len(kinds)} values, got {value!r}")
        return value

    built = []
    for index, (inner, part) in enumerate(zip(kinds, value, strict=True)):
        part_name = f"{name}[{index}]"
        built.append(build(inner, part, part_name, faults))
    return tuple(built)


def _build_dict(kind: Any, value: Any, name: str, faults: list[str]) -> dict:
    _, inner = typing.get_args(kind)
    if not _is_a(dict, value, name, faults):
        return {}
    built = {}
    for key, part in value.items():
        part_name = f"{name}.{key}"
        built[str(key)] = build(inner, part, part_name, faults)
    return built


def _build_dataclass(kind: type, value: Any, name: str, faults: list[str]) -> Any:
    table = {} if value is None else value
    if not isinstance(table, dict):
        faults.append(f"{name or 'config'}: expected a table of keys, got {table!r}")
        return kind.__new__(kind)
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]

    # Unknown keys come first: a misspelled one explains the missing one that follows.
    for key in table:
        if key not in known:
            dotted = _join(name, key)
            faults.append(f"{dotted}: {_unknown_key(dotted, known)}")

    built = {}
    for key, part in table.items():
        if key in known:
            built[key] = build(hints[key], part, _join(name, key), faults)

    for field in dataclasses.fields(kind):
        if field.name not in built and _is_needed(field):
            faults.append(f"{_join(name, field.name)}: is needed and missing")
            built[field.name] = None
    return kind(**built)


def _is_needed(field: dataclasses.Field) -> bool:
    """Tell whether a field has no default."""
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _unknown_key(dotted: str, known: list[str]) -> str:
    now = lookup.renamed("keys").get(dotted)
    if now:
        return f"this key is gone; {now}"
    key = dotted.rpartition(".")[2]
    return lookup.unknown("key", key, known)


def _build_scalar(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    if kind is Any:
        return value

    # A bool is an int to Python, but nobody means it as a number.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and is_number:
        return float(value)
    if kind is int and isinstance(value, int) and is_number:
        return value

    # yaml 1.1 reads 1e-4 as text.
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass

    if kind is not int and isinstance(value, kind):
        return value
    faults.append(f"{name}: expected {kind.__name__}, got {value!r}")
    return value


def _is_a(kind: type, value: Any, name: str, faults: list[str]) -> bool:
    """Tell whether a value is a list or table; any other but None is a fault."""
    if isinstance(value, kind):
        return True
    if value is not None:
        form = "list" if kind is list else "table of keys"
        faults.append(f"{name}: expected a {form}, got {value!r}")
    return False


def _join(name: str, key: str) -> str:
    if not name:
        return str(key)
    return f"{name}.{key}"
