"""Check for out of memory before step 1, by rehearsing the largest micro-batches.

They run forward and backward, with all that training will hold: the optimizer's moments, and from
the second pass on the gradients of the passes before, as in accumulation; with FSDP those are this
process's share, in training as here. The first micro-batch comes again at the end, so that every
one has met full gradients.

A rehearsal makes at least two backward passes: DDP sorts its gradient buckets anew after the first,
which changes the order of sums. Fresh and resumed runs both start behind that point, and so add in
the same order. Nothing of a rehearsal stays: no gradient, no weight, no random draw.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence

import torch

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.dataset import EpochLoader
from wenet_osum.dist import Engine
from wenet_osum.models.llm import causal
from wenet_osum.records import Batch
from wenet_osum.train.optim import CombinedOptimizer, fill_state

# Bytes of a GiB.
GIB = 2**30
# Share of the memory that proposed budgets would take.
FILL = 0.85


def choose(loader: EpochLoader, longest: bool) -> list[Batch]:
    """Choose the micro-batches to rehearse, the same on every process.

    ``longest``: the largest by each budget; else the epoch's first.
    """
    if longest:
        return list(loader.rehearsal())
    first, end = loader.plan.bounds[:2].tolist()
    batch = loader.dataset.batch(first, end)
    return [batch]


def rehearse(
    engine: Engine, batches: Sequence[Batch], budget: BatchConfig, optimizer: CombinedOptimizer
) -> str:
    """Run the batches and the first again, and return sentences about peak memory and about the way
    attention ran.

    Every process must bring equally many. Raises ValueError, with smaller budgets to try, when
    memory runs out.
    """
    assert batches, "a rehearsal needs a micro-batch"
    reset_peak()
    batch = batches[0]
    try:
        fill_state(optimizer)
        with causal.noting_attention() as ways:
            for batch in (*batches, batches[0]):
                _pass(engine, batch)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise ValueError(_proposal(batch, budget)) from None
    engine.module.zero_grad(set_to_none=True)

    longest = max(batches, key=_padded_frames)
    passes = len(batches) + 1
    memory = f"peak memory {peak_gib():.2f} GiB{_room(budget)}"
    said = f"rehearsal: {passes} passes, up to {_size(longest)}, {memory}"
    return "\n".join([said, *ways])


def _pass(engine: Engine, batch: Batch) -> None:
    """Run forward and backward, with gradients of 0."""
    with engine.accumulating(last=True):
        loss = engine.loss(batch).loss
        nothing = loss * 0.0
        nothing.backward()


def _padded_frames(batch: Batch) -> int:
    count, frames, *_ = batch.features.shape
    return count * frames


def _out_of_memory(error: Exception) -> bool:
    """Tell a lack of memory, on a device or a CPU, from other errors."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text.lower() or "can't allocate memory" in text


def _size(batch: Batch) -> str:
    count, frames, *_ = batch.features.shape
    tokens = len(batch.answer_ids)
    unit = "frames"
    if batch.states_after is not None:
        unit = "states"
    speech = f"{count} utterances × {frames} {unit}"
    return f"{speech} with {tokens} answer tokens"


def _proposal(batch: Batch, budget: BatchConfig) -> str:
    """Say what ran out of memory, and propose six tenths of the budgets."""
    frames, tokens = budget.max_frames, budget.max_tokens
    fewer_frames = max(3000, frames * 6 // 10)
    fewer_tokens = max(1000, tokens * 6 // 10)
    size = _size(batch)
    return (
        f"out of memory in the rehearsal with {size} "
        f"(batch.max_frames {frames}, batch.max_tokens {tokens}); "
        f"try batch.max_frames={fewer_frames} and batch.max_tokens={fewer_tokens} "
        "with a larger optim.accumulation, checkpointing=true, or engine=fsdp on several devices"
    )


def _room(budget: BatchConfig) -> str:
    """Say which budgets would take ``FILL`` of the memory there is.

    Weights count as if they grew along: that is on the safe side.
    """
    total = total_gib()
    peak = max(peak_gib(), 1e-3)
    growth = FILL * total / peak
    frames = int(budget.max_frames * growth)
    tokens = int(budget.max_tokens * growth)
    percent = 100 * FILL
    return (
        f" of {total:.1f}; batch.max_frames={frames} and batch.max_tokens={tokens} "
        f"would take {percent:.0f} % of it"
    )


def total_gib() -> float:
    """Return the memory of the accelerator, or this process's part of the machine's, in GiB."""
    if torch.accelerator.is_available():
        _, total = torch.accelerator.get_memory_info()
        return total / GIB
    pages = os.sysconf("SC_PHYS_PAGES")
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    total = pages * page_bytes
    return total / GIB / processes


def reset_peak() -> None:
    """Forget the highest memory use so far, where the device counts it."""
    if torch.accelerator.is_available():
        torch.accelerator.reset_peak_memory_stats()


def peak_gib() -> float:
    """Return the highest memory use in GiB, of the accelerator or else of this process."""
    if torch.accelerator.is_available():
        return torch.accelerator.max_memory_allocated() / GIB
    # ru_maxrss counts KiB, on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * unit / GIB
