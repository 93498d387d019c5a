"""The work of tools/compute-acc.py: accuracy of label files, ``key label`` a line. A missing hypothesis is wrong."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable

from wenet_osum import tasks
from wenet_osum.score.compute_wer import RULE, compare_keys, level
from wenet_osum.score.wenet_text import read_table
from wenet_osum.tasks import LabelSet

NONE = "(none)"
NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="compute-acc.py", description="Accuracy of label files, 'key label' a line.", allow_abbrev=False)
    parser.add_argument("ref", help="reference labels; < > around a label, case, _ and - do not matter")
    parser.add_argument("hyp", help="answered labels; the last tag of a whole answer (text<label>) is taken")
    parser.add_argument("--task", help="ser, sgc, …: read labels by the spellings this task knows")
    parser.add_argument("--v", type=level, default=1, help="0: last line only, 1: wrong utterances and classes too")
    parser.add_argument("--missing", choices=["wrong", "skip"], default="wrong", help="utterances without hypothesis: wrong, or left out")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        (ref, odd), (hyp, also_odd) = read_table(args.ref), read_table(args.hyp)
        known = label_set(args.task, [*ref.values()])
        truth = {key: find(known, text, args.ref, key) for key, text in ref.items()}
    except ValueError as error:
        print(f"compute-acc.py: {error}", file=sys.stderr)
        return 1
    for sentence in [*odd, *also_odd, *compare_keys(ref, hyp, "skip" if args.missing == "skip" else "delete")]:
        print(f"compute-acc.py: {sentence.replace('as deletions', 'as wrong')}", file=sys.stderr)
    cells: Counter = Counter()
    for key, right in truth.items():
        if key not in hyp and args.missing == "skip":
            continue
        answer = known.find(last_tag(hyp.get(key, "")).strip()) or NONE
        cells[right, answer] += 1
        if args.v and answer != right:
            print(f"utt: {key}\nlab: {right}\nrec: {answer if answer != NONE else hyp.get(key, '') or NONE}\n")
    print_table(cells, args.v)
    return 0


class Spellings:
    """The labels that occur in a file, any texts; the first spelling of each is its name."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        for text in texts:
            self._names.setdefault(_folded(text), text)
        self.names = tuple(self._names.values())

    def find(self, text: str) -> str | None:
        """The name of the label that a text spells; None when there is none."""
        return self._names.get(_folded(text))


def _folded(text: str) -> str:
    """A label without case, ``_``, ``-`` and outer spaces; a number as it is, for -1 is not 1."""
    text = " ".join(text.split())
    if NUMBER.fullmatch(text):
        return text
    return " ".join(re.sub(r"[_-]", " ", text).lower().split()) or text


def label_set(task: str | None, labels: list[str]) -> LabelSet | Spellings:
    """Take the labels of a task, or those that occur.

    Raises ValueError when the task has not exactly one label field, and when no label occurs.
    """
    if task is None:
        found = Spellings(filter(None, (last_tag(text).strip() for text in labels)))
        if not found.names:
            raise ValueError("the reference file holds no label; it must read 'key label' a line")
        return found
    fields = tasks.parse(task).label_fields
    if len(fields) != 1:
        raise ValueError(f"task {task!r} has {len(fields)} label fields; name one with a single one, such as ser")
    return fields[0].labels


def last_tag(text: str) -> str:
    """The label of an answer: its last tag, or the whole when there is none."""
    text = text.strip()
    return text[text.rindex("<") + 1 : -1] if text.endswith(">") and "<" in text else text


def find(known: LabelSet | Spellings, text: str, path: str, key: str) -> str:
    """The canonical reference label. Raises ValueError when it is unknown."""
    label = known.find(last_tag(text).strip())
    if label is None:
        raise ValueError(f"{path}: {key!r} has label {text!r}, known: {', '.join(known.names)}")
    return label


def print_table(cells: Counter, verbose: int) -> None:
    """Counts by class and the last line."""
    total, right = sum(cells.values()), sum(n for (a, b), n in cells.items() if a == b)
    classes = sorted({a for a, _ in cells})
    recalls, scores = [], []
    lines = []
    for name in classes:
        count = sum(n for (a, _), n in cells.items() if a == name)
        answered = sum(n for (_, b), n in cells.items() if b == name)
        recalls.append(cells[name, name] / count)
        scores.append(2 * cells[name, name] / (count + answered))
        lines.append(f"{name} -> {100 * recalls[-1]:4.2f} % N={count} C={cells[name, name]} answered={answered}")
    if verbose:
        print(RULE + "\n")
        print("\n".join(lines))
    percent = [100 * sum(x) / len(x) if x else 0.0 for x in (recalls, scores)]
    rate = 100 * right / total if total else 0.0
    print(f"Overall -> {rate:4.2f} % N={total} C={right} UAR={percent[0]:4.2f} macroF1={percent[1]:4.2f}")
