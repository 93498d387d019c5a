from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wenet_osum.config import BatchConfig, OptimConfig
from wenet_osum.train import rehearse as module
from wenet_osum.train.optim import make_optimizer
from wenet_osum.train.rehearse import rehearse


class Engine:
    """Counts backward passes; may run out of memory."""

    def __init__(self, error: Exception | None = None) -> None:
        self.module, self.passes, self.error = nn.Linear(2, 1), 0, error
        self.full: list[bool] = []  # whether gradients of earlier passes were there, pass by pass

    def accumulating(self, last: bool):
        assert last, "gradients must be exchanged, or the buckets are not sorted anew"
        return contextlib.nullcontext()

    def loss(self, batch):
        if self.error:
            raise self.error
        self.passes += 1
        self.full.append(self.module.weight.grad is not None)
        return SimpleNamespace(loss=self.module(torch.ones(2)).sum())


BATCH = SimpleNamespace(features=torch.zeros(3, 50, 2), answer_ids=torch.zeros(7), states_after=None)


def optimizer_of(engine: Engine):
    return make_optimizer([{"params": list(engine.module.parameters()), "lr": 1.0}], OptimConfig(), torch.device("cpu"))


@pytest.mark.parametrize(("batches", "passes"), [(1, 2), (2, 3), (4, 5)])
def test_every_batch_meets_full_memory_and_leaves_no_trace(batches, passes):
    engine = Engine()
    before, optimizer = engine.module.weight.clone(), optimizer_of(engine)
    said = rehearse(engine, [BATCH] * batches, BatchConfig(), optimizer)
    assert engine.passes == passes and f"{passes} passes" in said and "3 utterances × 50 frames" in said
    assert engine.full == [False] + [True] * (passes - 1)
    assert all("exp_avg" in optimizer.members[0].state[p] for p in engine.module.parameters()), "moments take their place before step 1"
    assert engine.module.weight.grad is None and torch.equal(engine.module.weight, before)


def test_budgets_are_proposed_from_what_was_measured(monkeypatch):
    monkeypatch.setattr(module, "peak_gib", lambda: 10.0)
    for total, frames, tokens in ((80.0, 81600, 54400), (5.0, 5100, 3400)):
        monkeypatch.setattr(module, "total_gib", lambda total=total: total)
        said = rehearse(engine := Engine(), [BATCH], BatchConfig(), optimizer_of(engine))
        assert f"peak memory 10.00 GiB of {total}; batch.max_frames={frames} and batch.max_tokens={tokens} would take 85 %" in said


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_proposes_budgets(error):
    with pytest.raises(ValueError, match="batch.max_frames=7200 and batch.max_tokens=4800"):
        rehearse(engine := Engine(error), [BATCH], BatchConfig(), optimizer_of(engine))


def test_other_errors_stay_themselves():
    with pytest.raises(RuntimeError, match="shapes"):
        rehearse(engine := Engine(RuntimeError("shapes do not fit")), [BATCH], BatchConfig(), optimizer_of(engine))
