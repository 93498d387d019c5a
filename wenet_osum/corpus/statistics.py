"""What lists hold, in numbers: hours, durations, speakers."""

from __future__ import annotations

from wenet_osum.corpus.split import values
from wenet_osum.records import Utterance


def summary(splits: dict[str, list[Utterance]]) -> list[str]:
    """Write one line per list, for the terminal."""
    lines = []
    for name, utterances in splits.items():
        known = durations(utterances)
        duration = f"{hours(utterances):.3f} h"
        if utterances and not known:
            duration = "durations not known"
        facts = [
            f"{len(utterances)} utterances",
            duration,
            f"{len(values(utterances, 'speaker'))} speakers",
        ]
        line = ", ".join(facts)
        lines.append(f"{name}: {line}")
    return lines


def hours(utterances: list[Utterance]) -> float:
    """Sum up the utterances whose duration is known, in hours."""
    seconds = durations(utterances)
    return sum(seconds, 0.0) / 3600


def durations(utterances: list[Utterance]) -> list[float]:
    """Return the durations that are known, s."""
    return [utterance.duration for utterance in utterances if utterance.duration]
