"""A rehearsal before step 1: the longest micro-batches forward and backward, so that a shortage of memory shows now.

All that training will hold is there: the optimizer's moments, and from the second pass on the gradients of the passes before, as in accumulation.
The first micro-batch comes again at the end, so that every one has met full gradients.

It always makes at least two backward passes: DDP sorts its gradient buckets anew after the first, which changes the order of sums.
Fresh and resumed runs both start behind that point, and so add in the same order. Nothing of it stays: no gradient, no weight, no draw.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence

import torch

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.dataset import EpochLoader
from wenet_osum.records import Batch
from wenet_osum.train.dist import Engine
from wenet_osum.train.optim import Optimizer, fill_state

FILL = 0.85  # share of the memory that proposed budgets would take


def choose(loader: EpochLoader, longest: bool) -> list[Batch]:
    """The micro-batches to rehearse, the same on every process: the largest by each budget, else the epoch's first."""
    if longest:
        return list(loader.rehearsal())
    first, end = loader.plan.bounds[:2].tolist()
    return [loader.dataset.batch(first, end)]


def rehearse(engine: Engine, batches: Sequence[Batch], budget: BatchConfig, optimizer: Optimizer) -> str:
    """Run the batches and the first again (every process must bring equally many) and return a sentence about peak memory.

    Raises ValueError with smaller budgets when memory runs out.
    """
    assert batches, "a rehearsal needs a micro-batch"
    reset_peak()
    batch = batches[0]
    try:
        fill_state(optimizer)
        for batch in (*batches, batches[0]):
            with engine.accumulating(last=True):
                (engine.loss(batch).loss * 0.0).backward()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise ValueError(_proposal(batch, budget)) from None
    engine.module.zero_grad(set_to_none=True)
    longest = max(batches, key=lambda b: b.features.shape[0] * b.features.shape[1])
    return f"rehearsal: {len(batches) + 1} passes, up to {_size(longest)}, peak memory {peak_gib():.2f} GiB{_room(budget)}"


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower() or "can't allocate memory" in str(error)


def _size(batch: Batch) -> str:
    count, frames = batch.features.shape[:2]
    unit = "frames" if batch.states_after is None else "states"
    return f"{count} utterances × {frames} {unit} with {len(batch.answer_ids)} answer tokens"


def _proposal(batch: Batch, budget: BatchConfig) -> str:
    return (
        f"out of memory in the rehearsal with {_size(batch)} (batch.max_frames {budget.max_frames}, batch.max_tokens {budget.max_tokens}); "
        f"try batch.max_frames={max(3000, budget.max_frames * 6 // 10)} and batch.max_tokens={max(1000, budget.max_tokens * 6 // 10)} "
        "with a larger optim.accumulation, checkpointing=true, or engine=fsdp on several devices"
    )


def _room(budget: BatchConfig) -> str:
    """What the budgets could be, or should be, to take ``FILL`` of the memory there is. Weights count as if they grew along: that is on the safe side."""
    total = total_gib()
    share = FILL * total / max(peak_gib(), 1e-3)
    frames, tokens = int(budget.max_frames * share), int(budget.max_tokens * share)
    return f" of {total:.1f}; batch.max_frames={frames} and batch.max_tokens={tokens} would take {100 * FILL:.0f} % of it"


def total_gib() -> float:
    """Memory of the accelerator, or this process's part of the machine's."""
    if torch.accelerator.is_available():
        return torch.accelerator.get_memory_info()[1] / 2**30
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


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
