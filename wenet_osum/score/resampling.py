"""What the bootstrap draws: single utterances, or speakers with all utterances of theirs.

Utterances of one speaker depend on one another: who is hard to understand is so in all of them. An
interval that draws utterances takes them for independent and is too narrow for what is asked of a
model, how well it does on other speakers. The cluster bootstrap draws whole speakers (Field and
Welsh, 2007, 10.1111/j.1467-9868.2007.00593.x; for speech recognition Liu and Peng, 2019, arXiv
1912.09508).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from wenet_osum.records import Score, Utterance

UNITS = ("utterance", "speaker")
# Entry of ``Score.detail`` that says what was drawn.
DETAIL = "resampled"


class Clusters(NamedTuple):
    """The clusters that the rows of a metric belong to."""

    unit: str
    # (U,): the cluster of each row, numbered from 0
    of_rows: np.ndarray
    # rows whose utterance has no speaker, so that each is a cluster of its own
    without_speaker: int

    def told(self) -> dict[str, Any]:
        """Return what ``score.json`` says of them."""
        clusters = np.unique(self.of_rows)
        return {
            "unit": self.unit,
            "clusters": len(clusters),
            "without_speaker": self.without_speaker,
        }


def check_unit(unit: str) -> None:
    """Raise ValueError for a unit that cannot be drawn."""
    if unit not in UNITS:
        raise ValueError(f"resample is {unit!r}; it must be one of {', '.join(UNITS)}")


def clusters_of(keys: Sequence[str], speakers: dict[str, str | None], unit: str) -> Clusters:
    """Find the cluster of each row.

    ``keys`` (U,) are the utterances of the rows; ``speakers`` maps the key of every reference to
    its speaker, None where it has none.
    """
    if unit == "utterance":
        return Clusters(unit, np.arange(len(keys)), 0)

    # Names come with what they name, so that no key is taken for a speaker.
    names = []
    without_speaker = 0
    for key in keys:
        speaker = speakers[key]
        if speaker:
            names.append(("speaker", speaker))
        else:
            names.append(("utterance", key))
            without_speaker += 1

    # Numbered in sorted order, so that an interval does not depend on the order of the list.
    in_order = sorted(set(names))
    numbers = {name: number for number, name in enumerate(in_order)}
    of_rows = [numbers[name] for name in names]
    return Clusters(unit, np.array(of_rows, dtype=int), without_speaker)


def speakers_of(references: Iterable[Utterance]) -> dict[str, str | None]:
    """Map keys to speakers."""
    return {utterance.key: utterance.speaker for utterance in references}


def described(units: Iterable[str]) -> str:
    """Say what was drawn, e.g. ``95 %, speakers resampled``."""
    names = [f"{unit}s" for unit in set(units)]
    drawn = " and ".join(sorted(names))
    return f"95 %, {drawn} resampled"


def units(scores: Iterable[Score]) -> set[str]:
    """Return what was drawn for these scores; those that do not say it drew utterances."""
    found = set()
    for score in scores:
        told = score.detail.get(DETAIL, {})
        found.add(told.get("unit", "utterance"))
    return found


def clusters(score: Score) -> int | None:
    """Return the number of clusters that were drawn from; None where utterances were drawn."""
    told = score.detail.get(DETAIL)
    if not told or told["unit"] == "utterance":
        return None
    return told["clusters"]
