"""The command line of a recipe's ``local/prepare.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def parser(doc: str | None, data_dir: str | None = None, strict_counts: str | None = None) -> argparse.ArgumentParser:
    """``--out``, and ``--data_dir`` and ``--strict_counts`` where there is a help text for them; described by the first line of ``doc``."""
    found = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    if data_dir:
        found.add_argument("--data_dir", type=Path, required=True, help=data_dir)
    found.add_argument("--out", type=Path, default=Path("data"))
    if strict_counts:
        found.add_argument("--strict_counts", action="store_true", help=strict_counts)
    return found


def run(prepare: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Prepare; what is wrong with the user's files or options becomes a line and exit status 1."""
    try:
        prepare(options)
    except ValueError as fault:
        sys.exit(f"error: {fault}")
