"""The work of tools/compute-acc.py: accuracy of label files, ``key label`` per line.

A missing hypothesis is wrong.
"""

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
    parser = argparse.ArgumentParser(
        prog="compute-acc.py",
        description="Accuracy of label files, 'key label' a line.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "ref",
        help="reference labels; < > around a label, case, _ and - do not matter",
    )
    parser.add_argument(
        "hyp",
        help="answered labels; the last tag of a whole answer (text<label>) is taken",
    )
    parser.add_argument(
        "--task",
        help="ser, sgc, …: read labels by the spellings this task knows",
    )
    parser.add_argument(
        "--v",
        type=level,
        default=1,
        help="0: last line only, 1: wrong utterances and classes too",
    )
    parser.add_argument(
        "--missing",
        choices=["wrong", "skip"],
        default="wrong",
        help="utterances without hypothesis: wrong, or left out",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        ref, odd = read_table(args.ref)
        hyp, also_odd = read_table(args.hyp)
        known = label_set(args.task, list(ref.values()))
        truth = {key: find(known, text, args.ref, key) for key, text in ref.items()}
    except ValueError as error:
        print(f"compute-acc.py: {error}", file=sys.stderr)
        return 1

    skips = args.missing == "skip"
    one_sided = compare_keys(ref, hyp, "skip" if skips else "delete")
    for sentence in [*odd, *also_odd, *one_sided]:
        said = sentence.replace("as deletions", "as wrong")
        print(f"compute-acc.py: {said}", file=sys.stderr)

    if skips:
        truth = {key: right for key, right in truth.items() if key in hyp}
    cells = count_answers(truth, hyp, known, args.v)
    print_table(cells, args.v)
    return 0


def count_answers(
    truth: dict[str, str], hyp: dict[str, str], known: LabelSet | Spellings, verbose: int
) -> Counter:
    """Count the pairs of reference and answer; wrong ones are printed if ``verbose``."""
    cells: Counter = Counter()
    for key, right in truth.items():
        said = hyp.get(key, "")
        answer = known.find(last_tag(said).strip())
        cells[right, answer or NONE] += 1
        if verbose and answer != right:
            print(f"utt: {key}\nlab: {right}\nrec: {answer or said or NONE}\n")
    return cells


class Spellings:
    """The labels that occur in a file, any texts; the first spelling of each is its name."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        for text in texts:
            folded = _folded(text)
            self._names.setdefault(folded, text)
        self.names = tuple(self._names.values())

    def find(self, text: str) -> str | None:
        """Return the name of the label that a text spells; None when there is none."""
        return self._names.get(_folded(text))


def _folded(text: str) -> str:
    """Reduce a label to what counts: no case, no ``_`` and ``-``, no outer spaces.

    A number stays as it is, for -1 is not 1.
    """
    text = " ".join(text.split())
    if NUMBER.fullmatch(text):
        return text
    spaced = re.sub(r"[_-]", " ", text)
    words = spaced.lower().split()
    return " ".join(words) or text


def label_set(task: str | None, labels: list[str]) -> LabelSet | Spellings:
    """Take the labels of a task, or those that occur.

    Raises ValueError when the task has not exactly one label field, and when no label occurs.
    """
    if task is None:
        bare = [last_tag(text).strip() for text in labels]
        found = Spellings(filter(None, bare))
        if not found.names:
            raise ValueError("the reference file holds no label; it must read 'key label' a line")
        return found

    fields = tasks.parse(task).label_fields
    if len(fields) != 1:
        raise ValueError(
            f"task {task!r} has {len(fields)} label fields; name one with a single one, such as ser"
        )
    return fields[0].labels


def last_tag(text: str) -> str:
    """Return the label of an answer: its last tag, or the whole when there is none."""
    text = text.strip()
    if not text.endswith(">") or "<" not in text:
        return text
    begin = text.rindex("<") + 1
    return text[begin:-1]


def find(known: LabelSet | Spellings, text: str, path: str, key: str) -> str:
    """Return the canonical reference label. Raises ValueError when it is unknown."""
    label = known.find(last_tag(text).strip())
    if label is None:
        names = ", ".join(known.names)
        raise ValueError(f"{path}: {key!r} has label {text!r}, known: {names}")
    return label


def print_table(cells: Counter, verbose: int) -> None:
    """Print the counts of the classes and the last line.

    ``cells`` counts pairs of reference and answer.
    """
    counts: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for (truth, answer), times in cells.items():
        counts[truth] += times
        answers[answer] += times

    right = 0
    recalls, scores, lines = [], [], []
    for name in sorted(counts):
        count, answered, own = counts[name], answers[name], cells[name, name]
        right += own
        recall = own / count
        recalls.append(recall)
        scores.append(2 * own / (count + answered))
        lines.append(f"{name} -> {100 * recall:4.2f} % N={count} C={own} answered={answered}")
    if verbose:
        print(RULE + "\n")
        print("\n".join(lines))

    total = counts.total()
    rate = 100 * right / total if total else 0.0
    uar, macro_f1 = _percent(recalls), _percent(scores)
    print(f"Overall -> {rate:4.2f} % N={total} C={right} UAR={uar:4.2f} macroF1={macro_f1:4.2f}")


def _percent(shares: list[float]) -> float:
    """Return the mean of shares in %; 0 without any."""
    if not shares:
        return 0.0
    return 100 * sum(shares) / len(shares)
