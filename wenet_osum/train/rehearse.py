"""A rehearsal before step 1: the longest micro-batches forward and backward, so that a shortage of memory shows now.

It always makes at least two backward passes: DDP sorts its gradient buckets anew after the first, which changes the order of sums.
Fresh and resumed runs both start behind that point, and so add in the same order. Nothing of it stays: no gradient, no weight, no draw.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from itertools import islice

import torch

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.dataset import EpochLoader
from wenet_osum.records import Batch
from wenet_osum.train.dist import Engine

PASSES = 2


def choose(loader: EpochLoader, longest: bool, device: torch.device) -> list[Batch]:
    """The micro-batches to rehearse, the same on every process: the largest by each budget, two of them on a CPU; else the epoch's first."""
    if longest:
        return list(islice(loader.rehearsal(), PASSES if device.type == "cpu" else None))
    first, end = loader.plan.bounds[:2].tolist()
    return [loader.dataset.batch(first, end)]


def rehearse(engine: Engine, batches: Sequence[Batch], budget: BatchConfig) -> str:
    """Run the batches (at least two passes; every process must bring equally many) and return a sentence about peak memory.

    Raises ValueError with smaller budgets when memory runs out.
    """
    assert batches, "a rehearsal needs a micro-batch"
    reset_peak()
    for number in range(max(PASSES, len(batches))):
        batch = batches[number % len(batches)]
        try:
            with engine.accumulating(last=True):
                (engine.loss(batch).loss * 0.0).backward()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise ValueError(_proposal(batch, budget)) from None
        engine.module.zero_grad(set_to_none=True)
    longest = max(batches, key=lambda b: b.features.shape[0] * b.features.shape[1])
    return f"rehearsal: {max(PASSES, len(batches))} passes, up to {_size(longest)}, peak memory {peak_gib():.2f} GiB{_room(budget)}"


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower() or "can't allocate memory" in str(error)


def _size(batch: Batch) -> str:
    count, frames = batch.features.shape[:2]
    return f"{count} utterances × {frames} frames with {len(batch.answer_ids)} answer tokens"


def _proposal(batch: Batch, budget: BatchConfig) -> str:
    return (
        f"out of memory in the rehearsal with {_size(batch)} (batch.max_frames {budget.max_frames}, batch.max_tokens {budget.max_tokens}); "
        f"try batch.max_frames={max(3000, budget.max_frames * 6 // 10)} and batch.max_tokens={max(1000, budget.max_tokens * 6 // 10)} "
        "with a larger optim.accumulation, checkpointing=true, or engine=fsdp on several devices"
    )


def _room(budget: BatchConfig) -> str:
    """What the budgets could be if 85 % of the device's memory were used; empty on CPUs."""
    if not torch.accelerator.is_available():
        return ""
    total = torch.accelerator.get_memory_info()[1] / 2**30
    share = 0.85 * total / max(peak_gib(), 1e-3)
    if share < 1.1:
        return f" of {total:.0f}"
    return f" of {total:.0f}; batch.max_frames {budget.max_frames * share:.0f} and batch.max_tokens {budget.max_tokens * share:.0f} should fit"


def reset_peak() -> None:
    """Forget the highest memory use so far, where the device counts it."""
    if torch.accelerator.is_available():
        torch.accelerator.reset_peak_memory_stats()


def peak_gib() -> float:
    """Highest memory use: of the accelerator where there is one, else of this process."""
    if torch.accelerator.is_available():
        return torch.accelerator.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts KiB, on macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
