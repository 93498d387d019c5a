from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from wenet_osum.config import OptimConfig
from wenet_osum.train.checkpoint import State
from wenet_osum.train.optim import (
    check_schedule,
    fill_state,
    lr_scale,
    make_optimizer,
    set_learning_rates,
)
from wenet_osum.train.schedule import EpochLength, epoch_length, set_length


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
    assert lr_scale(step, conf, 110) == pytest.approx(share)


def test_no_warmup_starts_at_the_peak():
    assert all(lr_scale(1, OptimConfig(warmup_steps=0, schedule=s), 1000) > 0.99 for s in ("inverse_sqrt", "cosine", "linear", "constant"))


def test_falling_schedule_needs_an_end():
    with pytest.raises(ValueError, match="max_steps or max_epochs"):
        check_schedule(OptimConfig(schedule="cosine"), None, None)
    with pytest.raises(ValueError, match="never reached"):
        check_schedule(OptimConfig(warmup_steps=10), 5, None)
    check_schedule(OptimConfig(schedule="cosine", warmup_steps=2), None, 3)


def test_groups_keep_their_own_peak():
    a, b = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    optimizer = make_optimizer([{"params": [a], "lr": 1e-2}, {"params": [b], "lr": 1e-3}], OptimConfig(), torch.device("cpu"))
    assert set_learning_rates(optimizer, 0.5) == pytest.approx(5e-3)
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


def two_layers():
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(4, 6), torch.nn.Linear(6, 4)]), "head": torch.nn.Linear(4, 3)})
    names, params = zip(*model.named_parameters(), strict=True)
    return model, {"params": list(params), "names": list(names), "lr": 1e-3, "weight_decay": 0.0}


def test_muon_takes_the_stacked_matrices_and_nothing_else():
    model, group = two_layers()
    optimizer = make_optimizer([group], OptimConfig(name="muon", lr=2e-3, muon_lr=1e-2), torch.device("cpu"))
    kinds = {name: type(member).__name__ for member in optimizer.members for g in member.param_groups for name in g["names"]}
    assert {name for name, kind in kinds.items() if kind == "Muon"} == {"layers.0.weight", "layers.1.weight"}
    assert len(kinds) == 6
    peaks = [g["initial_lr"] for g in optimizer.param_groups]
    wanted = [pytest.approx(1e-3), pytest.approx(5e-3)]  # a part at half the rate gets half of muon_lr
    assert all(peak in wanted for peak in peaks) and all(peak in peaks for peak in wanted)


def test_muon_update_is_orthogonal_and_its_filled_state_steps_alike():
    results = []
    for fill in (False, True):
        model, group = two_layers()
        before = model["layers"][0].weight.detach().clone()
        optimizer = make_optimizer([group], OptimConfig(name="muon", lr=1e-3, muon_lr=1e-2, weight_decay=0.0), torch.device("cpu"))
        if fill:
            assert {kind for state in fill_state(optimizer).values() for kind in state} == {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
        torch.manual_seed(1)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        update = before - model["layers"][0].weight.detach()
        values = torch.linalg.svdvals(update / update.norm())
        assert values.max() / values.min() < 2.5, "Newton-Schulz brings all singular values near each other"
        results.append(model["layers"][0].weight.detach())
    assert torch.equal(*results)


def test_lora_matrices_stay_with_adamw():
    p = torch.nn.Parameter(torch.ones(8, 2))
    group = {"params": [p], "names": ["llm.model.layers.0.self_attn.q_proj.lora_A.default.weight"], "lr": 1e-3, "weight_decay": 0.0}
    optimizer = make_optimizer([group], OptimConfig(name="muon"), torch.device("cpu"))
    assert [type(m).__name__ for m in optimizer.members] == ["AdamW"]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_settings_reach_the_optimizers(name):
    _, group = two_layers()
    del group["weight_decay"]
    conf = OptimConfig(name=name, betas=(0.8, 0.9), eps=1e-5, weight_decay=0.3)
    members = make_optimizer([group], conf, torch.device("cpu")).members
    for member in members:
        for made in member.param_groups:
            assert made["weight_decay"] == 0.3
            if isinstance(member, torch.optim.AdamW):
                assert (made["betas"], made["eps"]) == ((0.8, 0.9), 1e-5)
    assert len(members) == (2 if name == "muon" else 1)


class Sized:
    """Stands in for what has a length and some facts."""

    def __init__(self, count, **facts):
        self.count = count
        vars(self).update(facts)

    def __len__(self):
        return self.count


def test_an_epoch_that_was_begun_is_measured_by_its_draws():
    """Half of 20 utterances that are drawn three times each is left, in 6 micro-batches: the whole has 12."""
    pool = Sized(20, source=SimpleNamespace(weight=3.0))
    loader = Sized(3, plan=Sized(6, draws=lambda: range(30)))
    assert epoch_length(State(consumed=4), loader, [pool], world_size=2, accumulation=1) == (6, 12, 2)


def test_the_schedule_ends_where_the_epochs_do_counted_from_here():
    """Of the second of three epochs 4 micro-batches are left, and one of 10 follows: 7 steps of 2."""
    state = State(step=10, epoch=1)
    assert set_length(state, None, 3, EpochLength(left=4, whole=10, per_step=2)) and state.total_steps == 17
    assert set_length(state, None, 3, EpochLength(left=2, whole=10, per_step=2)) is None, "once per run"
