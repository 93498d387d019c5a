#!/usr/bin/env python3
"""Describe lists on one HTML page: hours, durations and labels of each, and which speakers, sentences and recordings they share.

    python tools/data_report.py --disjoint speaker --out data/report.html data/train data/dev data/test
    python tools/data_report.py --disjoint speaker --out data/report.html train=data/train.jsonl test=data/test.jsonl

A list is a manifest, a folder that holds manifest.jsonl, or a data.list of shards (of which transcripts are not read, so sentences are not
compared). Exit status: 0 done, 1 a fault, or lists share what --disjoint forbids.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.statistics import summary  # noqa: E402
from wenet_osum.dataset.drop import Drop, Dropped, note  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest  # noqa: E402
from wenet_osum.dataset.scan import raw_duration  # noqa: E402
from wenet_osum.dataset.shard import list_paths, load_list  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402
from wenet_osum.report.data_report import report  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disjoint", nargs="*", default=[], help="what no two lists may share: speaker, sentence, recording")
    parser.add_argument("--title", default="Data")
    parser.add_argument("--lang", nargs="+", help="only utterances of these languages")
    parser.add_argument("--out", required=True, help="HTML page to write")
    parser.add_argument("lists", nargs="+", metavar="FOLDER|NAME=LIST")
    args = parser.parse_args(argv)
    splits, left_out = {}, {}
    try:
        for item in args.lists:
            name, path = _named(item)
            left_out[name] = dropped = Dropped()
            rows = _rows(path, dropped)
            splits[name] = [u for u in rows if not args.lang or u.lang in args.lang or note(dropped, u.key, f"language {u.lang}")]
        html = report(splits, args.title, args.disjoint, left_out)
        Path(args.out).write_text(html, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"data_report.py: {error}", file=sys.stderr)
        return 1
    print("\n".join(summary(splits)), f"page: {args.out}", sep="\n")
    return 0


def _named(item: str) -> tuple[str, str]:
    """Return the name and the path of a list; a folder is named after itself."""
    if Path(item).is_dir():
        return Path(item).name, str(Path(item) / "manifest.jsonl")
    name, _, path = item.rpartition("=")
    return name or path, path


def _rows(path: str, dropped: Dropped) -> Iterator[Utterance]:
    if list_paths(path) is not None:
        for index in load_list(path, dropped):
            for i, key in enumerate(index.keys):
                known = {name: str(cells[i]) for name, cells in index.columns.items() if cells[i]}
                bare = Utterance(str(key), f"{index.path}#{key}", duration=float(index.durations[i]))
                yield bare.with_values(known)
        return
    for utterance in read_manifest(path, dropped):
        try:
            yield dataclasses.replace(utterance, duration=raw_duration(utterance, path))
        except Drop as drop:
            note(dropped, utterance.key, drop.reason)


if __name__ == "__main__":
    sys.exit(main())
