"""Label fields: accuracy, unweighted accuracy, F1, confusion matrix, calibration, baselines.

Missing, failed and unread answers are wrong and have a column of their own in the confusion
matrix. Classes are those that occur in the references:

- ``accuracy``: right ÷ utterances; equal to micro-F1 and to weighted accuracy.
- ``uar``: unweighted accuracy, the mean of the recalls of the classes.
- ``macro_f1``, ``weighted_f1``: mean of the classes' F1, plain or weighted by how often they occur
  in the references.
- ``ece``: expected calibration error over 15 equally wide bins (Guo et al., 2017, arXiv 1706.04599)
  of the answer's probability, over the answers that have one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wenet_osum.metrics.error_rate import describe
from wenet_osum.records import Metric
from wenet_osum.score.baseline import majority, text_baseline
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, Statistic, counts, divide
from wenet_osum.tasks import Field

# The last column of the confusion matrix.
NO_ANSWER = "unread/missing"
# Bins of the calibration error.
BINS = 15

ACCURACY = Metric("accuracy", "accuracy")
UAR = Metric("uar", "unweighted accuracy")
MACRO_F1 = Metric("macro_f1", "macro F1")
WEIGHTED_F1 = Metric("weighted_f1", "weighted F1")
ECE = Metric("ece", "calibration error (ECE)", lower_is_better=True)
# The others are minor in reports.
MAIN = (ACCURACY, UAR, MACRO_F1)


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute all metrics of a label field over all utterances."""
    names = list(field.labels.names)
    truth = [field.value(pair.reference) for pair in pairs]
    answers = [predicted(field, pair) for pair in pairs]
    columns = _cells(names, truth, answers)

    # Each class is estimated by itself in the means over classes; the accuracy takes all as one.
    classes = np.array([names.index(label) for label in truth])
    together = np.zeros(len(pairs), dtype=int)
    keys = [pair.reference.key for pair in pairs]
    statistics = {
        ACCURACY: _accuracy,
        UAR: _uar,
        MACRO_F1: _macro_f1,
        WEIGHTED_F1: _weighted_f1,
    }
    found = []
    for metric, statistic in statistics.items():
        sums = MetricSums(
            metric,
            columns,
            over_matrix(statistic, len(names)),
            len(pairs),
            strata=together if metric is ACCURACY else classes,
            detail={"minor": metric not in MAIN},
            keys=keys,
        )
        found.append(sums)

    # What else is told of the answers stands beside the accuracy.
    cells = columns.sum(axis=0).astype(int)
    matrix = cells.reshape(len(names), len(names) + 1)
    found[0].detail |= _detail(field, pairs, truth, answers, matrix, options)
    return found + _calibration(field, pairs, truth, answers)


def predicted(field: Field, pair: Pair) -> str | None:
    """Return the answered label in canonical spelling; None if missing, failed or unread."""
    if not pair.answered:
        return None
    label = pair.hypothesis.labels.get(field.name)
    return None if label is None else field.labels.find(label)


def over_matrix(statistic: Statistic, classes: int) -> Statistic:
    """Turn a statistic of confusion matrices into one of their flat cells, in %.

    ``statistic`` maps (R, K, K + 1) matrices of K classes to (R,) values from 0 to 1. The result
    maps (R, K·(K + 1)) cells to (R,) values in %.
    """

    def of_cells(sums: np.ndarray) -> np.ndarray:
        matrices = sums.reshape(len(sums), classes, classes + 1)
        return 100.0 * statistic(matrices)

    return of_cells


def _cells(names: list[str], truth: list[str], answers: list[str | None]) -> np.ndarray:
    """Mark the confusion-matrix cell of each utterance with a one: (U, K·(K + 1))."""
    width = len(names) + 1
    index: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    # No answer falls into the last column.
    index[None] = len(names)

    cells = np.zeros((len(truth), len(names) * width))
    for row, right, answer in zip(cells, truth, answers, strict=True):
        cell = index[right] * width + index[answer]
        row[cell] = 1
    return cells


def _right(matrices: np.ndarray) -> np.ndarray:
    """Return the right answers of every class, (R, K)."""
    return np.diagonal(matrices, axis1=1, axis2=2)


def _accuracy(matrices: np.ndarray) -> np.ndarray:
    right = _right(matrices).sum(axis=1)
    utterances = matrices.sum(axis=(1, 2))
    return divide(right, utterances)


def _uar(matrices: np.ndarray) -> np.ndarray:
    support = matrices.sum(axis=2)
    recalls = divide(_right(matrices), support)
    occurs = support > 0
    classes = occurs.sum(axis=1)
    return divide(recalls.sum(axis=1), classes)


