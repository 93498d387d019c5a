"""What must hold of the toy corpus, and the numbers to know about it: tables, and how far the words
alone betray a label.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from plan import Order

from wenet_osum import tasks
from wenet_osum.records import Utterance


def check_disjoint(orders: dict[str, list[Order]]) -> None:
    """Raises ValueError when two splits share a sentence or a voice setting."""
    seen: dict[object, str] = {}
    for split, rows in orders.items():
        for row in rows:
            for what, value in (
                ("sentence", (row.lang, row.txt)),
                ("voice setting", row.voice.setting()),
            ):
                if seen.setdefault(value, split) != split:
                    raise ValueError(
                        f"{what} {value} stands in {seen[value]} and {split}; splits must share "
                        "none: mend grammar.py or voices.py"
                    )


def check_vocabulary(orders: dict[str, list[Order]], least: int) -> None:
    """Raises ValueError when a word occurs fewer than ``least`` times in train, or never in
    test.
    """
    counts = {
        split: Counter((row.lang, word) for row in rows for word in row.words)
        for split, rows in orders.items()
    }
    every = set().union(*counts.values())
    rare = sorted(word for word in every if counts["train"][word] < least)
    absent = sorted(word for word in every if not counts["test"][word])
    if rare or absent:
        raise ValueError(
            f"words fewer than {least} times in train: {rare}; never in test: {absent}; mend the "
            "weights in grammar.py"
        )


def table(utterances: dict[str, list[Utterance]]) -> str:
    """Size, vocabulary and labels of each split, as text."""
    lines = [
        f"{'split':6} {'pool':8} {'utts':>6} {'hours':>6} {'mean s':>7} {'en':>5} {'zh':>5} "
        f"{'words':>6} {'chars':>6}"
    ]
    for split, rows in utterances.items():
        groups = {"all": rows} | {
            pool: [r for r in rows if r.extra["pool"] == pool]
            for pool in dict.fromkeys(r.extra["pool"] for r in rows)
        }
        for pool, group in groups.items():
            seconds = sum(r.duration for r in group)
            langs = Counter(r.lang for r in group)
            sizes = {
                lang: len({w.text for r in group if r.lang == lang for w in r.words})
                for lang in ("en", "zh")
            }
            lines.append(
                f"{split:6} {pool:8} {len(group):6} {seconds / 3600:6.3f} "
                f"{seconds / len(group):7.2f} "
                f"{langs['en']:5} {langs['zh']:5} {sizes['en']:6} {sizes['zh']:6}"
            )
    for split, rows in utterances.items():
        for name in tasks.label_names():
            counts = Counter(r.labels[name] for r in rows if name in r.labels)
            lines.append(
                f"{split:6} {name:8} "
                + " ".join(f"{label}:{n}" for label, n in sorted(counts.items()))
            )
    return "\n".join(lines)


def text_baseline(train: list[Utterance], test: list[Utterance], name: str) -> tuple[float, float]:
    """Accuracy in % of naive Bayes on the words alone, and of the most frequent class, for the
    label ``name``.
    """
    train, test = ([r for r in rows if name in r.labels] for rows in (train, test))
    labels = sorted({r.labels[name] for r in train})
    vocabulary = len({w.text for r in train for w in r.words})
    counts: dict[str, Counter] = defaultdict(Counter)
    for row in train:
        counts[row.labels[name]].update(w.text for w in row.words)
    prior = Counter(r.labels[name] for r in train)
    totals = {label: sum(counts[label].values()) + vocabulary for label in labels}

    def guess(row: Utterance) -> str:
        return max(
            labels,
            key=lambda k: (
                np.log(prior[k])
                + sum(np.log((counts[k][w.text] + 1) / totals[k]) for w in row.words)
            ),
        )

    right = sum(guess(row) == row.labels[name] for row in test)
    majority = max(Counter(r.labels[name] for r in test).values())
    return 100 * right / len(test), 100 * majority / len(test)
