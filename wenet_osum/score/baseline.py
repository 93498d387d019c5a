"""What a label field scores without listening: the commonest class, and a classifier that only sees the words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from wenet_osum.records import Utterance
from wenet_osum.score.normalize import answer_tokens
from wenet_osum.tasks import Field


def majority(truth: Sequence[str]) -> dict[str, Any]:
    """Accuracy (%) of always answering the commonest class of the references."""
    label, times = Counter(sorted(truth)).most_common(1)[0]
    return {"label": label, "accuracy": round(100.0 * times / len(truth), 2)}


def text_baseline(train: Sequence[Utterance], test: Sequence[Utterance], field: Field, smoothing: float = 0.5) -> dict[str, Any] | None:
    """Accuracy and unweighted accuracy (%) of naive Bayes on reference transcripts: what the wording alone gives away.

    Features are words (Chinese: characters) and pairs of neighbors. None when no training utterance has both text and label.
    """
    seen = [(field.value(u), _features(u.txt)) for u in train if u.txt and field.present(u)]
    asked = [(field.value(u), _features(u.txt or "")) for u in test if field.present(u)]
    if not seen or not asked:
        return None
    names = sorted({label for label, _ in seen})
    prior, likelihood = _fit(seen, names, smoothing)
    right = Counter()
    total = Counter(label for label, _ in asked)
    for label, features in asked:
        scores = prior + sum((times * likelihood[f] for f, times in features.items() if f in likelihood), np.zeros(len(names)))
        right[label] += names[int(np.argmax(scores))] == label
    return {
        "accuracy": round(100.0 * sum(right.values()) / len(asked), 2),
        "uar": round(100.0 * float(np.mean([right[label] / total[label] for label in total])), 2),
        "train_utterances": len(seen),
    }


def _features(text: str) -> Counter:
    tokens = answer_tokens(text)
    return Counter([*tokens, *pairwise(tokens)])


def _fit(seen: list[tuple[str, Counter]], names: list[str], smoothing: float) -> tuple[np.ndarray, dict[Any, np.ndarray]]:
    """Log priors (K,) and log likelihoods (K,) of every feature."""
    times: dict[Any, np.ndarray] = {}
    prior = np.zeros(len(names))
    for label, features in seen:
        index = names.index(label)
        prior[index] += 1
        for feature, number in features.items():
            times.setdefault(feature, np.zeros(len(names)))[index] += number
    total = np.sum(list(times.values()), axis=0) if times else np.zeros(len(names))
    norm = np.log(total + smoothing * max(1, len(times)))
    return np.log(prior / prior.sum()), {f: np.log(n + smoothing) - norm for f, n in times.items()}
