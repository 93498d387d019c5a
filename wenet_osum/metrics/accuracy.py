"""Label fields: accuracy, unweighted accuracy, F1, confusion matrix, calibration, baselines.

Missing, failed and unread answers are wrong and stand in a column of their own. Classes are those that occur in the references:

- ``accuracy``: right ÷ utterances; equal to micro-F1 and to weighted accuracy.
- ``uar``: unweighted accuracy, the mean of the recalls of the classes.
- ``macro_f1``, ``weighted_f1``: mean of the classes' F1, plain or weighted by how often they occur in the references.
- ``ece``: expected calibration error over 15 equally wide bins (Guo et al., 2017, arXiv 1706.04599) of the answer's probability,
  over the answers that have one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from wenet_osum.records import Metric
from wenet_osum.score.baseline import majority, text_baseline
from wenet_osum.metrics.error_rate import describe
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, counts, divide
from wenet_osum.tasks import Field

NO_ANSWER = "unread/missing"  # the last column of the confusion matrix
BINS = 15
ACCURACY = Metric("accuracy", "accuracy")
UAR = Metric("uar", "unweighted accuracy")
MACRO_F1 = Metric("macro_f1", "macro F1")
WEIGHTED_F1 = Metric("weighted_f1", "weighted F1")
ECE = Metric("ece", "calibration error (ECE)", lower_is_better=True)
MAIN = (ACCURACY, UAR, MACRO_F1)  # the rest is minor in reports


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Figures of one label field over all utterances."""
    names = list(field.labels.names)
    truth = [field.value(p.reference) for p in pairs]
    answers = [predicted(field, p) for p in pairs]
    columns = _cells(names, truth, answers)
    statistics = {ACCURACY: _accuracy, UAR: _uar, MACRO_F1: _macro_f1, WEIGHTED_F1: _weighted_f1}
    # Classes count alike in the means over classes, so that the rarest one decides how sure these are.
    times = Counter(truth)
    balanced = len(times) * min(times.values())
    found = [
        MetricSums(
            metric,
            columns,
            over_matrix(statistic, len(names)),
            len(pairs),
            trials=len(pairs) if metric is ACCURACY else balanced,
            detail={"minor": metric not in MAIN},
        )
        for metric, statistic in statistics.items()
    ]
    matrix = columns.sum(axis=0).reshape(len(names), len(names) + 1).astype(int)
    found[0].detail |= _detail(field, pairs, truth, answers, matrix, options)
    return found + _calibration(field, pairs, truth, answers)


def predicted(field: Field, pair: Pair) -> str | None:
    """The answered label in canonical spelling; None for a missing, failed or unread answer."""
    if not pair.answered or field.name not in pair.hypothesis.labels:
        return None
    return field.labels.find(pair.hypothesis.labels[field.name])


