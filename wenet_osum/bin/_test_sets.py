"""The test sets that the flags of ``score`` name: which answers belong to which references."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from wenet_osum import tasks
from wenet_osum.bin._labels import are_texts, label_sets
from wenet_osum.score.prompt_sensitivity import Wording, wordings
from wenet_osum.tasks import Task, label_map

# A task, its list of references, and its answers, as the flags name them.
Row = tuple[str, str, str]
# Label sets by field.
Labels = dict[str, list[str]]


class TestSet(NamedTuple):
    """One task on one list."""

    task: Task
    ref: str
    # Answers; with --prompts those of the scoring prompt.
    hyp: str
    # How the references spell labels; None: as the task does.
    labels: label_map.LabelMap | None = None
    # Every prompt that was decoded; empty without --prompts.
    asked: Sequence[Wording] = ()


def plan(args: argparse.Namespace) -> list[TestSet]:
    """Return the test sets that the flags name.

    Raises ValueError when their numbers do not fit, for unknown tasks and label maps, and for a
    task that is named twice.
    """
    labels = _read_labels(args.labels)
    rows = [_split(text) for text in args.set]
    rows += _from_three_flags(args)
    if not rows:
        raise ValueError(
            "nothing to score; give --ref LIST --hyp PATH --task NAME, or --set TASK=REF,HYP"
        )
    if args.compare and len(args.compare) != len(rows):
        raise ValueError(
            f"--compare needs one path per task: {len(rows)} tasks, {len(args.compare)} paths"
        )
    maps = _maps(args.label_map, len(rows))
    test_sets = []
    for row, name in zip(rows, maps, strict=True):
        test_set = _test_set(row, name, labels)
        test_sets.append(test_set)
    _refuse_twice(test_sets)
    return test_sets


def _refuse_twice(test_sets: list[TestSet]) -> None:
    """Raise ValueError where a task has two test sets: no figure says which of them it is of."""
    first: dict[str, str] = {}
    for test_set in test_sets:
        name = test_set.task.name
        if name in first:
            raise ValueError(
                f"{name} is scored on {first[name]} and on {test_set.ref}; figures of a task stand "
                "under its name, so give each test set a command and an --out of its own"
            )
        first[name] = test_set.ref


def _read_labels(path: str | None) -> Labels | None:
    """Read the label sets of --labels, where it is given. Raises ValueError for anything else."""
    if not path:
        return None
    text = Path(path).read_text(encoding="utf-8")
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--labels {path} is no yaml: {error}") from None
    sets = found.values() if isinstance(found, dict) else [None]
    if not all(map(are_texts, sets)):
        rule = "must read {emotion: [calm, tense]}; put numbers, yes and no in quotes"
        raise ValueError(f"--labels {path} {rule}")
    return found


def _split(text: str) -> Row:
    """Split a value of --set. Raises ValueError for one that is not TASK=REF,HYP."""
    name, _, paths = text.partition("=")
    ref, _, hyp = paths.rpartition(",")
    complete = name and ref and hyp
    if not complete:
        raise ValueError(
            f"--set {text!r} must read TASK=REF,HYP, e.g. ser=data/test/ser.jsonl,exp/decode/ser"
        )
    return name, ref, hyp


def _from_three_flags(args: argparse.Namespace) -> list[Row]:
    """Return what --task, --ref and --hyp name together; one --ref may serve all.

    Raises ValueError when there are not equally many.
    """
    refs = args.ref
    if len(refs) == 1:
        refs = refs * len(args.task)
    if not len(refs) == len(args.hyp) == len(args.task):
        raise ValueError(
            "--ref, --hyp and --task belong together, "
            f"got {len(args.ref)}, {len(args.hyp)} and {len(args.task)}; one --ref may serve all"
        )
    return list(zip(args.task, refs, args.hyp, strict=True))


def _maps(given: list[str], count: int) -> list[str | None]:
    """Return the name of the label map of each of ``count`` test sets.

    Raises ValueError unless none, one or as many are given.
    """
    if len(given) not in (0, 1, count):
        raise ValueError(
            f"--label_map: give one for all, or one per task: {count} tasks, {len(given)} maps"
        )
    if not given:
        return [None] * count
    if len(given) == 1:
        return given * count
    return [*given]


def _test_set(row: Row, map_name: str | None, labels: Labels | None) -> TestSet:
    """Make a test set; unless label sets are given, those beside its answers hold."""
    name, ref, hyp = row
    asked = wordings(hyp)
    if asked:
        hyp = str(asked[0].hyp)
    labels = labels or label_sets(hyp, tasks.parse(name))
    task = tasks.parse(name, labels)
    mapped = label_map.load(map_name, labels) if map_name else None
    return TestSet(task, ref, hyp, mapped, asked)
