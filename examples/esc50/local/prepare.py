#!/usr/bin/env python3
"""ESC-50 → manifests of train, dev and test with the vocal event of each clip, by the official
folds.

Reads ``meta/esc50.csv`` and ``audio/``. Labels are those of the map
wenet_osum/tasks/maps/esc50.yaml; clips without one are left out, or become "other".
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.events import named
from wenet_osum.corpus.split import check_disjoint
from wenet_osum.corpus.statistics import summary
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Dropped, note, table
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.files import write_text
from wenet_osum.records import Utterance
from wenet_osum.tasks import label_map
from wenet_osum.tasks.ved import EVENT

DISJOINT = [
    "recording"
]  # what train, dev and test must not share: pieces of one recording lie in one official fold
CLIPS, FOLDS = 2000, 5


def read_clips(data_dir: Path, rest: str, dropped: Dropped) -> tuple[list[Utterance], int]:
    """The clips that have a label, and how many there are in all. Raises ValueError without the
    table of clips.
    """
    table_path = data_dir / "meta/esc50.csv"
    if not table_path.exists():
        raise ValueError(
            f"no {table_path}; run stage -1, or point --data_dir at a copy of the official "
            "repository"
        )
    events, found, total = label_map.load("esc50"), [], 0
    with open(table_path, encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            label = events.label("event", row["category"]) or ("other" if rest == "other" else None)
            path = data_dir / "audio" / row["filename"]
            try:
                seconds = round(read_duration(path), 4)
            except ValueError as fault:
                note(dropped, row["filename"], getattr(fault, "reason", str(fault)))
                continue
            total += 1
            if label is None:
                note(dropped, row["filename"], f"no label for {row['category']}")
                continue
            extra = {
                "fold": int(row["fold"]),
                "category": row["category"],
                "recordings": [f"freesound {row['src_file']}"],
            }
            found.append(
                Utterance(
                    Path(row["filename"]).stem,
                    str(path),
                    "",
                    labels={"event": label},
                    duration=seconds,
                    extra=extra,
                )
            )
    return found, total


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the table to the lists. Raises ValueError for whatever is wrong with it."""
    dropped = Dropped()
    clips, total = read_clips(options.data_dir, options.rest, dropped)
    print(check_count("esc50 clips", total, CLIPS, options.strict_counts))
    if not 1 <= options.fold <= FOLDS:
        raise ValueError(f"--fold {options.fold}: there are folds 1 to {FOLDS}")
    parts = {options.fold: "test", (options.fold - 2) % FOLDS + 1: "dev"}
    splits = {"train": [], "dev": [], "test": []}
    for clip in clips:
        name = parts.get(clip.extra["fold"], "train")
        splits[name].append(clip)
    for line in check_disjoint(splits, DISJOINT):
        print(f"note: {line}")
    for name, rows in splits.items():
        if not rows:
            raise ValueError(
                f"no clip with a label is left for {name}; take another --fold, --rest other, or "
                "download the rest"
            )
        write_manifest(options.out / name / "manifest.jsonl", rows)
        counts = Counter(u.labels["event"] for u in rows)
        print(f"{name}: {', '.join(f'{label} {count}' for label, count in sorted(counts.items()))}")
    print(*summary(splits), sep="\n")
    if dropped:
        print(f"left out:\n{table(dropped)}")
    write_texts(options.out / "text")


def write_texts(folder: Path) -> None:
    """What tokenizer and small LLM are made from, for the clips have no words: each event named,
    and the same as utterances that say its name.
    """
    names = EVENT.labels.names
    write_text(folder / "train.txt", "".join(f"{name}\n" for name in names))
    write_manifest(folder / "written.jsonl", named(names))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(
        __doc__,
        "copy of the official repository, with audio/ and meta/ in it",
        "stop unless the corpus is complete",
    )
    parser.add_argument(
        "--fold",
        type=int,
        default=5,
        help="official fold that is the test set, 1 to 5; the one before it is dev",
    )
    parser.add_argument(
        "--rest",
        choices=("leave_out", "other"),
        default="leave_out",
        help='clips without a label: left out, or the event "other"',
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
