"""Parts that begin to train later: when, with what moments, and after a stop."""

from __future__ import annotations

import pytest
import torch

from wenet_osum import config
from wenet_osum.config import OptimConfig, PartConfig
from wenet_osum.train import checkpoint, loop
from wenet_osum.train.loop import train
from wenet_osum.train.optim import fill_state, make_optimizer
from wenet_osum.train.unfreeze import drop_frozen_gradients, first_step, still_frozen

PARTS = {"late.*": PartConfig(unfreeze=0.4), "soon.*": PartConfig()}


def groups(model):
    made = []
    for name, module in model.items():
        params, names = [*module.parameters()], [f"{name}.{n}" for n, _ in module.named_parameters()]
        made.append({"params": params, "names": names, "pattern": f"{name}.*", "lr": 0.1, "weight_decay": 0.1})
    return made


def test_a_part_stands_still_and_then_trains_as_from_its_first_step():
    """No weight decay before, and the moments are those of a part that has never been held."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"late": torch.nn.Linear(3, 3), "soon": torch.nn.Linear(3, 3)})
    optimizer = make_optimizer(groups(model), OptimConfig(lr=0.1), torch.device("cpu"))
    before = model["late"].weight.detach().clone()
    draw = torch.Generator().manual_seed(1)
    known = []
    for step in range(1, 6):
        states = torch.randn(4, 3, generator=draw)
        model["late"](model["soon"](states)).square().sum().backward()
        begun = drop_frozen_gradients(optimizer.param_groups, PARTS, step, 5, known)
        assert begun == (["late.*"] if step == 3 else [])
        known += begun
        gradient = model["late"].weight.grad
        optimizer.step()
        optimizer.zero_grad()
        if step == 1:  # a checkpoint is written: the moments of all are there, and begin at 0
            fill_state(optimizer)
        if step < 3:
            assert gradient is None and torch.equal(model["late"].weight, before)
        if step == 3:
            # AdamW's first step moves every weight by the learning rate, beside the decay.
            moved = model["late"].weight.detach() - before * (1 - 0.1 * 0.1)
            torch.testing.assert_close(moved, -0.1 * gradient.sign(), atol=1e-3, rtol=0)
    steps = {int(state["step"]) for state in optimizer.members[0].state.values()}
    assert steps == {3, 5}


def test_a_part_that_has_begun_goes_on_in_a_run_that_is_made_longer():
    model = torch.nn.ModuleDict({"late": torch.nn.Linear(3, 3), "soon": torch.nn.Linear(3, 3)})
    optimizer = make_optimizer(groups(model), OptimConfig(lr=0.1), torch.device("cpu"))
    for begun, left in ((["late.*"], True), ([], False)):
        model["late"](model["soon"](torch.ones(1, 3))).sum().backward()
        assert drop_frozen_gradients(optimizer.param_groups, PARTS, 6, 50, begun) == []
        assert (model["late"].weight.grad is not None) == left
    assert still_frozen(PARTS, 6, 50) == {"late.*"} and still_frozen(PARTS, 6, 50, ["late.*"]) == set()


def test_when_a_part_begins():
    assert [first_step(PartConfig(unfreeze=share), 10) for share in (0.0, 0.01, 0.2, 0.25)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_parts": {"adapter.*": {"unfreeze": 1.0}}}, "unfreeze 1.0 must be a share"),
        ({"train_parts": {"adapter.*": {"unfreeze": -0.1}}}, "unfreeze -0.1 must be a share"),
        ({"max_steps": None, "max_hours": 1.0}, "unfreeze is a share of a run of known length"),
        ({"optim": {"name": "muon"}}, "unfreeze goes with optim.name adamw"),
    ],
)
def test_what_cannot_be(changes, message):
    tree = {"model": {"whisper": "w", "llm": "l"}, "max_steps": 10}
    tree |= {"train_parts": {"adapter.*": {}, "encoder.*": {"unfreeze": 0.2}}} | changes
    with pytest.raises(config.ConfigError, match=message):
        config.from_dict(tree)


@pytest.mark.slow
def test_a_run_goes_on_as_if_never_stopped(tiny, tmp_path, monkeypatch, weights_of):
    parts = tiny.tree()["train_parts"] | {"encoder.*": {"unfreeze": 0.5}}
    conf = tiny.conf(train_parts=parts, max_steps=4, eval_every=1, keep=4)
    assert train(conf, tmp_path / "whole") == 0
    folders = checkpoint.complete(tmp_path / "whole")
    steps = [weights_of(folder) for folder in folders]
    names = [name for name in steps[0] if ":encoder.layers" in name]
    log = (tmp_path / "whole/train.log").read_text(encoding="utf-8")
    assert "step 3: encoder.* begins to train" in log
    assert names and all(torch.equal(steps[0][name], steps[1][name]) for name in names)
    assert not any(torch.equal(steps[1][name], steps[2][name]) for name in names)

    original = loop.take_step

    def stopped(run, batches):
        if run.state.step == 1:
            raise KeyboardInterrupt
        original(run, batches)

    monkeypatch.setattr(loop, "take_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(conf, tmp_path / "parts")
    monkeypatch.setattr(loop, "take_step", original)
    assert train(conf, tmp_path / "parts") == 0
    ends = [weights_of(tmp_path / name / "final") for name in ("whole", "parts")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.slow
def test_sharded_parameters_stand_still_too(tiny, tmp_path, weights_of):
    """FSDP and DDP hold the part for as long, and give the same weights after every step."""
    parts = tiny.tree()["train_parts"] | {"encoder.*": {"unfreeze": 0.5}}
    found = []
    for engine in ("ddp", "fsdp"):
        conf = tiny.conf(train_parts=parts, max_steps=3, eval_every=1, keep=3, engine=engine)
        assert train(conf, tmp_path / engine) == 0
        found.append([weights_of(folder) for folder in checkpoint.complete(tmp_path / engine)])
    for replicated, sharded in zip(*found, strict=True):
        for name, weight in replicated.items():
            torch.testing.assert_close(sharded[name], weight, atol=1e-6, rtol=1e-5, msg=name)
    first, second, third = found[1]
    held = [name for name in first if ":encoder.layers" in name]
    assert held and all(torch.equal(first[name], second[name]) for name in held)
    assert not any(torch.equal(second[name], third[name]) for name in held)