def over_matrix(statistic: Callable[[np.ndarray], np.ndarray], classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """A statistic of confusion matrices (R, K, K + 1) as one of their flat cells (R, K·(K + 1))."""
    return lambda sums: 100.0 * statistic(sums.reshape(len(sums), classes, classes + 1))


def _cells(names: list[str], truth: list[str], answers: list[str | None]) -> np.ndarray:
    """(U, K·(K + 1)): the confusion-matrix cell of each utterance."""
    width = len(names) + 1
    index = {name: i for i, name in enumerate(names)} | {None: len(names)}
    cells = np.zeros((len(truth), len(names) * width))
    cells[np.arange(len(truth)), [index[t] * width + index[a] for t, a in zip(truth, answers, strict=True)]] = 1
    return cells


def _right(matrices: np.ndarray) -> np.ndarray:
    return np.diagonal(matrices, axis1=1, axis2=2)  # (R, K)


def _accuracy(matrices: np.ndarray) -> np.ndarray:
    return divide(_right(matrices).sum(axis=1), matrices.sum(axis=(1, 2)))


def _uar(matrices: np.ndarray) -> np.ndarray:
    support = matrices.sum(axis=2)
    return divide(divide(_right(matrices), support).sum(axis=1), (support > 0).sum(axis=1))


def _f1(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F1 and support of every class, (R, K) each."""
    support = matrices.sum(axis=2)
    return divide(2 * _right(matrices), support + matrices[:, :, :-1].sum(axis=1)) * (support > 0), support


def _macro_f1(matrices: np.ndarray) -> np.ndarray:
    f1, support = _f1(matrices)
    return divide(f1.sum(axis=1), (support > 0).sum(axis=1))


def _weighted_f1(matrices: np.ndarray) -> np.ndarray:
    f1, support = _f1(matrices)
    return divide((f1 * support).sum(axis=1), support.sum(axis=1))


def _detail(
    field: Field, pairs: list[Pair], truth: list[str], answers: list[str | None], matrix: np.ndarray, options: Options
) -> dict[str, Any]:
    names = list(field.labels.names)
    detail = {
        "labels": names,
        "columns": [*names, NO_ANSWER],
        "confusion": matrix.tolist(),
        "classes": _classes(names, matrix),
        "majority": majority(truth),
        **counts(field.name, pairs),
        "worst": _worst(pairs, field, truth, answers, options.worst),
    }
    detail["unread"] = sum(p.answered and a is None for p, a in zip(pairs, answers, strict=True))
    if options.train and (words := text_baseline(options.train, [p.reference for p in pairs], field)):
        detail["text_baseline"] = words
    return detail


def _classes(names: list[str], matrix: np.ndarray) -> dict[str, dict[str, float]]:
    """Count, recall, precision and F1 of every class that occurs in references or answers."""
    table = {}
    for i, name in enumerate(names):
        right, support, answered = int(matrix[i, i]), int(matrix[i].sum()), int(matrix[:, i].sum())
        if support or answered:
            table[name] = {
                "count": support,
                "answered": answered,
                "right": right,
                "recall": round(100 * right / support, 2) if support else None,
                "precision": round(100 * right / answered, 2) if answered else None,
                "f1": round(200 * right / (support + answered), 2),
            }
    return table


def _worst(pairs: list[Pair], field: Field, truth: list[str], answers: list[str | None], limit: int) -> list[dict[str, Any]]:
    """Wrong answers, those the model was surest of first."""
    rows = []
    for pair, right, answer in zip(pairs, truth, answers, strict=True):
        if answer != right:
            prob = pair.hypothesis.probs.get(field.name, {}).get(answer) if pair.answered else None
            unread = pair.hypothesis.unread.get(field.name, "no label") if pair.answered else ""
            why = describe(pair) or (f"unread: {unread}" if answer is None else "" if prob is None else f"p = {prob:.2f}")
            row = {"key": pair.reference.key, "ref": right, "hyp": answer or "", "note": why, "text": pair.reference.txt or ""}
            rows.append((-1.0 if prob is None else prob, row))
    rows.sort(key=lambda item: (-item[0], item[1]["key"]))
    return [row for _, row in rows[:limit]]


def _calibration(field: Field, pairs: list[Pair], truth: list[str], answers: list[str | None]) -> list[MetricSums]:
    """The expected calibration error, when the decoder wrote probabilities."""
    rows = [
        (pair.hypothesis.probs[field.name][answer], answer == right)
        for pair, right, answer in zip(pairs, truth, answers, strict=True)
        if pair.answered and answer is not None and answer in pair.hypothesis.probs.get(field.name, {})
    ]
    if not rows:
        return []
    probs, right = np.clip(np.array([r[0] for r in rows], dtype=float), 0, 1), np.array([r[1] for r in rows], dtype=float)
    bins = np.minimum((probs * BINS).astype(int), BINS - 1)
    columns = np.zeros((len(rows), 3 * BINS))
    for part, values in enumerate((np.ones(len(rows)), probs, right)):
        columns[np.arange(len(rows)), part * BINS + bins] = values
    return [MetricSums(ECE, columns, _ece, len(rows), detail={"minor": True, "bins": _bins(columns.sum(axis=0))})]


def _ece(sums: np.ndarray) -> np.ndarray:
    number, confidence, right = np.split(sums, 3, axis=1)
    return 100.0 * np.abs(confidence - right).sum(axis=1) / number.sum(axis=1)


def _bins(sums: np.ndarray) -> list[dict[str, float]]:
    """Bins that hold answers: their number, mean probability and accuracy, both 0 to 1."""
    number, confidence, right = np.split(sums, 3)
    return [
        {"count": int(number[b]), "confidence": round(confidence[b] / number[b], 4), "accuracy": round(right[b] / number[b], 4)}
        for b in range(BINS)
        if number[b]
    ]
