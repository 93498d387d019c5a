from __future__ import annotations

import math

import pytest
import torch

from wenet_osum.config import OptimConfig
from wenet_osum.train.optim import check_schedule, factor, fill_state, make_optimizer, set_rates


@pytest.mark.parametrize(
    ("schedule", "step", "share"),
    [
        ("inverse_sqrt", 1, 0.1),
        ("inverse_sqrt", 10, 1.0),
        ("inverse_sqrt", 40, 0.5),
        ("constant", 5, 0.5),
        ("constant", 90, 1.0),
        ("linear", 10, 1.0),
        ("linear", 60, 0.1 + 0.9 * 0.5),
        ("linear", 110, 0.1),
        ("cosine", 60, 0.1 + 0.9 * 0.5),
        ("cosine", 35, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))),
        ("cosine", 110, 0.1),
        ("cosine", 200, 0.1),
    ],
)
def test_schedule_values(schedule, step, share):
    conf = OptimConfig(warmup_steps=10, schedule=schedule, min_lr_ratio=0.1)
    assert factor(step, conf, 110) == pytest.approx(share)


def test_no_warmup_starts_at_the_peak():
    assert all(factor(1, OptimConfig(warmup_steps=0, schedule=s), 1000) > 0.99 for s in ("inverse_sqrt", "cosine", "linear", "constant"))


def test_falling_schedule_needs_an_end():
    with pytest.raises(ValueError, match="max_steps or max_epochs"):
        check_schedule(OptimConfig(schedule="cosine"), None, None)
    with pytest.raises(ValueError, match="never reached"):
        check_schedule(OptimConfig(warmup_steps=10), 5, None)
    check_schedule(OptimConfig(schedule="cosine", warmup_steps=2), None, 3)


def test_groups_keep_their_own_peak():
    a, b = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    optimizer = make_optimizer([{"params": [a], "lr": 1e-2}, {"params": [b], "lr": 1e-3}], OptimConfig(), torch.device("cpu"))
    assert set_rates(optimizer, 0.5) == pytest.approx(5e-3)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-3, 5e-4])


def test_filled_state_steps_like_an_empty_one():
    results = []
    for fill in (False, True):
        p = torch.nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
        optimizer = make_optimizer([{"params": [p], "lr": 1e-2}], OptimConfig(), torch.device("cpu"))
        if fill:
            fill_state(optimizer)
        p.grad = torch.linspace(1, 2, 6).reshape(2, 3)
        optimizer.step()
        results.append(p.detach().clone())
    assert torch.equal(*results)
