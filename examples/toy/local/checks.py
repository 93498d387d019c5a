"""What must hold of the toy corpus, and the numbers to know about it.

They are tables, and how far the words alone betray a label.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from plan import Order

from wenet_osum import tasks
from wenet_osum.records import Utterance

HEAD = "split  pool       utts  hours  mean s    en    zh  words  chars"


def check_disjoint(orders: dict[str, list[Order]]) -> None:
    """Raise ValueError when two splits share a sentence or a voice setting."""
    sentences: dict[object, str] = {}
    voices: dict[object, str] = {}

    for split, rows in orders.items():
        for row in rows:
            sentence = (row.lang, row.txt)
            setting = row.voice.setting()
            _claim(sentences, "sentence", sentence, split)
            _claim(voices, "voice setting", setting, split)


def _claim(seen: dict[object, str], what: str, value: object, split: str) -> None:
    """Note the first split of a value. Raises ValueError when it is another one."""
    first = seen.setdefault(value, split)
    if first != split:
        raise ValueError(
            f"{what} {value} stands in {first} and {split}; splits must share "
            "none: mend grammar.py or voices.py"
        )


def check_vocabulary(orders: dict[str, list[Order]], least: int) -> None:
    """Raise ValueError when a word occurs fewer than ``least`` times in train, or never in test."""
    counts = {split: _word_counts(rows) for split, rows in orders.items()}
    every = set().union(*counts.values())
    rare, absent = [], []
    for word in sorted(every):
        if counts["train"][word] < least:
            rare.append(word)
        if counts["test"][word] == 0:
            absent.append(word)
    if rare or absent:
        raise ValueError(
            f"words fewer than {least} times in train: {rare}; never in test: {absent}; mend the "
            "weights in grammar.py"
        )


def _word_counts(rows: list[Order]) -> Counter:
    """Count the words of each language."""
    counts = Counter()
    for row in rows:
        for word in row.words:
            counts[row.lang, word] += 1
    return counts


def table(utterances: dict[str, list[Utterance]]) -> str:
    """Write size, vocabulary and labels of each split."""
    lines = [HEAD]
    for split, rows in utterances.items():
        for pool, group in _pools(rows).items():
            sizes = _sizes(group)
            lines.append(f"{split:6} {pool:8} {sizes}")

    # Below the sizes, the counts of each label.
    for split, rows in utterances.items():
        for name in tasks.label_names():
            counts = _label_counts(rows, name)
            lines.append(f"{split:6} {name:8} {counts}")
    return "\n".join(lines)


def _pools(rows: list[Utterance]) -> dict[str, list[Utterance]]:
    """Return all utterances, and those of each pool."""
    pools = {"all": rows}
    for row in rows:
        pool = row.extra["pool"]
        if pool not in pools:
            pools[pool] = []
        pools[pool].append(row)
    return pools


def _sizes(rows: list[Utterance]) -> str:
    """Write utterances, hours, mean length, utterances and distinct words by language."""
    seconds = sum(row.duration for row in rows)
    hours = seconds / 3600
    mean = seconds / len(rows)
    langs = Counter(row.lang for row in rows)
    words = len(_vocabulary(rows, "en"))
    characters = len(_vocabulary(rows, "zh"))

    # In the order of HEAD.
    cells = [
        f"{len(rows):6}",
        f"{hours:6.3f}",
        f"{mean:7.2f}",
        f"{langs['en']:5}",
        f"{langs['zh']:5}",
        f"{words:6}",
        f"{characters:6}",
    ]
    return " ".join(cells)


def _vocabulary(rows: list[Utterance], lang: str | None = None) -> set[str]:
    """Return the distinct words, of one language or of all."""
    found = set()
    for row in rows:
        if lang in (None, row.lang):
            found |= {word.text for word in row.words}
    return found


def _label_counts(rows: list[Utterance], name: str) -> str:
    """Write the labels of a field with their counts."""
    counts = Counter()
    for row in rows:
        if name in row.labels:
            counts[row.labels[name]] += 1
    parts = []
    for label, count in sorted(counts.items()):
        parts.append(f"{label}:{count}")
    return " ".join(parts)


def text_baseline(train: list[Utterance], test: list[Utterance], name: str) -> tuple[float, float]:
    """Return the accuracy of naive Bayes on the words alone, and of the most frequent class.

    Both are in %, for the label ``name``.
    """
    train = [row for row in train if name in row.labels]
    test = [row for row in test if name in row.labels]
    guesser = NaiveBayes(train, name)
    right = 0
    truth = Counter()
    for row in test:
        label = row.labels[name]
        guess = guesser.guess(row)
        right += guess == label
        truth[label] += 1
    percent = 100 / len(test)
    most_frequent = max(truth.values())
    return percent * right, percent * most_frequent


class NaiveBayes:
    """Guesses a label from the words of a sentence, each taken for itself."""

    def __init__(self, train: list[Utterance], name: str) -> None:
        # How often each label occurs, and each word with it.
        self.prior: Counter = Counter()
        self.counts: dict[str, Counter] = defaultdict(Counter)
        for row in train:
            label = row.labels[name]
            words = [word.text for word in row.words]
            self.prior[label] += 1
            self.counts[label].update(words)
        self.labels = sorted(self.prior)

        # Every word is counted once more than it is seen, so that none is impossible.
        vocabulary = len(_vocabulary(train))
        self.totals = {}
        for label in self.labels:
            self.totals[label] = self.counts[label].total() + vocabulary

    def guess(self, row: Utterance) -> str:
        """Return the likeliest label."""
        scores = {label: self.score(row, label) for label in self.labels}
        return max(scores, key=scores.get)

    def score(self, row: Utterance, label: str) -> float:
        """Return the logarithm of the label's probability, but for a constant."""
        seen = self.counts[label]
        total = self.totals[label]
        logs = 0.0
        for word in row.words:
            share = (seen[word.text] + 1) / total
            logs += np.log(share)
        return np.log(self.prior[label]) + logs
