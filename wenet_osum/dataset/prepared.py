"""The end of a recipe's preparation: splits are compared, written and told about, with what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.corpus.data_report import summary
from wenet_osum.corpus.split import check_disjoint, counted_columns, label_of
from wenet_osum.dataset.drop import Dropped, table
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.records import Utterance


def write_splits(out: Path, splits: dict[str, list[Utterance]], disjoint: Sequence[str], dropped: Dropped) -> None:
    """``OUT/<split>/manifest.jsonl`` and ``OUT/text/train.txt``; prints counts, hours, labels, shared things that are allowed, and what is left out.

    Raises ValueError, before anything is written, for an empty split and when splits share what ``disjoint`` forbids.
    """
    if dropped:
        print(f"left out:\n{table(dropped)}")
    if empty := [name for name, rows in splits.items() if not rows]:
        raise ValueError(f"no utterance is left for {', '.join(empty)}; the reasons above say what was found and not used")
    for line in check_disjoint(splits, disjoint):
        print(f"note: {line}")
    print(*summary(splits), *labels(splits), sep="\n")
    for name, rows in splits.items():
        write_manifest(out / name / "manifest.jsonl", rows)
    (out / "text").mkdir(parents=True, exist_ok=True)
    (out / "text/train.txt").write_text("".join(f"{line}\n" for u in splits["train"] if (line := text(u))), encoding="utf-8")


def labels(splits: dict[str, list[Utterance]]) -> list[str]:
    """A line a split and label field that is known in it: how often each label stands there."""
    lines = []
    for name, rows in splits.items():
        for column in counted_columns():
            counts = Counter(label for u in rows if (label := label_of(u, column)))
            if counts:
                lines.append(f"{name}: {column}: {', '.join(f'{label} {count}' for label, count in counts.most_common())}")
    return lines


def text(utterance: Utterance) -> str:
    """What tokenizer and small LLM learn of an utterance: its words, a question with its reply as the model is to write it."""
    task = tasks.parse("sttc" if utterance.reply is not None else "asr")
    return task.write(utterance) if task.present(utterance) else ""
