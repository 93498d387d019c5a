#!/usr/bin/env python3
"""Describe lists on one HTML page: hours, durations, labels, and what lists share.

    python tools/data_report.py --disjoint speaker --out data/report.html data/train data/dev \\
        data/test
    python tools/data_report.py --disjoint speaker --out data/report.html \\
        train=data/train.jsonl test=data/test.jsonl

A list is a manifest, a folder that holds manifest.jsonl, or a data.list of shards (of which
neither transcripts nor the paths of recordings are known, so only speakers can be compared). Lists
can share speakers, sentences and recordings. Exit status: 0 done, 1 a fault, or lists share what
--disjoint forbids.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.split import check_disjoint  # noqa: E402
from wenet_osum.corpus.statistics import summary  # noqa: E402
from wenet_osum.dataset.drop import Drop, Dropped, note  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest  # noqa: E402
from wenet_osum.dataset.scan import located, raw_duration  # noqa: E402
from wenet_osum.dataset.shard import Index, list_paths, load_list  # noqa: E402
from wenet_osum.files import write_text  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402
from wenet_osum.report.data_report import report  # noqa: E402
from wenet_osum.tasks.lid import language_code  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    splits = {}
    left_out = {}
    try:
        for item in args.lists:
            name, path = _named(item)
            if name in splits:
                raise ValueError(f"two lists are named {name}; give NAME=LIST")
            left_out[name] = Dropped()
            rows = _rows(path, left_out[name])
            splits[name] = _of_languages(rows, args.lang, left_out[name])
        if args.disjoint:
            _check_all(args.lists, args.disjoint)
        html = report(splits, args.title, args.disjoint, left_out)
        write_text(args.out, html)
    except (ValueError, OSError) as error:
        print(f"data_report.py: {error}", file=sys.stderr)
        return 1
    print("\n".join(summary(splits)), f"page: {args.out}", sep="\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument(
        "--disjoint",
        nargs="*",
        default=[],
        help="what no two lists may share: speaker, sentence, recording",
    )
    args.add_argument("--title", default="Data")
    args.add_argument("--lang", nargs="+", help="only utterances of these languages")
    args.add_argument("--out", required=True, help="HTML page to write")
    args.add_argument("lists", nargs="+", metavar="FOLDER|NAME=LIST")
    return args


def _check_all(lists: list[str], disjoint: list[str]) -> None:
    """Raise ValueError where lists share what they must not, rows without audio included: of these
    nothing else is on the page. Likewise for shards, where their indices do not tell."""
    every = {}
    for item in lists:
        name, path = _named(item)
        if list_paths(path) is None:
            rows = read_manifest(path, Dropped())
            every[name] = list(located(rows, path))
        elif set(disjoint) & {"sentence", "recording"}:
            why = "shards can be compared by speaker alone"
            raise ValueError(f"{path}: {why}; give the manifest that they were packed from")
    check_disjoint(every, disjoint)


def _of_languages(
    rows: Iterable[Utterance], languages: list[str] | None, dropped: Dropped
) -> list[Utterance]:
    """Keep the utterances of some languages and count the others; without languages keep all."""
    kept = []
    codes = [language_code(name) for name in languages or ()]
    for row in rows:
        if not languages or row.lang in codes:
            kept.append(row)
        else:
            note(dropped, row.key, f"language {row.lang}")
    return kept


def _named(item: str) -> tuple[str, str]:
    """Return the name and the path of a list; a folder is named after itself."""
    if Path(item).is_dir():
        return Path(item).name, str(Path(item) / "manifest.jsonl")
    name, _, path = item.rpartition("=")
    return name or path, path


def _rows(path: str, dropped: Dropped) -> Iterator[Utterance]:
    """Yield the utterances of a list with their durations; what cannot be read is counted."""
    if list_paths(path) is not None:
        for index in load_list(path, dropped):
            yield from _indexed(index)
        return
    rows = read_manifest(path, dropped)
    for utterance in located(rows, path):
        try:
            yield dataclasses.replace(utterance, duration=raw_duration(utterance, path))
        except Drop as drop:
            note(dropped, utterance.key, drop.reason)


def _indexed(index: Index) -> Iterator[Utterance]:
    """Yield the utterances of a shard as far as its index knows them."""
    for row, key in enumerate(index.keys):
        duration = float(index.durations[row])
        bare = Utterance(str(key), f"{index.path}#{key}", duration=duration)
        known = {}
        for name, cells in index.columns.items():
            if cells[row]:
                known[name] = str(cells[row])
        yield bare.with_values(known)


if __name__ == "__main__":
    sys.exit(main())
