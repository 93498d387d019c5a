from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wenet_osum.config import BatchConfig
from wenet_osum.train.rehearse import rehearse


class Engine:
    """Counts backward passes; may run out of memory."""

    def __init__(self, error: Exception | None = None) -> None:
        self.module, self.passes, self.error = nn.Linear(2, 1), 0, error

    def accumulating(self, last: bool):
        assert last, "gradients must be exchanged, or the buckets are not sorted anew"
        return contextlib.nullcontext()

    def loss(self, batch):
        if self.error:
            raise self.error
        self.passes += 1
        return SimpleNamespace(loss=self.module(torch.ones(2)).sum())


BATCH = SimpleNamespace(features=torch.zeros(3, 50, 2), answer_ids=torch.zeros(7))


@pytest.mark.parametrize(("batches", "passes"), [(1, 2), (2, 2), (4, 4)])
def test_at_least_two_passes_and_no_trace(batches, passes):
    engine = Engine()
    before = engine.module.weight.clone()
    said = rehearse(engine, [BATCH] * batches, BatchConfig())
    assert engine.passes == passes and f"{passes} passes" in said and "3 utterances × 50 frames" in said and "GiB" in said
    assert engine.module.weight.grad is None and torch.equal(engine.module.weight, before)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_proposes_budgets(error):
    with pytest.raises(ValueError, match="batch.max_frames=7200 and batch.max_tokens=4800"):
        rehearse(Engine(error), [BATCH], BatchConfig())


def test_other_errors_stay_themselves():
    with pytest.raises(RuntimeError, match="shapes"):
        rehearse(Engine(RuntimeError("shapes do not fit")), [BATCH], BatchConfig())
