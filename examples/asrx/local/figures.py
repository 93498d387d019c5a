"""From the results of cells to the figures of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from arms import ARMS, X

from wenet_osum.score.bootstrap import Difference, estimate, paired
from wenet_osum.score.resampling import clusters_of


@dataclass
class Row:
    """An arm on an X, over its seeds. Accuracies in %."""

    arm: str
    seeds: list[float]  # accuracy of each
    value: float  # their mean
    low: float  # 95 % interval over speakers
    high: float
    hours: float  # audio heard, mean over seeds
    answer_tokens: float  # as trained on, mean over seeds
    encoder: str
    wer: float | None = None  # of the same answers, %; None: no transcript was asked
    majority: float | None = None  # share of the most frequent class of the test set
    difference: float | None = None  # to X alone, on the seeds both have
    low_d: float = 0.0
    high_d: float = 0.0
    p_value: float = 1.0

    @property
    def sign(self) -> int:
        """1 better than X alone, -1 worse, 0 when the interval holds zero."""
        if self.low_d <= 0 <= self.high_d:
            return 0
        if self.difference > 0:
            return 1
        return -1


def mean(sums: np.ndarray) -> np.ndarray:
    """Return Σ right ÷ Σ utterances, in %."""
    right = sums[:, 0]
    utterances = sums[:, 1]
    return 100.0 * right / utterances


def columns(found: list[dict[str, Any]], x: X) -> np.ndarray:
    """Return (utterances, 2): mean over the cells of being right, and 1.

    Raises ValueError when cells were tested on different utterances.
    """
    tables = [result["tests"][x.name]["right"] for result in found]
    keys = sorted(tables[0])
    if any(sorted(right) != keys for right in tables):
        raise ValueError(
            f"cells of {x.name} were tested on different lists; delete those of the older list and "
            "run them again"
        )
    by_cell = []
    for right in tables:
        by_cell.append([right[key] for key in keys])
    shares = np.mean(by_cell, axis=0)
    return np.stack([shares, np.ones(len(keys))], axis=1)


def speakers(found: list[dict[str, Any]], x: X) -> np.ndarray:
    """Return (utterances,): the number of the speaker of each row of ``columns``.

    An utterance without one stands for itself.
    """
    test = found[0]["tests"][x.name]
    keys = sorted(test["right"])
    known = dict.fromkeys(keys) | test.get("speakers", {})
    return clusters_of(keys, known, "speaker").of_rows


def rows_of(results: list[dict[str, Any]], x: X) -> list[Row]:
    """Return a row for each arm that has a finished cell."""
    by_arm: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for result in results:
        if x.name in result["tests"]:
            arm = result["cell"]["arm"]
            by_arm[arm].append(result)

    # Every arm is compared with X alone.
    rows = []
    for arm, found in by_arm.items():
        if found:
            rows.append(_row(arm, found, by_arm["alone"], x))
    return rows


def _row(arm: str, found: list[dict[str, Any]], alone: list[dict[str, Any]], x: X) -> Row:
    """Return the row of an arm from its cells and those of X alone."""
    own = columns(found, x)
    value, low, high = estimate(
        own,
        mean,
        trials=len(own),
        clusters=speakers(found, x),
    )
    row = Row(
        arm=arm,
        seeds=[_accuracy(result, x) for result in found],
        value=value,
        low=low,
        high=high,
        hours=_mean_of(found, "audio_s") / 3600,
        answer_tokens=_mean_of(found, "answer_tokens"),
        encoder=found[0]["encoder"],
        wer=_wer(found, x),
        majority=found[0]["tests"][x.name].get("majority"),
    )
    told = _difference(found, alone, x)
    if told and arm != "alone":
        row.difference, row.low_d, row.high_d, row.p_value = told[:4]
    return row


def _accuracy(result: dict[str, Any], x: X) -> float:
    """Return the accuracy of a cell, in %."""
    sums = columns([result], x).sum(axis=0)
    [share] = mean(sums[None])
    return float(share)


def _mean_of(found: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([result[name] for result in found]))


def _difference(
    found: list[dict[str, Any]], alone: list[dict[str, Any]], x: X
) -> Difference | None:
    """Compare paired by speaker, over the seeds both arms have; None when there are none."""
    ours = {_seed(result): result for result in found}
    theirs = {_seed(result): result for result in alone}
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    one = columns([ours[seed] for seed in seeds], x)
    other = columns([theirs[seed] for seed in seeds], x)
    return paired(
        one,
        other,
        mean,
        trials=len(one),
        clusters=speakers(found, x),
    )


def _seed(result: dict[str, Any]) -> int:
    return result["cell"]["seed"]


def _wer(found: list[dict[str, Any]], x: X) -> float | None:
    """Return the mean word or character error over the cells; None where none was asked for it."""
    rates = []
    for result in found:
        figures = result["tests"][x.name]["figures"]
        for name, (rate, *_) in figures.items():
            if name.startswith("transcript/wer/"):
                rates.append(rate)
    if rates:
        return float(np.mean(rates))
    return None


def spread_of(row: Row) -> float:
    """Return the highest minus the lowest seed."""
    return max(row.seeds) - min(row.seeds)


def drops(results: list[dict[str, Any]], arm: str) -> float | None:
    """Return by how many points dev accuracy falls between two evaluations, 0 where it rises.

    It is the mean over all curves of an arm; None without any.
    """
    steps = []
    for result in results:
        if result["cell"]["arm"] != arm:
            continue
        for line in result["curve"].values():
            accuracies = np.array([100 * share for _, share in line])
            falls = accuracies[:-1] - accuracies[1:]
            steps += falls.clip(min=0.0).tolist()
    if steps:
        return float(np.mean(steps))
    return None


def mean_curve(results: list[dict[str, Any]], x: X, arm: str) -> list[tuple[float, float]]:
    """Return (step, % of dev labels right), the mean over the seeds that have reached the step."""
    found: dict[float, list[float]] = {}
    for result in results:
        if result["cell"]["arm"] != arm:
            continue
        for step, value in result["curve"].get(x.name, []):
            values = found.setdefault(step, [])
            values.append(100 * value)
    curve = []
    for step, values in sorted(found.items()):
        curve.append((step, float(np.mean(values))))
    return curve
