"""A list per task out of the manifests that the recipe natural has prepared.

    python local/prepare.py --corpora ../natural/corpora --out data

Training lists hold half an hour of audio at most, taken at even distances. Before, it is checked
that train, dev and test share nothing they must not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from arms import XS

from wenet_osum.corpus.split import check_disjoint
from wenet_osum.corpus.task_lists import choose
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.records import Utterance

TRAIN_S = 1800.0  # audio of a training list, s
LIMITS = {"dev": 120, "test": 300}  # utterances a list, taken at even distances
DISJOINT = {  # corpus → what its splits must not share
    "esc50": ["speaker", "recording"],
    "ravdess": ["speaker", "recording"],
    "speechocean762": ["speaker", "recording"],
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True, help="corpora/ of natural")
    parser.add_argument("--out", type=Path, required=True, help="folder for the lists")
    args = parser.parse_args(argv)
    try:
        for corpus, kinds in DISJOINT.items():
            source = args.corpora / corpus / "data"
            write_lists(source, args.out / corpus, kinds)
    except (ValueError, OSError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


def write_lists(source: Path, out: Path, disjoint: list[str]) -> None:
    """Write the lists of one corpus. Raises ValueError when its splits share what they must not."""
    splits = {}
    for split in ("train", "dev", "test"):
        manifest = source / split / "manifest.jsonl"
        splits[split] = list(read_manifest(manifest))

    for line in check_disjoint(splits, disjoint):
        print(f"note: {out.name}: {line}")

    for x in XS.values():
        # Two X may have the same lists.
        if x.corpus != out.name or x.encoder:
            continue
        for split, rows in splits.items():
            chosen = chosen_of(rows, split, x.task)
            path = out / split / f"{x.task}.list"
            count = write_manifest(path, chosen)
            minutes = seconds_of(chosen) / 60
            print(f"{path}: {count} of {len(rows)} utterances, {minutes:.1f} min")


def seconds_of(utterances: list[Utterance]) -> float:
    """Return how much audio utterances have, s."""
    total = 0.0
    for utterance in utterances:
        total += utterance.duration
    return total


def chosen_of(rows: list[Utterance], split: str, task: str) -> list[Utterance]:
    """Choose the utterances of a list."""
    if split != "train":
        return choose(rows, task, LIMITS[split])
    every = choose(rows, task)
    share = TRAIN_S / seconds_of(every)
    count = share * len(every)
    limit = min(len(every), int(count))
    return choose(rows, task, limit)


if __name__ == "__main__":
    sys.exit(main())
