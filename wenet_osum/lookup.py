"""Find plug-ins by name: a name in a yaml file is the name of a Python file.

There is no second list of plug-ins to keep.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

RENAMED = Path(__file__).parent / "renamed.yaml"


def names(package: str) -> list[str]:
    """List the plug-ins of a package such as ``wenet_osum.models.adapter``.

    They are its public modules, sorted by name.
    """
    module = importlib.import_module(package)
    found = []
    for entry in pkgutil.iter_modules(module.__path__):
        if not entry.name.startswith("_"):
            found.append(entry.name)
    return sorted(found)


def load(package: str, name: str) -> ModuleType:
    """Import plug-in ``name`` of ``package``.

    Raises ValueError with the known names and a suggestion when there is none.
    """
    known = names(package)
    if name in known:
        return importlib.import_module(f"{package}.{name}")

    kind = package.rpartition(".")[2]
    gone = renamed("plugins")
    now = gone.get(f"{kind} {name}")
    if now:
        raise ValueError(f"{kind} {name!r} has another name now: {now}")
    raise ValueError(unknown(kind, name, known))


def load_class(package: str, name: str, kind: str, brought_by: str) -> Any:
    """Return the class ``kind`` of plug-in ``name``.

    Raises ValueError with the known names; ``brought_by`` says how those of other packages are
    made known.
    """
    try:
        module = load(package, name)
    except ValueError as error:
        advice = f"those of other packages are known by {brought_by}"
        raise ValueError(f"{error}; {advice}") from None
    return getattr(module, kind)


def unknown(kind: str, name: object, known: list[str]) -> str:
    """Write the sentence that every unknown name is answered with."""
    text = str(name)
    close = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    hint = ";"
    if close:
        hint = f", did you mean {close[0]!r}?"
    all_names = ", ".join(known)
    return f"unknown {kind} {text!r}{hint} known: {all_names}"


def add_folder(package: str, folder: str | os.PathLike[str]) -> None:
    """Let plug-ins of ``package`` be found in a user's own folder too."""
    module = importlib.import_module(package)
    path = module.__path__
    folder = os.fspath(folder)
    if folder not in path:
        path.append(folder)
        importlib.invalidate_caches()


def add_plugins(packages: Iterable[str]) -> None:
    """Import ``packages``, each of which calls ``add_folder`` for its plug-ins on import.

    Raises ValueError for a package that is not there.
    """
    for name in packages:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            advice = "name a package that can be imported, e.g. one in a folder of PYTHONPATH"
            raise ValueError(f"plugins {name!r}: {error}; {advice}") from None


@cache
def renamed(kind: str) -> dict[str, str]:
    """Read the names that are gone, with what to write now.

    ``kind`` is ``keys`` (of yaml files), ``options`` (of commands) or ``plugins``.
    """
    text = RENAMED.read_text(encoding="utf-8")
    return yaml.safe_load(text)[kind]


class RenamedOption(argparse.Action):
    """An option of former versions, which is answered with what to write now."""

    def __init__(self, option_strings: list[str], dest: str, const: str, **kwargs: Any) -> None:
        # With or without a value, it is answered and leaves nothing in the options.
        kwargs["nargs"] = "?"
        kwargs["default"] = argparse.SUPPRESS
        super().__init__(option_strings, dest, const=const, **kwargs)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        answer = f"this option is gone; {self.const}"
        raise argparse.ArgumentError(self, answer)
