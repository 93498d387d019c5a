"""Bars to reach: figures a recipe promises, such as ``asr/wer/en<=8``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wenet_osum.records import Score


def parse_targets(texts: Iterable[str]) -> dict[tuple[str, str, str | None], tuple[str, float]]:
    """Bars to reach, ``asr/wer/en<=8`` or ``ser/accuracy>=80``. Raises ValueError when one cannot be read."""
    targets = {}
    for text in texts:
        sign = next((s for s in ("<=", ">=") if s in text), "")
        name, _, number = text.partition(sign) if sign else ("", "", "")
        parts = name.strip().split("/")
        try:
            targets[parts[0], parts[1], parts[2] if len(parts) > 2 else None] = (sign, float(number))
        except (IndexError, ValueError):
            raise ValueError(f"bar {text!r} must read task/metric<=number or task/metric/subset>=number, e.g. asr/wer/en<=8") from None
    return targets


def target_of(score: Score, targets: dict) -> tuple[str, float] | None:
    """The bar this score has to reach, if one is given."""
    return targets.get((score.task, score.metric, score.subset)) or targets.get((score.task, score.metric, None))


def unmatched(scores: Sequence[Score], targets: dict) -> list[str]:
    """Bars that no figure has, each with the figures its task has: a misspelled bar must not vanish."""
    found = {key for s in scores for key in ((s.task, s.metric, s.subset), (s.task, s.metric, None))}
    known = {task: sorted({s.metric for s in scores if s.task == task}) for task, *_ in targets}
    return [f"bar {'/'.join(filter(None, key))}: no such figure; {key[0]} has {', '.join(known[key[0]]) or 'none'}" for key in targets if key not in found]


def reached(score: Score, target: tuple[str, float]) -> bool:
    """Whether the value meets the bar."""
    return score.value <= target[1] if target[0] == "<=" else score.value >= target[1]


def missed(scores: Sequence[Score], targets: dict) -> list[str]:
    """Say which figures miss their bar."""
    found = []
    for score in scores:
        target = target_of(score, targets)
        if target and not reached(score, target):
            name = "/".join(filter(None, (score.task, score.metric, score.subset)))
            found.append(f"bar {name}{target[0]}{target[1]:g}: missed with {score.value:.2f}")
    return found