def _f1(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 and support of every class, (R, K) each; classes without support have F1 0."""
    support = matrices.sum(axis=2)
    answered = matrices[:, :, :-1].sum(axis=1)
    right = _right(matrices)
    f1 = divide(2 * right, support + answered)
    occurs = support > 0
    return f1 * occurs, support


def _macro_f1(matrices: np.ndarray) -> np.ndarray:
    f1, support = _f1(matrices)
    occurs = support > 0
    classes = occurs.sum(axis=1)
    return divide(f1.sum(axis=1), classes)


def _weighted_f1(matrices: np.ndarray) -> np.ndarray:
    f1, support = _f1(matrices)
    weighted = f1 * support
    total = support.sum(axis=1)
    return divide(weighted.sum(axis=1), total)


def _detail(
    field: Field,
    pairs: list[Pair],
    truth: list[str],
    answers: list[str | None],
    matrix: np.ndarray,
    options: Options,
) -> dict[str, Any]:
    """Collect what a report shows beside the accuracy."""
    names = list(field.labels.names)
    unread = 0
    for pair, answer in zip(pairs, answers, strict=True):
        unread += pair.answered and answer is None
    detail = {
        "labels": names,
        "columns": [*names, NO_ANSWER],
        "confusion": matrix.tolist(),
        "classes": _classes(names, matrix),
        "majority": majority(truth),
        **counts(field.name, pairs),
        "worst": _worst(pairs, field, truth, answers, options.worst),
    }
    # A label that its set does not know counts as unread too.
    detail["unread"] = unread
    if options.train:
        references = [pair.reference for pair in pairs]
        words_alone = text_baseline(options.train, references, field)
        if words_alone:
            detail["text_baseline"] = words_alone
    return detail


def _classes(names: list[str], matrix: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Count every class that occurs in references or answers; rates are in %."""
    table = {}
    for i, name in enumerate(names):
        right = int(matrix[i, i])
        support = int(matrix[i].sum())
        answered = int(matrix[:, i].sum())
        if not support and not answered:
            continue
        table[name] = {
            "count": support,
            "answered": answered,
            "right": right,
            "recall": _percent(right, support),
            "precision": _percent(right, answered),
            "f1": _percent(2 * right, support + answered),
        }
    return table


def _percent(part: int, whole: int) -> float | None:
    """Return a share in % with two decimals; None when there is nothing to be a share of."""
    return round(100 * part / whole, 2) if whole else None


def _worst(
    pairs: list[Pair], field: Field, truth: list[str], answers: list[str | None], limit: int
) -> list[dict[str, Any]]:
    """Return the wrong answers, beginning with those the model was surest of."""
    ranked = []
    for pair, right, answer in zip(pairs, truth, answers, strict=True):
        if answer == right:
            continue

        prob = _probability(pair, field, answer)
        row = {
            "key": pair.reference.key,
            "ref": right,
            "hyp": answer or "",
            "note": describe(pair) or _note(pair, field, answer, prob),
            "text": pair.reference.txt or "",
        }
        # Answers without a probability come last.
        ranked.append((-1.0 if prob is None else prob, row))
    ranked.sort(key=lambda item: (-item[0], item[1]["key"]))
    return [row for _, row in ranked[:limit]]


def _probability(pair: Pair, field: Field, answer: str | None) -> float | None:
    """Return the probability that the decoder wrote for an answer, if it did."""
    if not pair.answered:
        return None
    probs = pair.hypothesis.probs.get(field.name, {})
    return probs.get(answer)


def _note(pair: Pair, field: Field, answer: str | None, prob: float | None) -> str:
    """Say of a wrong answer what could not be read, or else how probable it was."""
    if answer is None:
        why = pair.hypothesis.unread.get(field.name, "no label")
        return f"unread: {why}"
    if prob is None:
        return ""
    return f"p = {prob:.2f}"


def _calibration(
    field: Field, pairs: list[Pair], truth: list[str], answers: list[str | None]
) -> list[MetricSums]:
    """Compute the expected calibration error if the decoder wrote probabilities.

    Its sums per answer are (answers with a probability, 3 · BINS).
    """
    probs, right, keys = [], [], []
    for pair, expected, answer in zip(pairs, truth, answers, strict=True):
        if answer is None:
            continue
        prob = _probability(pair, field, answer)
        if prob is not None:
            probs.append(prob)
            right.append(answer == expected)
            keys.append(pair.reference.key)
    if not probs:
        return []

    # Each answer adds to three sums of its bin: answers, their probabilities, right answers.
    probs = np.clip(np.array(probs, dtype=float), 0, 1)
    bins = (probs * BINS).astype(int)
    # A probability of 1 belongs to the last bin.
    bins = np.minimum(bins, BINS - 1)
    rows = np.arange(len(probs))
    columns = np.zeros((len(probs), 3 * BINS))
    columns[rows, bins] = 1
    columns[rows, BINS + bins] = probs
    columns[rows, 2 * BINS + bins] = right

    detail = {"minor": True, "bins": _bins(columns.sum(axis=0))}
    return [MetricSums(ECE, columns, _ece, len(probs), detail=detail, keys=keys)]


def _ece(sums: np.ndarray) -> np.ndarray:
    number, confidence, right = np.split(sums, 3, axis=1)
    gaps = np.abs(confidence - right)
    weighted = gaps.sum(axis=1)
    return 100.0 * weighted / number.sum(axis=1)


def _bins(sums: np.ndarray) -> list[dict[str, float]]:
    """Describe the bins that hold answers: number, mean probability and accuracy, 0 to 1."""
    found = []
    for number, confidence, right in zip(*np.split(sums, 3), strict=True):
        if number:
            row = {
                "count": int(number),
                "confidence": round(confidence / number, 4),
                "accuracy": round(right / number, 4),
            }
            found.append(row)
    return found
