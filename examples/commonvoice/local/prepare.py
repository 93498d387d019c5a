#!/usr/bin/env python3
"""Common Voice → manifests of train, dev and test with transcript, gender and age group, of one or
several languages.

Reads the official layout ``<lang>/{train,dev,test,validated}.tsv`` and ``<lang>/clips/*.mp3``. The
official splits are kept. Labels are those of the map wenet_osum/tasks/maps/commonvoice.yaml, which
knows the old spellings and the new.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.split import values
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.manifest import tidy_label
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import Utterance
from wenet_osum.tasks import label_map

DISJOINT = ["speaker", "recording"]  # what train, dev and test must not share
LABELS = {"gender", "age"}  # columns of its tables
COLUMNS = {"client_id", "path", "sentence", *LABELS}


def lang_dir(data_dir: Path, lang: str) -> Path:
    """The folder of a language: in ``data_dir``, or one level down in cv-corpus-*/. Raises
    ValueError when there is none, or more than one.
    """
    places = [data_dir / lang, *sorted(data_dir.glob(f"cv-corpus-*/{lang}"))]
    found = [place for place in places if (place / "test.tsv").exists()]
    if not found:
        raise ValueError(
            f"no {data_dir}/{lang}/test.tsv; unpack the official archive of {lang} there, or point "
            "--data_dir at cv-corpus-*"
        )
    if len(found) > 1:
        raise ValueError(
            f"{lang} is in {' and in '.join(map(str, found))}; point --data_dir at one release"
        )
    return found[0]


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a tsv file, whose sentences may hold quotation marks. Raises ValueError for a
    missing file or column.
    """
    if not path.exists():
        raise ValueError(f"no {path}; the official archive has it")
    with open(path, encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if missing := COLUMNS - set(rows.fieldnames or ()):
            raise ValueError(
                f"{path} lacks the columns {', '.join(sorted(missing))}; it has "
                f"{', '.join(rows.fieldnames or ())}"
            )
        yield from rows


def read_durations(folder: Path) -> dict[str, float]:
    """Clip → s, from the table newer releases bring; empty without it."""
    path = folder / "clip_durations.tsv"
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows, None)
        return {row[0]: float(row[1]) / 1000 for row in rows if len(row) == 2}


class Reader:
    """Reads the tables of one language."""

    def __init__(self, folder: Path, lang: str, dropped: Dropped, no_label: Counter) -> None:
        self.folder, self.lang, self.dropped, self.no_label = folder, lang, dropped, no_label
        self.labels = label_map.load("commonvoice")
        self.durations = read_durations(folder)

    def rows(self, table: str) -> tuple[list[Utterance], int]:
        """The usable utterances of a table, and how many rows it has. Raises ValueError for a label
        that the map does not know.
        """
        found = []
        total = 0
        for row in read_table(self.folder / f"{table}.tsv"):
            total += 1
            if utterance := self._utterance(row):
                found.append(self.labels.mapped(utterance, self.no_label))
        return found, total

    def _utterance(self, row: dict[str, str]) -> Utterance | None:
        name = (
            row["path"] if row["path"].endswith(".mp3") else f"{row['path']}.mp3"
        )  # the first releases leave it out
        path = self.folder / "clips" / name
        sentence = (row["sentence"] or "").strip()
        try:
            if not sentence:
                raise ValueError("no sentence")
            seconds = self._seconds(path, name)
        except ValueError as fault:
            note(self.dropped, name, getattr(fault, "reason", str(fault)))
            return None
        labels = {column: row[column] for column in LABELS if row[column]}
        extra = {"corpus": "commonvoice", "accent": row.get("accents") or row.get("accent")}
        extra = {k: v for k, v in extra.items() if v}
        lang = tidy_label("lang", self.lang.split("-")[0])
        return Utterance(
            Path(name).stem,
            str(path),
            sentence,
            lang=lang,
            speaker=row["client_id"],
            labels=labels,
            duration=seconds,
            extra=extra,
        )

    def _seconds(self, path: Path, name: str) -> float:
        """From the official table where the file is there and not empty, else from the file
        itself.
        """
        if self.durations.get(name) and path.exists() and path.stat().st_size:
            return self.durations[name]
        return round(read_duration(path), 4)


def read_language(reader: Reader, train: str, strict: bool) -> dict[str, list[Utterance]]:
    """The three splits of a language. With ``train`` validated, its clips of dev and test speakers
    are left out and counted.
    """
    splits = {}
    for name, table in (("dev", "dev"), ("test", "test"), ("train", train)):
        splits[name], rows = reader.rows(table)
        print(
            check_count(f"commonvoice {reader.lang} {table} clips", len(splits[name]), rows, strict)
        )
    return {name: splits[name] for name in ("train", "dev", "test")}


def keep_apart(splits: dict[str, list[Utterance]], dropped: Dropped) -> dict[str, list[Utterance]]:
    """Leaves out of train who speaks in dev or test, and out of dev who speaks in test: people give
    several languages their voice.
    """
    taken: set[str] = set()
    apart = {}
    for name in ("test", "dev", "train"):
        apart[name] = [
            u
            for u in splits[name]
            if u.speaker not in taken
            or note(dropped, u.key, f"{name}: speaker is in dev or test as well")
        ]
        taken |= values(splits[name], "speaker")
    return {name: apart[name] for name in splits}


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the tables to the lists. Raises ValueError for whatever is wrong with
    them.
    """
    dropped = Dropped()
    no_label = Counter()
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for lang in options.langs.split():
        reader = Reader(lang_dir(options.data_dir, lang), lang, dropped, no_label)
        for name, rows in read_language(reader, options.train, options.strict_counts).items():
            splits[name] += rows
    splits = keep_apart(splits, dropped)
    print(
        *(
            f"no class here for {label}: {count} utterances keep their transcript"
            for label, count in no_label.items()
            if count
        ),
        sep="\n",
    )
    for name, rows in splits.items():
        genders = sum(tasks.parse("sgc").present(row) for row in rows)
        ages = sum(tasks.parse("sap").present(row) for row in rows)
        print(f"{name}: {genders} of {len(rows)} utterances tell the gender, {ages} the age group")
    write_splits(
        options.out,
        splits,
        DISJOINT,
        dropped,
    )


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(
        __doc__,
        "an unpacked release, with a folder a language in it",
        "stop unless every row of the tables has its clip",
    )
    parser.add_argument(
        "--langs",
        default="en",
        help='languages as the release names their folders, e.g. "en zh-CN"',
    )
    parser.add_argument(
        "--train",
        choices=("train", "validated"),
        default="train",
        help="table that is trained on; validated is larger",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
