"""The head of a report: what was run, on which data, where, and how the answers were decoded."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wenet_osum.bin._references import Reference, contents
from wenet_osum.decode.write import SETTINGS

# Settings that differ between tasks by their nature.
OWN = ("task", "list", "keys")


def facts(command: str, lists: Iterable[list[Reference]]) -> dict[str, str]:
    """Return date, command, commit, hash of the lists and machine, by name."""
    hashed = data_hash(map(contents, lists))
    system = f"{platform.system()} {platform.machine()}"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "command": command,
        "commit": commit(),
        "data hash": f"sha256:{hashed}",
        "machine": f"{system}, Python {platform.python_version()}",
    }


def data_hash(contents: Iterable[bytes]) -> str:
    """Return the SHA-256 over the contents of lists, in the given order.

    Two scores with the same hash rest on the same lists.
    """
    digest = hashlib.sha256()
    for content in contents:
        of_list = hashlib.sha256(content).digest()
        digest.update(of_list)
    return digest.hexdigest()


def commit() -> str:
    """Return the toolkit's commit, with ``-dirty`` where files differ from it; empty outside a git
    checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        if head and _git("status", "--porcelain", "--untracked-files=no"):
            return f"{head}-dirty"
        return head
    except OSError:
        # There is no git on this machine.
        return ""


def _git(*words: str) -> str:
    """Return what git prints in the toolkit's folder, empty when it fails.

    Raises OSError where there is no git.
    """
    folder = Path(__file__).parent
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return ""
    return done.stdout.strip()


def decoding(files: Iterable[Path]) -> str:
    """Describe in one line the settings that recognize left beside its answers.

    Those that differ between the tasks come with each of their values. Whether labels were limited
    to their sets is said in words.
    """
    found = []
    for path in files:
        settings = _read_settings(path)
        if settings is not None:
            found.append(_plain(settings))
    if not found:
        return ""

    free = {settings["free"] for settings in found if "free" in settings}
    pieces = [_limits(free)]
    for name in _names(found):
        values = [str(settings.get(name, "not said")) for settings in found]
        shown = " / ".join(dict.fromkeys(values))
        pieces.append(f"{name} {shown}")
    return ", ".join(filter(None, pieces))


def _read_settings(path: Path) -> dict[str, Any] | None:
    """Read the settings beside answers; None where there are none."""
    settings = path.parent / SETTINGS
    try:
        text = settings.read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _names(found: list[dict[str, Any]]) -> list[str]:
    """Return the names of all settings in the order they come, without what ``_limits`` says."""
    names: dict[str, None] = {}
    for settings in found:
        names |= dict.fromkeys(settings)
    names.pop("free", None)
    return list(names)


def _plain(settings: dict[str, Any]) -> dict[str, str | int | float]:
    """Return the settings that go into a line; a table, such as the weights of rescorers, as
    ``name=value``."""
    lines = {}
    for name, value in settings.items():
        if isinstance(value, dict) and all(map(_is_number, value.values())):
            pairs = [f"{key}={number}" for key, number in value.items()]
            value = " ".join(pairs)
        fits = isinstance(value, str) or _is_number(value)
        if fits and value != "" and name not in OWN:
            lines[name] = value
    return lines


def _is_number(value: Any) -> bool:
    """Return whether a value is a number, or True or False."""
    return isinstance(value, (int, float))


def _limits(free: set[bool]) -> str:
    """Say whether labels were limited to their sets, as far as the settings tell."""
    if free == {True}:
        return "labels free (--free)"
    if free == {False}:
        return "labels limited to their sets"
    if len(free) > 1:
        return "labels limited to their sets for some tasks, free for others (--free)"
    return ""
