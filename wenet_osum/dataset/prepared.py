"""The end of a recipe's preparation: splits are compared, described and written.

What was left out is told with the reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.corpus.split import check_disjoint, counted_columns, label_of
from wenet_osum.corpus.statistics import summary
from wenet_osum.dataset.drop import Dropped, table
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.files import write_text
from wenet_osum.records import Utterance


def write_splits(
    out: Path, splits: dict[str, list[Utterance]], disjoint: Sequence[str], dropped: Dropped
) -> None:
    """Write ``OUT/<split>/manifest.jsonl`` and ``OUT/text/train.txt``.

    Prints counts, hours, labels, shared things that are allowed, and what is left out. Raises
    ValueError, before anything is written, for an empty split and when splits share what
    ``disjoint`` forbids.
    """
    if dropped:
        print(f"left out:\n{table(dropped)}")
    empty = []
    for name, rows in splits.items():
        if not rows:
            empty.append(name)
    if empty:
        names = ", ".join(empty)
        told = "the reasons above say what was found and not used"
        raise ValueError(f"no utterance is left for {names}; {told}")
    for line in check_disjoint(splits, disjoint):
        print(f"note: {line}")
    print(*summary(splits), *labels(splits), sep="\n")

    for name, rows in splits.items():
        write_manifest(out / name / "manifest.jsonl", rows)
    _write_text(out / "text", splits["train"])


def _write_text(folder: Path, utterances: list[Utterance]) -> None:
    """Write the text of the training utterances, a line each, without those that have none."""
    lines = []
    for utterance in utterances:
        line = text(utterance)
        if line:
            lines.append(f"{line}\n")
    write_text(folder / "train.txt", "".join(lines))


def labels(splits: dict[str, list[Utterance]]) -> list[str]:
    """Say how often each label is there: one line per split and label field known in it."""
    lines = []
    for name, rows in splits.items():
        for column in counted_columns():
            known = [label_of(utterance, column) for utterance in rows]
            counts = Counter(label for label in known if label)
            told = []
            for label, count in counts.most_common():
                told.append(f"{label} {count}")
            if told:
                together = ", ".join(told)
                lines.append(f"{name}: {column}: {together}")
    return lines


def text(utterance: Utterance) -> str:
    """Return what tokenizer and small LLM learn of an utterance.

    It is its words, a question with its reply as the model is to write it.
    """
    asked = "asr" if utterance.reply is None else "sttc"
    task = tasks.parse(asked)
    if not task.present(utterance):
        return ""
    return task.write(utterance)
