"""The command line of a recipe's ``local/prepare.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def parser(
    doc: str | None, data_dir: str | None = None, strict_counts: str | None = None
) -> argparse.ArgumentParser:
    """Make a parser with ``--out``, described by the first line of ``doc``.

    ``--data_dir`` and ``--strict_counts`` are added where there is a help text for them.
    """
    description = (doc or "").split("\n")[0]
    found = argparse.ArgumentParser(description=description)
    if data_dir:
        found.add_argument("--data_dir", type=Path, required=True, help=data_dir)
    found.add_argument("--out", type=Path, default=Path("data"))
    if strict_counts:
        found.add_argument("--strict_counts", action="store_true", help=strict_counts)
    return found


def run(prepare: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Prepare a corpus; a fault of the user's files or options is one line and exit status 1."""
    try:
        prepare(options)
    except ValueError as fault:
        sys.exit(f"error: {fault}")
