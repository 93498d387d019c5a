"""A list per task out of the manifests that the recipes of the corpora have prepared.

Before, it is checked that train, dev and test share nothing they must not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from arms import RECOGNITION, XS

from wenet_osum.corpus.split import check_disjoint
from wenet_osum.corpus.task_lists import choose
from wenet_osum.dataset.manifest import read_manifest, write_manifest

LIMITS = {"dev": 120, "test": 300}  # utterances a list, taken at even distances
DISJOINT = {  # corpus → what its splits must not share
    "events": ["speaker", "recording"],
    "ravdess": ["speaker", "recording"],
    "speechocean762": ["speaker", "recording"],
    "toy": ["sentence"],
    "fsdd": ["recording"],
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder per corpus")
    args = parser.parse_args(argv)
    try:
        for corpus, kinds in DISJOINT.items():
            folder = args.data / corpus
            write_lists(folder, asked_of(corpus), kinds)
    except (ValueError, OSError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


def asked_of(corpus: str) -> set[str]:
    """Return the tasks that the cells ask of a corpus."""
    asked = {x.task for x in XS.values() if x.corpus == corpus}
    # The shared phase recognizes as well.
    if corpus in RECOGNITION:
        asked.add("asr")
    return asked


def write_lists(folder: Path, asked: set[str], disjoint: list[str]) -> None:
    """Write the lists of one corpus. Raises ValueError when its splits share what they must not."""
    splits = {}
    for split in ("train", "dev", "test"):
        manifest = folder / split / "manifest.jsonl"
        splits[split] = list(read_manifest(manifest))
    for line in check_disjoint(splits, disjoint):
        print(f"note: {folder.name}: {line}")
    for split, rows in splits.items():
        for task in sorted(asked):
            chosen = choose(
                rows,
                task,
                LIMITS.get(split),
            )
            path = folder / split / f"{task}.list"
            count = write_manifest(path, chosen)
            name = path.relative_to(folder.parent)
            print(f"{name}: {count} of {len(rows)} utterances")


if __name__ == "__main__":
    sys.exit(main())
