"""Plain tables, as yaml gives them, to typed dataclasses: every fault is noted under its dotted name."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, Union

import yaml

from wenet_osum import lookup


class ConfigError(ValueError):
    """All faults of a configuration, a line each."""


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set ``a.b=value`` in a table, the value in yaml notation. Raises ConfigError for another form."""
    name, sign, value = override.partition("=")
    if not sign:
        raise ConfigError(f"override {override!r} must read name=value, e.g. optim.lr=1e-4")
    *parents, last = name.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {}) if isinstance(tree.get(parent, {}), dict) else tree.__setitem__(parent, {}) or tree[parent]
    tree[last] = yaml.safe_load(value)


def build(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    """Turn a yaml value into ``kind``, noting faults under the dotted name."""
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _build_union(kind, value, name, faults)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, name, faults)
    if origin is Literal:
        if value not in typing.get_args(kind):
            faults.append(f"{name}: {lookup.unknown('value', value, [str(a) for a in typing.get_args(kind)])}")
        return value
    if origin is list:
        return [build(typing.get_args(kind)[0], v, f"{name}[{i}]", faults) for i, v in enumerate(_expect(list, value, name, faults) or [])]
    if origin is tuple:
        inner = typing.get_args(kind)
        if not isinstance(value, (list, tuple)) or len(value) != len(inner):
            faults.append(f"{name}: expected {len(inner)} values, got {value!r}")
            return value
        return tuple(build(k, v, f"{name}[{i}]", faults) for i, (k, v) in enumerate(zip(inner, value, strict=True)))
    if origin is dict:
        inner = typing.get_args(kind)[1]
        return {str(k): build(inner, v, f"{name}.{k}", faults) for k, v in (_expect(dict, value, name, faults) or {}).items()}
    return _build_scalar(kind, value, name, faults)


def _build_union(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    options = [k for k in typing.get_args(kind) if k is not type(None)]
    if value is None and type(None) in typing.get_args(kind):
        return None
    # a table of yaml is meant for the kind that is one
    fitting = [k for k in options if _is_table(k) == isinstance(value, dict)]
    return build([*fitting, *options][0], value, name, faults)


def _is_table(kind: Any) -> bool:
    return typing.get_origin(kind) is dict or dataclasses.is_dataclass(kind)


def _build_dataclass(kind: type, value: Any, name: str, faults: list[str]) -> Any:
    value = {} if value is None else value
    if not isinstance(value, dict):
        faults.append(f"{name or 'config'}: expected a table of keys, got {value!r}")
        return kind.__new__(kind)
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    faults += [f"{_join(name, key)}: {_unknown_key(_join(name, key), known)}" for key in value if key not in known]
    built = {key: build(hints[key], v, _join(name, key), faults) for key, v in value.items() if key in known}
    needed = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    missing = [n for n in needed if n not in built]
    faults += [f"{_join(name, n)}: is needed and missing" for n in missing]
    return kind(**built, **dict.fromkeys(missing))


def _unknown_key(dotted: str, known: list[str]) -> str:
    if now := lookup.renamed("keys").get(dotted):
        return f"this key is gone; {now}"
    return lookup.unknown("key", dotted.rpartition(".")[2], known)


def _build_scalar(kind: Any, value: Any, name: str, faults: list[str]) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # yaml 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    faults.append(f"{name}: expected {kind.__name__}, got {value!r}")
    return value


def _expect(kind: type, value: Any, name: str, faults: list[str]) -> Any:
    if value is not None and not isinstance(value, kind):
        faults.append(f"{name}: expected a {'list' if kind is list else 'table of keys'}, got {value!r}")
        return None
    return value


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else str(key)
