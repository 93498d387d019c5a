"""Targets: values of metrics that a recipe promises to reach, such as ``asr/wer/en<=8``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wenet_osum.records import Score
from wenet_osum.tasks import parse

# Task, metric and subset; None for any subset.
Key = tuple[str, str, str | None]
# ``<=`` or ``>=``, and the value to reach.
Target = tuple[str, float]


def parse_targets(texts: Iterable[str]) -> dict[Key, Target]:
    """Read targets such as ``asr/wer/en<=8`` or ``ser/accuracy>=80``.

    Raises ValueError when one cannot be read.
    """
    targets = {}
    for text in texts:
        sign = ">=" if ">=" in text and "<=" not in text else "<="
        name, _, number = text.partition(sign)
        parts = name.strip().split("/")
        # A third part names the subset; what stands behind it is no part of a target.
        subset = parts[2] if len(parts) > 2 else None
        try:
            key = (_task_name(parts[0]), parts[1], subset)
            targets[key] = (sign, float(number))
        except (IndexError, ValueError):
            raise ValueError(
                f"bar {text!r} must read task/metric<=number or task/metric/subset>=number, "
                "e.g. asr/wer/en<=8"
            ) from None
    return targets


def _task_name(text: str) -> str:
    """Return the name under which a task is scored, of its name or its tags."""
    try:
        return parse(text).name
    except ValueError:
        # No such task: nothing will be found under it, which is told.
        return text


def target_of(score: Score, targets: dict[Key, Target]) -> Target | None:
    """Return the target of this score, if one is given: that of its subset before that of any."""
    for subset in (score.subset, None):
        target = targets.get((score.task, score.metric, subset))
        if target:
            return target
    return None


def unmatched(scores: Sequence[Score], targets: dict[Key, Target]) -> list[str]:
    """Say of each target without a score which metrics its task has.

    A misspelled target must not vanish.
    """
    found: set[Key] = set()
    metrics: dict[str, set[str]] = {}
    for score in scores:
        # A target may name a subset or leave it open.
        for subset in (score.subset, None):
            found.add((score.task, score.metric, subset))
        own = metrics.setdefault(score.task, set())
        own.add(score.metric)

    sentences = []
    for key in targets:
        if key in found:
            continue
        name = "/".join(filter(None, key))
        task = key[0]
        known = ", ".join(sorted(metrics.get(task, ())))
        sentence = f"bar {name}: no such figure; {task} has {known or 'none'}"
        sentences.append(sentence)
    return sentences


def reached(score: Score, target: Target) -> bool:
    """Tell whether the value meets the target."""
    sign, number = target
    if sign == "<=":
        return score.value <= number
    return score.value >= number


def missed(scores: Sequence[Score], targets: dict[Key, Target]) -> list[str]:
    """Say which scores miss their target."""
    found = []
    for score in scores:
        target = target_of(score, targets)
        if target is None or reached(score, target):
            continue
        parts = filter(None, (score.task, score.metric, score.subset))
        name = "/".join(parts)
        sign, number = target
        found.append(f"bar {name}{sign}{number:g}: missed with {score.value:.2f}")
    return found
