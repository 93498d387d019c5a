"""Accuracies of a label field without listening.

One baseline always answers the commonest class, the other is a classifier that only sees the words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from wenet_osum.records import Utterance
from wenet_osum.score.normalize import answer_tokens
from wenet_osum.tasks import Field


def majority(truth: Sequence[str]) -> dict[str, Any]:
    """Return the commonest class of the references and the accuracy (%) of always answering it."""
    # Sorted, so that of several commonest classes the choice is always the same.
    classes = Counter(sorted(truth))
    [(label, times)] = classes.most_common(1)
    accuracy = 100.0 * times / len(truth)
    return {"label": label, "accuracy": round(accuracy, 2)}


def text_baseline(
    train: Sequence[Utterance],
    test: Sequence[Utterance],
    field: Field,
    smoothing: float = 0.5,
) -> dict[str, Any] | None:
    """Compute accuracy and unweighted accuracy (%) of naive Bayes on reference transcripts.

    That is what the wording alone gives away. Features are words (Chinese: characters) and pairs of
    neighbors, with ``smoothing`` added to their counts. Returns None when no training utterance has
    both text and label.
    """
    seen = _examples((u for u in train if u.txt), field)
    asked = _examples(test, field)
    if not seen or not asked:
        return None

    names = sorted({label for label, _ in seen})
    prior, likelihood = _fit(seen, names, smoothing)
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for label, features in asked:
        evidence = np.zeros(len(names))
        for feature, times in features.items():
            # Features that training never had say nothing.
            if feature in likelihood:
                evidence += times * likelihood[feature]

        best = np.argmax(prior + evidence)
        answer = names[int(best)]
        total[label] += 1
        right[label] += answer == label

    accuracy = 100.0 * right.total() / len(asked)

    # Each class counts alike, however often it occurs.
    recalls = [right[label] / total[label] for label in total]
    return {
        "accuracy": round(accuracy, 2),
        "uar": round(100.0 * float(np.mean(recalls)), 2),
        "train_utterances": len(seen),
    }


def _examples(utterances: Iterable[Utterance], field: Field) -> list[tuple[str, Counter]]:
    """Return label and features of the utterances that have a label."""
    found = []
    for utterance in utterances:
        if field.present(utterance):
            features = _features(utterance.txt or "")
            found.append((field.value(utterance), features))
    return found


def _features(text: str) -> Counter:
    tokens = answer_tokens(text)
    features = Counter(tokens)
    features.update(pairwise(tokens))
    return features


def _fit(
    seen: list[tuple[str, Counter]], names: list[str], smoothing: float
) -> tuple[np.ndarray, dict[Any, np.ndarray]]:
    """Return log priors (K,) of the K classes and log likelihoods (K,) of every feature."""
    # How often each class, and each feature in each class, occurs.
    times: dict[Any, np.ndarray] = {}
    utterances = np.zeros(len(names))
    for label, features in seen:
        index = names.index(label)
        utterances[index] += 1
        for feature, number in features.items():
            own = times.setdefault(feature, np.zeros(len(names)))
            own[index] += number

    total = np.zeros(len(names))
    for number in times.values():
        total += number

    # The smoothed counts of all features add up to this in each class.
    added = smoothing * max(1, len(times))
    norm = np.log(total + added)

    likelihood = {}
    for feature, number in times.items():
        smoothed = np.log(number + smoothing)
        likelihood[feature] = smoothed - norm
    prior = utterances / utterances.sum()
    return np.log(prior), likelihood
