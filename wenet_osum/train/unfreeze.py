"""Parts that are frozen for a share of the run and train afterwards, as Whisper in Kimi-Audio
(arXiv 2504.18425), which is frozen for about a fifth of the tokens.

A frozen part is computed with gradients, which are then dropped: so all engines and processes do
the same in every step, the optimizer keeps nothing of that time, and its moments begin where the
part begins to train. Which step that is follows from the length of the run; a checkpoint lists the
parts that have begun to train, for a run may be made longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wenet_osum.config import PartConfig


def first_step(part: PartConfig, total_steps: int | None) -> int:
    """Return the first step (from 1) in which a part trains, of a run of ``total_steps``."""
    if not part.unfreeze:
        return 1
    assert total_steps, "config.rules lets no unfreeze through without a length"
    frozen = math.ceil(part.unfreeze * total_steps)
    return frozen + 1


def still_frozen(
    parts: Mapping[str, PartConfig],
    step: int,
    total_steps: int | None,
    begun: Sequence[str] = (),
) -> set[str]:
    """Return the parts that are frozen up to a step, by their patterns; those that have ``begun``
    are not."""
    late = set()
    for pattern, part in parts.items():
        if pattern not in begun and step < first_step(part, total_steps):
            late.add(pattern)
    return late


def drop_frozen_gradients(
    groups: Iterable[dict[str, Any]],
    parts: Mapping[str, PartConfig],
    step: int,
    total_steps: int | None,
    begun: Sequence[str] = (),
) -> list[str]:
    """Drop the gradients of parts that are frozen in ``step``; returns the patterns of those that
    train for the first time.

    ``groups`` are those of the optimizer, ``parts`` the train_parts of the run. Parts that have
    ``begun``, by their patterns, go on although the run has been made longer.
    """
    found: dict[str, None] = {}
    for group in groups:
        pattern = group["pattern"]
        if pattern in begun:
            continue
        begins = first_step(parts[pattern], total_steps)
        if step < begins:
            for parameter in group["params"]:
                parameter.grad = None
        elif begins > 1:
            found[pattern] = None
    return list(found)
