"""The results of cells, a file each in one folder. Several machines may bring theirs together."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from arms import Cell


def path_of(folder: Path, cell: Cell) -> Path:
    """Return where the result of a cell stands. A cell is finished once it is there."""
    return folder / f"{cell.name}.json"


def read_all(folder: Path) -> list[dict[str, Any]]:
    """Read the results of all finished cells.

    Raises ValueError when they began or ended differently, so that they cannot be compared.
    """
    results = []
    epochs = set()
    for path in sorted(folder.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        result = json.loads(text)
        results.append(result)
        epochs.add(str(result["epochs"]))
    _check_one("epochs", epochs, f"in {folder}")

    # Arms are compared within a seed: its cells begin from one model, those of another seed may
    # begin from another training of it.
    encoders = encoders_by_seed(results)
    for seed, found in encoders.items():
        _check_one("encoder", found, f"of seed {seed} in {folder}")
    return results


def check_beginning(folder: Path, seeds: list[int], encoder: str) -> None:
    """Raise ValueError when finished cells of these seeds began from another encoder."""
    results = read_all(folder)
    encoders = encoders_by_seed(results)
    for seed in seeds:
        found = encoders[seed] | {encoder}
        _check_one("encoder", found, f"of seed {seed} in {folder}")


def encoders_by_seed(results: list[dict[str, Any]]) -> dict[int, set[str]]:
    """Return the hashes of the encoders that the cells of each seed began from."""
    found: dict[int, set[str]] = defaultdict(set)
    for result in results:
        seed = result["cell"]["seed"]
        encoder = result["encoder"]
        found[seed].add(encoder)
    return found


def _check_one(name: str, found: set[str], whose: str) -> None:
    if len(found) < 2:
        return
    listed = ", ".join(sorted(found))
    raise ValueError(
        f"cells {whose} differ in {name}: {listed}; they cannot be compared. "
        "Put those of one run into a folder of their own"
    )
