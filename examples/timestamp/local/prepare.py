#!/usr/bin/env python3
"""Prepared manifests of a corpus, and alignments → the same manifests with word times; utterances
that get none are left out and counted.

Times come from alignment files (--times, in a format of wenet_osum/corpus/word_times), from
manifests that tools/force_align.py wrote (--aligned), or from the manifests themselves. Where these
held times before, it is said how far the new ones lie from them.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.corpus import command
from wenet_osum.corpus.alignments import Alignments, add_words, read_alignments
from wenet_osum.corpus.match_words import Unmatched, units
from wenet_osum.dataset.drop import Dropped, note, table
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import Hypothesis, Utterance, Word
from wenet_osum.score import score_task

DISJOINT = ["speaker", "recording"]  # what train, dev and the test sets must not share
SHOWN = {
    "aas_ms": "mean shift, ms",
    "within_50ms": "boundaries within 50 ms, %",
    "within_100ms": "boundaries within 100 ms, %",
    "coverage": "words compared, %",
}


def timed(
    utterances: list[Utterance],
    alignments: Alignments | None,
    aligned: dict[str, list[Word]] | None,
    dropped: Dropped,
) -> Iterator[Utterance]:
    """The utterances that get times: from ``alignments`` by key or recording, from ``aligned`` by
    key, or, when both are None, those they have.
    """
    for utterance in utterances:
        own = aligned.get(utterance.key) if aligned is not None else utterance.words
        try:
            if alignments is None and not own:
                raise Unmatched("no word times")
            words, _ = add_words(utterance, alignments or Alignments({utterance.key: own}))
            yield dataclasses.replace(utterance, words=words)
        except Unmatched as fault:
            note(dropped, utterance.key, fault.reason)


def regrouped(words: list[Word], like: list[Word]) -> list[Word]:
    """The words joined as ``like`` has them: an alignment may have 今天 where we have 今 and 天. As
    they are where the two do not say the same.
    """
    sizes = [len(units(word.text)) for word in like]
    if sum(sizes) != len(words):
        return words
    groups = [words[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
    return [
        Word(like[i].text, group[0].start, group[-1].end) for i, group in enumerate(groups) if group
    ]


def agreement(before: list[Utterance], after: list[Utterance]) -> list[str]:
    """How far new times lie from those an utterance had, a line a figure with its 95 % interval;
    none where nothing had times.
    """
    new = {u.key: u for u in after}
    both = [u for u in before if u.words and u.key in new]
    if not both:
        return []
    task = tasks.parse("srwt")
    said = {
        u.key: Hypothesis(
            u.key, task.name, "", words=regrouped(new[u.key].words, u.words), transcript=u.txt
        )
        for u in both
    }
    found = [s for s in score_task(task, both, said, "none") if s.metric in SHOWN]
    return [
        f"  {SHOWN[s.metric]} ({s.subset}): {s.value:.1f} ({s.low:.1f}–{s.high:.1f})" for s in found
    ]


def read_split(
    options: argparse.Namespace,
    name: str,
    alignments: Alignments | None,
    dropped: Dropped,
) -> list[Utterance]:
    """A split with times; says how many utterances have got them, and how the times agree with
    earlier ones.
    """
    before = list(read_manifest(options.source / name / "manifest.jsonl", dropped))
    aligned = None
    if options.aligned:
        aligned = {
            u.key: u.words
            for u in read_manifest(options.aligned / name / "manifest.jsonl", dropped)
            if u.words
        }
    after = list(timed(before, alignments, aligned, dropped))
    print(
        f"{name}: {len(after)} of {len(before)} utterances have word times, "
        f"{sum(len(u.words) for u in after)} words"
    )
    if (alignments is not None or aligned is not None) and (lines := agreement(before, after)):
        print(f"{name}: new times against those of the manifest:", *lines, sep="\n")
    return after


def prepare(options: argparse.Namespace) -> None:
    """Everything, from prepared manifests to lists with times. Raises ValueError for whatever is
    wrong with them.
    """
    names = [
        name
        for name in options.splits.split()
        if (options.source / name / "manifest.jsonl").is_file()
    ]
    if lacking := {"train", "dev"} - {*names}:
        raise ValueError(
            f"{options.source} lacks {', '.join(sorted(lacking))}/manifest.jsonl; give the data/ "
            "folder of a recipe that was prepared"
        )
    dropped = Dropped()
    faults = Counter()
    alignments = read_alignments(options.times, options.format, faults) if options.times else None
    for name in names if alignments else ():
        path = options.source / name / "manifest.jsonl"
        alignments.note_recordings(read_manifest(path, Dropped()))
    splits = {
        name: read_split(
            options,
            name,
            alignments,
            dropped,
        )
        for name in names
    }
    if empty := [name for name, rows in splits.items() if not rows]:
        raise ValueError(
            f"no utterance of {', '.join(empty)} got word times:\n{table(dropped)}\ndo --times and "
            "--format belong to this corpus?"
        )
    write_splits(options.out, splits, DISJOINT, dropped + faults)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        help="folder with train/manifest.jsonl, dev/manifest.jsonl and those of test sets",
    )
    parser.add_argument(
        "--splits",
        default="train dev test",
        help="folders of it; test sets that are not there are passed over",
    )
    parser.add_argument("--times", type=Path, help="alignment file or folder")
    parser.add_argument("--format", default="mfa", help="of --times")
    parser.add_argument(
        "--aligned",
        type=Path,
        help="the same folders and manifests as in --source, with times, as tools/force_align.py "
        "wrote them",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
