"""The lines of a run's log. Nothing here changes what is trained."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from wenet_osum import dist
from wenet_osum.config import TrainConfig
from wenet_osum.dataset.dataset import EpochLoader
from wenet_osum.dataset.drop import table
from wenet_osum.dataset.pool import tell_long_targets
from wenet_osum.models import trainable
from wenet_osum.train import progress
from wenet_osum.train.checkpoint import State
from wenet_osum.train.progress import Progress


class LoggedRun(Protocol):
    """The attributes that the log reads of a run; ``run.Run`` has them."""

    conf: TrainConfig
    model: nn.Module
    world: dist.World
    progress: Progress
    state: State
    # Loads the current epoch.
    loader: EpochLoader
    # Parameter groups of the optimizer, each with a pattern of the yaml and a learning rate.
    groups: list[dict[str, Any]]
    # The checkpoint that was resumed, and the settings that have changed since.
    resumed_from: Path | None
    changes: list[str]
    # Step and monotonic time (s) at which this process started.
    start_step: int
    start_time: float
    # Learning rate and gradient norm of the last step.
    lr: float
    grad_norm: float


def header(run: LoggedRun, hours: dict[str, float]) -> None:
    """Write the head of the log: what trains, on what, from where.

    ``hours`` are those of the epoch by ``list/task``.
    """
    log, conf, world = run.progress.log, run.conf, run.world
    plan = run.loader.plan
    count = conf.optim.accumulation
    batches = "1 micro-batch" if count == 1 else f"{count} micro-batches"
    log(
        f"{world.size} × {world.device.type}, engine {conf.engine}, {conf.dtype}, "
        f"{batches} per step and process"
    )
    if run.resumed_from:
        _resumed(run)
    log(trainable.table(run.model, run.groups))
    rows = []
    for name, amount in sorted(hours.items()):
        rows.append(f"{name} {amount:.3g}")
    listed = ", ".join(rows)
    total = sum(hours.values())
    padding = 100 * plan.padding_share()
    log(
        f"epoch {run.state.epoch}, hours as planned by list/task: {listed}; "
        f"total {total:.3g}; padding {padding:.1f}%"
    )
    for line in tell_long_targets(plan.pools):
        log(line)
    length = run.state.total_steps
    warmup = conf.optim.warmup_steps
    if length is not None and warmup > length:
        log(
            f"warning: optim.warmup_steps {warmup} is more than the {length} steps of this run: "
            "the peak rate is never reached; lower it"
        )
    _counts(run, "utterances left out", plan.dropped)
    _counts(run, "utterances not asked a task", plan.restricted)


def _resumed(run: LoggedRun) -> None:
    """Say where the run goes on, and what has changed since."""
    log, state = run.progress.log, run.state
    folder = run.resumed_from.name
    log(f"resumed from {folder}: epoch {state.epoch}, micro-batch {state.consumed}")
    for line in run.changes:
        log(f"changed: {line}")
    if state.world_size != run.world.size:
        log(
            f"it was written by {state.world_size} processes: no sample is lost or repeated, "
            "sums differ in their last bits"
        )


def _counts(run: LoggedRun, title: str, counts: Counter) -> None:
    if counts:
        rows = table(counts)
        run.progress.log(f"{title}:\n{rows}")
        run.progress.count(run.state.step, title, counts)


def progress_line(run: LoggedRun, stats: dict[str, Any]) -> None:
    """Write a line of progress, and the same for TensorBoard and the report.

    ``stats`` are those of ``Run.collect_stats``.
    """
    state = run.state
    stats = dict(stats)
    dropped_now = stats.pop("dropped_now")
    where = (state.step, state.total_steps, state.epoch)
    left = _seconds_left(run)
    line = progress.line(*where, run.lr, run.grad_norm, stats, left)
    run.progress.log(line)
    if dropped_now:
        counts = []
        for reason, count in sorted(state.dropped.items()):
            counts.append(f"{reason} {count}")
        listed = ", ".join(counts)
        run.progress.log(f"left out so far: {listed}")

    # Parts in the order of the yaml, whose last pattern comes first in the groups.
    rates = {}
    for group in reversed(run.groups):
        rates[group["pattern"]] = group["lr"]
    tasks = stats.pop("tasks")
    run.progress.record(
        state.step,
        "train",
        tasks,
        lr=rates,
        grad_norm=run.grad_norm,
        epoch=state.epoch,
        dropped=state.dropped,
        **stats,
    )


def _seconds_left(run: LoggedRun) -> float | None:
    """Foresee the time to the end from the steps of this start, s."""
    state = run.state
    done = state.step - run.start_step
    if not state.total_steps or not done:
        return None
    per_step = (time.monotonic() - run.start_time) / done
    return per_step * (state.total_steps - state.step)
