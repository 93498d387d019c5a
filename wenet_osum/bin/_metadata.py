"""What a report says of its own making: what was run, on what, where, and how the answers were decoded."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wenet_osum.bin._references import Reference, contents
from wenet_osum.decode.write import SETTINGS
from wenet_osum.score import report

OWN = ("task", "list", "keys")  # settings that every task has its own of


def facts(command: str, lists: Iterable[list[Reference]]) -> dict[str, str]:
    """Date, command, commit, hash of the lists, machine."""
    meta = {"date": time.strftime("%Y-%m-%d %H:%M"), "command": command, "commit": commit()}
    meta["data hash"] = f"sha256:{report.data_hash(map(contents, lists))}"
    return meta | {"machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"}


def commit() -> str:
    """The toolkit's commit, marked when files differ from it; empty outside a git checkout."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + ("-dirty" if head and git("status", "--porcelain", "--untracked-files=no") else "")
    except OSError:  # no git on this machine
        return ""


def decoding(files: Iterable[Path]) -> str:
    """The settings recognize left beside its answers; those that differ between the tasks with each of their values.

    Whether labels were limited to their sets is said in words.
    """
    found = []
    for path in files:
        try:
            found.append(json.loads((path.parent / SETTINGS).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    found = [_plain(settings) for settings in found if isinstance(settings, dict)]
    if not found:
        return ""
    told = [_limits({f["free"] for f in found if "free" in f})]
    for name in dict.fromkeys(name for f in found for name in f if name != "free"):
        values = dict.fromkeys(str(f.get(name, "not said")) for f in found)
        told.append(f"{name} {' / '.join(values)}")
    return ", ".join(filter(None, told))


def _plain(settings: dict[str, Any]) -> dict[str, str | int | float]:
    """Return the settings that go into a line; a table, such as the weights of rescorers, as ``name=value``."""
    lines = {}
    for name, value in settings.items():
        if isinstance(value, dict) and all(isinstance(number, (int, float)) for number in value.values()):
            value = " ".join(f"{key}={number}" for key, number in value.items())
        if name not in OWN and isinstance(value, (str, int, float)) and value != "":
            lines[name] = value
    return lines


def _limits(free: set[bool]) -> str:
    """Constrained or not, as far as the settings tell."""
    if len(free) > 1:
        return "labels limited to their sets for some tasks, free for others (--free)"
    return {frozenset({True}): "labels free (--free)", frozenset({False}): "labels limited to their sets"}.get(frozenset(free), "")
