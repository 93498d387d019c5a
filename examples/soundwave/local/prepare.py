#!/usr/bin/env python3
"""Take over the corpora that another recipe has prepared: ``OUT/NAME`` is a link to each.

A corpus is a folder with ``data/SPLIT/manifest.jsonl`` in ``corpora`` of that recipe's work folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from wenet_osum.corpus import command

SPLITS = ("train", "dev", "test")


def splits_of(folder: Path) -> list[str]:
    """Return the splits that a corpus has."""
    found = []
    for split in SPLITS:
        manifest = folder / "data" / split / "manifest.jsonl"
        if manifest.is_file():
            found.append(split)
    return found


def link(folder: Path, place: Path) -> None:
    """Make ``place`` a link to a folder; an older link is replaced, anything else left alone.

    Raises ValueError where something else has that name.
    """
    if place.is_symlink():
        place.unlink()
    if place.exists():
        raise ValueError(f"{place} is there and no link; move it away, or give another --out")
    place.symlink_to(folder.resolve(), target_is_directory=True)


def prepare(options: argparse.Namespace) -> None:
    """Link all corpora and say what each holds. Raises ValueError where there is none."""
    root = options.data_dir / "corpora"
    folders = sorted(path for path in root.glob("*") if splits_of(path))
    if not folders:
        raise ValueError(
            f"no prepared corpus in {root}: run 'bash run.sh --recipe natural --stop_stage 1' "
            "first, and give --corpora_dir its work folder"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        place = options.out / folder.name
        link(folder, place)
        held = ", ".join(splits_of(folder))
        print(f"{folder.name}: {held}")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return command.parser(__doc__, "work folder of the recipe").parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
