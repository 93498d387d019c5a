"""Two systems on the same list: what the paired bootstrap says of each metric, as rows."""

from __future__ import annotations

from typing import Any

from wenet_osum.score.bootstrap import Difference

# Below this p value, a difference is taken for one.
LEVEL = 0.05


def row(
    task: str,
    name: tuple[str, str, str],
    values: tuple[float, float],
    difference: Difference,
    paths: tuple[str, str],
    lower_is_better: bool,
    resample: str = "utterance",
) -> dict[str, Any]:
    """Make the row of one metric.

    ``name`` is (field, metric, subset); ``values`` and ``paths`` are (first, second);
    ``lower_is_better`` decides which side won; ``resample`` is what the bootstrap drew.
    """
    better = ""
    if difference.p_value < LEVEL:
        first_is_lower = difference.difference < 0
        better = "first" if first_is_lower == lower_is_better else "second"
    field, metric, subset = name
    return {
        "task": task,
        "field": field,
        "metric": metric,
        "subset": subset,
        "first": paths[0],
        "second": paths[1],
        "first_value": values[0],
        "second_value": values[1],
        **difference._asdict(),
        "resample": resample,
        "better": better,
    }
