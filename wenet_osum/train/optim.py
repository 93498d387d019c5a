"""AdamW or Muon, and the learning-rate schedule.

The learning rate is a function of the step alone, so there is no scheduler state to lose.

Muon (train/muon.py) makes the update of a matrix orthogonal. It is meant for the matrices inside
layer stacks; embeddings, heads, convolutions, norms and biases stay with AdamW (Loshchilov and
Hutter, 2019, arXiv 1711.05101). Small models trained from scratch learn several times faster with
it (examples/toy/RESULTS.md).
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from wenet_osum.config import OptimConfig
from wenet_osum.train.muon import Muon

# Matches the name of a parameter inside a numbered layer, except for LoRA's thin matrices.
STACKED = re.compile(r"\.\d+\.(?!.*\blora_)")


class CombinedOptimizer:
    """Use one or two optimizers of torch as one."""

    def __init__(self, members: list[torch.optim.Optimizer]) -> None:
        self.members = members

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of all members; each holds its peak rate under ``initial_lr``."""
        groups = []
        for member in self.members:
            groups += member.param_groups
        return groups

    def step(self) -> None:
        """Update all parameters that have a gradient."""
        for member in self.members:
            member.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=set_to_none)


def make_optimizer(
    groups: list[dict[str, Any]], conf: OptimConfig, device: torch.device
) -> CombinedOptimizer:
    """Make the optimizer over the groups of models/trainable.py (params, names, lr, weight_decay).

    Build it before the first forward pass, as FSDP2 asks.
    """
    adam, muon = [], []
    for group in groups:
        group = {"lr": conf.lr} | group
        if conf.name != "muon":
            adam.append(group)
            continue
        matrices, rest = _split(group)
        if matrices["params"]:
            # A part that trains at half the rate of AdamW gets half the rate of Muon too.
            rate = conf.muon_lr * group["lr"] / conf.lr
            muon.append(matrices | {"lr": rate})
        if rest["params"]:
            adam.append(rest)

    members: list[torch.optim.Optimizer] = []
    if adam:
        settings = {"betas": conf.betas, "eps": conf.eps, "weight_decay": conf.weight_decay}
        members.append(torch.optim.AdamW(adam, lr=conf.lr, fused=True, **settings))
    if muon:
        members.append(Muon(muon, lr=conf.muon_lr, weight_decay=conf.weight_decay))
    optimizer = CombinedOptimizer(members)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _split(group: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a group into the matrices inside layer stacks and the rest."""
    stacked = group | {"params": [], "names": []}
    rest = group | {"params": [], "names": []}
    for name, p in zip(group["names"], group["params"], strict=True):
        is_stacked = p.ndim == 2 and STACKED.search(name) is not None
        chosen = stacked if is_stacked else rest
        chosen["names"].append(name)
        chosen["params"].append(p)
    return stacked, rest


def lr_scale(step: int, conf: OptimConfig, total: int | None) -> float:
    """Return the learning rate of optimizer step ``step`` (from 1) as a share of the peak.

    ``total``, the number of steps of the run, is needed by the cosine and linear schedules.
    """
    warmup = conf.warmup_steps
    if step < warmup:
        return step / warmup
    if conf.schedule == "constant":
        return 1.0
    if conf.schedule == "inverse_sqrt":
        # Vaswani et al., 2017, "Attention is all you need", section 5.3.
        return math.sqrt(max(warmup, 1) / max(step, 1))

    # From the peak at the end of the warmup down to min_lr_ratio at the last step.
    assert total is not None, "check_schedule lets no falling schedule through without a length"
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    if conf.schedule == "cosine":
        height = 0.5 * (1.0 + math.cos(math.pi * done))
    else:
        height = 1.0 - done
    return conf.min_lr_ratio + (1.0 - conf.min_lr_ratio) * height


def check_schedule(conf: OptimConfig, max_steps: int | None, max_epochs: int | None) -> None:
    """Raise ValueError for a schedule that never reaches its end or its peak."""
    falls = conf.schedule in ("cosine", "linear")
    if falls and max_steps is None and max_epochs is None:
        raise ValueError(
            f"optim.schedule {conf.schedule} falls to an end: give max_steps or max_epochs, "
            "or use inverse_sqrt or constant"
        )
    if max_steps is not None and conf.warmup_steps > max_steps:
        raise ValueError(
            f"optim.warmup_steps {conf.warmup_steps} is more than max_steps {max_steps}: "
            "the peak rate is never reached; lower it"
        )


def set_learning_rates(optimizer: CombinedOptimizer, share: float) -> float:
    """Set every group to ``share`` of its peak; returns the highest learning rate."""
    groups = optimizer.param_groups
    for group in groups:
        group["lr"] = group["initial_lr"] * share
    return max(group["lr"] for group in groups)


def fill_state(optimizer: CombinedOptimizer) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
    """Give every parameter that has no state yet the one its optimizer starts from.

    Returns the state of every parameter, as {kind: tensor}.
    """
    states = {}
    for member in optimizer.members:
        for group in member.param_groups:
            for p in group["params"]:
                if not member.state[p]:
                    member.state[p] = _fresh(member, p, group)
        states |= member.state
    return states


def _fresh(
    member: torch.optim.Optimizer, p: torch.Tensor, group: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Make the state that ``member`` would make of ``p`` in its first step."""
    if isinstance(member, Muon):
        return member.fresh_state(p)
    # Fused AdamW counts its steps on the device.
    counter_device = p.device if group.get("fused") else "cpu"
    return {
        "step": torch.zeros((), dtype=torch.float32, device=counter_device),
        "exp_avg": torch.zeros_like(p),
        "exp_avg_sq": torch.zeros_like(p),
    }
