"""LoRA layers that read one input share its dropout, and cast nothing under autocast."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wenet_osum.config.tables import LoraConfig
from wenet_osum.models import lora, lora_input
from wenet_osum.models.llm import causal

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_lora(folders, rate: float, targets=ALL):
    llm = causal.read(str(folders / "untied"))
    torch.manual_seed(4)
    lora.add(llm, LoraConfig(r=2, dropout=rate, targets=targets))
    with torch.no_grad():
        for name, parameter in llm.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
            parameter.requires_grad_("lora_" in name)
    return llm.train()


def run(llm, half: bool = False):
    """Last states and the gradients of all adapters."""
    torch.manual_seed(0)
    states = torch.randn(9, 32)
    if half:
        states = states.bfloat16()
    cast = torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()
    with cast:
        out = causal.packed_forward(llm, states, causal.Packing([4, 5]))
    out.float().square().sum().backward()
    gradients = [p.grad for p in llm.parameters() if p.requires_grad]
    llm.zero_grad()
    return out, gradients


class Ops(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        widens = func.overloadpacket is torch.ops.aten._to_copy
        if widens and kwargs.get("dtype") == torch.float32 and args[0].shape[-1:] == (32,):
            self.counts["widened"] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
def test_without_dropout_it_gives_what_peft_gives(folders, monkeypatch, half):
    ours = with_lora(folders, 0.0)
    monkeypatch.setattr(lora_input, "share", lambda llm, name: None)
    theirs = with_lora(folders, 0.0)
    if half:
        for llm in (ours, theirs):
            for parameter in llm.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.bfloat16()
    (found, gradients), (expected, wanted) = run(ours, half), run(theirs, half)
    assert torch.equal(found, expected)
    for ours_grad, theirs_grad in zip(gradients, wanted, strict=True):
        assert torch.equal(ours_grad, theirs_grad)


def test_one_mask_for_all_that_read_an_input(folders):
    """Four inputs of a layer, not seven; all readers are given the same tensor."""
    llm = with_lora(folders, 0.5)
    given = {}

    def note(name):
        return lambda module, inputs: given.__setitem__(name, inputs[0])

    layer = llm.model.layers[0]
    for name in ALL:
        block = layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp
        getattr(block, name).lora_A["default"].register_forward_pre_hook(note(name))
    with Ops() as ops:
        run(llm)
    layers = len(llm.model.layers)
    assert ops.counts["native_dropout"] + ops.counts["bernoulli_"] == 4 * layers
    assert given["q_proj"] is given["k_proj"] is given["v_proj"]
    assert given["gate_proj"] is given["up_proj"]
    assert len({id(x) for x in given.values()}) == 4
    dropped = (given["q_proj"] == 0).float().mean()
    assert 0.3 < dropped < 0.7


def test_nothing_is_widened_under_autocast_and_nothing_is_kept(folders):
    llm = with_lora(folders, 0.5, ["q_proj", "v_proj", "up_proj"])
    for parameter in llm.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    states = torch.randn(9, 32).bfloat16()
    with Ops() as ops, torch.autocast("cpu", torch.bfloat16):
        causal.packed_forward(llm, states, causal.Packing([4, 5]))
    norms = 2 * len(llm.model.layers) + 1
    assert ops.counts["widened"] == norms, "norms alone compute in float32"
    shared = [m for m in llm.modules() if isinstance(m, lora_input.SharedInput)]
    assert len(shared) == 2 * len(llm.model.layers)
    assert all(m._given is None and m._made is None for m in shared)
    copy.deepcopy(llm)


def test_eval_mode_drops_nothing_and_names_are_those_of_before(folders, monkeypatch):
    llm = with_lora(folders, 0.5).eval()
    first, again = run(llm)[0], run(llm)[0]
    assert torch.equal(first, again)
    monkeypatch.setattr(lora_input, "share", lambda llm, name: None)
    assert list(llm.state_dict()) == list(with_lora(folders, 0.5).state_dict())


def test_eval_mode_is_what_no_dropout_gives(folders):
    dropping, plain = with_lora(folders, 0.5).eval(), with_lora(folders, 0.0).eval()
    assert torch.equal(run(dropping)[0], run(plain)[0])


def test_what_a_reader_left_behind_is_not_given_to_the_next_input():
    """Checkpointing may stop before the last reader of a block."""
    shared = lora_input.SharedInput(0.0, torch.nn.Linear(4, 2), readers=3)
    first, second = torch.randn(2, 5, 4)
    assert torch.equal(shared(first), first) and torch.equal(shared(second), second)
