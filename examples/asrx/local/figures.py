"""From the results of cells to the figures of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from arms import ARMS, X

from wenet_osum.score.bootstrap import Difference, estimate, paired


@dataclass
class Row:
    """An arm on an X, over its seeds. Accuracies in %."""

    arm: str
    seeds: list[float]  # accuracy of each
    value: float  # their mean
    low: float  # 95 % interval over utterances
    high: float
    speech_tokens: float  # mean over seeds, as trained on
    answer_tokens: float
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
    """Σ right ÷ Σ utterances, in %."""
    return 100.0 * sums[:, 0] / sums[:, 1]


def columns(found: list[dict[str, Any]], x: X) -> np.ndarray:
    """(utterances, 2): mean over the cells of being right, and 1. Raises ValueError when cells were
    tested on different utterances.
    """
    keys = sorted(found[0]["tests"][x.name]["right"])
    if any(sorted(result["tests"][x.name]["right"]) != keys for result in found):
        raise ValueError(
            f"cells of {x.name} were tested on different lists; delete those of the older list and "
            "run them again"
        )
    right = np.mean(
        [[result["tests"][x.name]["right"][key] for key in keys] for result in found], axis=0
    )
    return np.stack([right, np.ones(len(keys))], axis=1)


def rows_of(results: list[dict[str, Any]], x: X) -> list[Row]:
    """A row an arm that has a finished cell."""
    by_arm = {
        arm: [r for r in results if r["cell"]["arm"] == arm and x.name in r["tests"]]
        for arm in ARMS
    }
    return [
        _row(
            arm,
            found,
            by_arm["alone"],
            x,
        )
        for arm, found in by_arm.items()
        if found
    ]


def _row(arm: str, found: list[dict[str, Any]], alone: list[dict[str, Any]], x: X) -> Row:
    own = columns(found, x)
    value, low, high = estimate(own, mean, trials=len(own))
    seeds = [float(mean(columns([result], x).sum(axis=0)[None])[0]) for result in found]
    tokens = [
        float(np.mean([result[name] for result in found]))
        for name in ("speech_tokens", "answer_tokens")
    ]
    row = Row(
        arm,
        seeds,
        value,
        low,
        high,
        *tokens,
        found[0]["encoder"],
        _wer(found, x),
        found[0]["tests"][x.name].get("majority"),
    )
    if (told := _difference(found, alone, x)) and arm != "alone":
        row.difference, row.low_d, row.high_d, row.p_value = told[:4]
    return row


def _difference(
    found: list[dict[str, Any]], alone: list[dict[str, Any]], x: X
) -> Difference | None:
    """Paired by utterance, over the seeds both arms have; None when there are none."""
    seeds = {r["cell"]["seed"] for r in found} & {r["cell"]["seed"] for r in alone}
    if not seeds:
        return None
    both = [columns([r for r in side if r["cell"]["seed"] in seeds], x) for side in (found, alone)]
    return paired(*both, mean, trials=len(both[0]))


def _wer(found: list[dict[str, Any]], x: X) -> float | None:
    rates = [
        figures[name][0]
        for r in found
        for figures in [r["tests"][x.name]["figures"]]
        for name in figures
        if name.startswith("transcript/wer/")
    ]
    if rates:
        return float(np.mean(rates))
    return None


def spread_of(row: Row) -> float:
    """Highest minus lowest seed."""
    return max(row.seeds) - min(row.seeds)


def drops(results: list[dict[str, Any]], arm: str) -> float | None:
    """By how many points dev accuracy falls between two evaluations, 0 where it rises: the mean
    over all curves of an arm.
    """
    lines = [
        [100 * y for _, y in line]
        for r in results
        if r["cell"]["arm"] == arm
        for line in r["curve"].values()
    ]
    steps = [
        max(0.0, a - b)
        for line in lines
        for a, b in zip(
            line,
            line[1:],
            strict=False,
        )
    ]
    if steps:
        return float(np.mean(steps))
    return None


def mean_curve(results: list[dict[str, Any]], x: X, arm: str) -> list[tuple[float, float]]:
    """(step, % of dev labels right), the mean over the seeds that have reached the step."""
    found: dict[float, list[float]] = {}
    for result in results:
        if result["cell"]["arm"] == arm:
            for step, value in result["curve"].get(x.name, []):
                found.setdefault(step, []).append(100 * value)
    return [(step, float(np.mean(values))) for step, values in sorted(found.items())]
