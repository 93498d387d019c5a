"""What a run has before it: its tasks, the length of its epochs, and where it ends."""

from __future__ import annotations

import math
from typing import NamedTuple

from wenet_osum.dataset.dataset import EpochLoader
from wenet_osum.dataset.pool import Pool
from wenet_osum.text.template import Template
from wenet_osum.train.checkpoint import State


class EpochLength(NamedTuple):
    """How many micro-batches there are, over all processes."""

    left: int  # of this epoch
    whole: int  # of a whole epoch
    per_step: int  # of one optimizer step


def epoch_length(
    state: State, loader: EpochLoader, pools: list[Pool], world_size: int, accumulation: int
) -> EpochLength:
    """Count the micro-batches of the epoch that ``loader`` opens and of a whole one."""
    left = len(loader) * world_size
    whole = left
    if state.consumed or state.earlier:
        # Scale what is left up to a whole epoch.
        draws = 0.0
        for pool in pools:
            draws += len(pool) * pool.source.weight
        left_draws = len(loader.plan.draws())
        whole = round(len(loader.plan) * draws / left_draws)
    return EpochLength(left, whole, world_size * accumulation)


def set_length(
    state: State, max_steps: int | None, max_epochs: int | None, epoch: EpochLength
) -> str | None:
    """Fix where the schedule ends: once per run, unless limits, plan or processes change.

    Returns a sentence when the end has moved.
    """
    key = f"{max_steps} steps, {max_epochs} epochs, {epoch.per_step} micro-batches per step"
    if state.length_key == key:
        return None
    if state.epoch_batches is None:
        state.epoch_batches = epoch.whole

    # The first limit that will be reached counts.
    ends = []
    if max_steps is not None:
        ends.append(max_steps)
    if max_epochs is not None:
        later_epochs = max(0, max_epochs - state.epoch - 1)
        batches = epoch.left + later_epochs * state.epoch_batches
        ends.append(state.step + math.ceil(batches / epoch.per_step))
    before, state.total_steps = state.total_steps, min(ends, default=None)
    state.length_key = key
    if state.total_steps == before:
        return None
    now = f"the schedule of the learning rate ends at step {state.total_steps}"
    return f"{now}, no longer at {before}"


def task_tags(hours: dict[str, float], template: Template) -> list[str]:
    """Return the tags of the tasks of a table by ``list/task``, sorted by their names."""
    names = set()
    for name in hours:
        _, _, task = name.rpartition("/")
        names.add(task)
    tasks = map(template.task, sorted(names))
    return [task.tags for task in tasks]
