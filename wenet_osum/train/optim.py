"""AdamW or Muon, and the learning-rate schedule. The rate is a function of the step alone, so there is no scheduler state to lose.

Muon (``train/muon.py``) makes the update of a matrix orthogonal. It is meant for the matrices inside layer stacks; embeddings,
heads, convolutions, norms and biases stay with AdamW. Small models trained from scratch learn several times faster with it (examples/toy/RESULTS.md).
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from wenet_osum.config import OptimConfig
from wenet_osum.train.muon import Muon

STACKED = re.compile(r"\.\d+\.(?!.*\blora_)")  # a parameter inside a numbered layer, LoRA's thin matrices apart


class Optimizer:
    """One or two optimizers of torch as one. ``param_groups`` are those of all."""

    def __init__(self, members: list[torch.optim.Optimizer]) -> None:
        self.members = members

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all members; each holds its peak rate under ``peak``."""
        return [group for member in self.members for group in member.param_groups]

    def step(self) -> None:
        """Update all parameters."""
        for member in self.members:
            member.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=set_to_none)


def make_optimizer(groups: list[dict[str, Any]], conf: OptimConfig, device: torch.device) -> Optimizer:
    """The optimizer over the groups of ``models/trainable.py`` (params, names, lr, weight_decay). Build it before any forward (FSDP2)."""
    adam, muon = [], []
    for group in groups:
        group = {"lr": conf.lr} | group
        matrices, rest = _split(group) if conf.name == "muon" else ({"params": []}, group)
        if matrices["params"]:
            muon.append(matrices | {"lr": conf.muon_lr * group["lr"] / conf.lr})
        if rest["params"]:
            adam.append(rest)
    members = []
    if adam:
        members.append(torch.optim.AdamW(adam, lr=conf.lr, betas=conf.betas, eps=conf.eps, weight_decay=conf.weight_decay, fused=True))
    if muon:
        members.append(Muon(muon, lr=conf.muon_lr, weight_decay=conf.weight_decay))
    optimizer = Optimizer(members)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def _split(group: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A group as its stacked matrices and the rest."""
    stacked = [p.ndim == 2 and STACKED.search(name) is not None for name, p in zip(group["names"], group["params"], strict=True)]
    parts = []
    for wanted in (True, False):
        chosen = {key: [v for v, s in zip(group[key], stacked, strict=True) if s == wanted] for key in ("params", "names")}
        parts.append(group | chosen)
    return parts[0], parts[1]


def lr_scale(step: int, conf: OptimConfig, total: int | None) -> float:
    """Learning rate of optimizer step ``step`` (from 1) as a share of the peak; ``total`` steps are needed by cosine and linear."""
    if step < conf.warmup_steps:
        return step / conf.warmup_steps
    if conf.schedule == "constant":
        return 1.0
    if conf.schedule == "inverse_sqrt":
        return math.sqrt(max(conf.warmup_steps, 1) / max(step, 1))
    assert total is not None, "check_schedule lets no falling schedule through without a length"
    done = min(1.0, (step - conf.warmup_steps) / max(1, total - conf.warmup_steps))
    height = 0.5 * (1.0 + math.cos(math.pi * done)) if conf.schedule == "cosine" else 1.0 - done
    return conf.min_lr_ratio + (1.0 - conf.min_lr_ratio) * height


def check_schedule(conf: OptimConfig, max_steps: int | None, max_epochs: int | None) -> None:
    """Raises ValueError when the schedule has to reach its end and nobody says where that is."""
    if conf.schedule in ("cosine", "linear") and max_steps is None and max_epochs is None:
        raise ValueError(f"optim.schedule {conf.schedule} falls to an end: give max_steps or max_epochs, or use inverse_sqrt or constant")
    if max_steps is not None and conf.warmup_steps > max_steps:
        raise ValueError(f"optim.warmup_steps {conf.warmup_steps} is more than max_steps {max_steps}: the peak rate is never reached; lower it")


def set_learning_rates(optimizer: Optimizer, share: float) -> float:
    """Set every group to ``share`` of its peak; returns the highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return max(group["lr"] for group in optimizer.param_groups)


def fill_state(optimizer: Optimizer) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
    """Give every parameter the state its optimizer starts from where it has none yet; returns the state by parameter."""
    for member in optimizer.members:
        for group in member.param_groups:
            for p in group["params"]:
                if not member.state[p]:
                    member.state[p] = _fresh(member, p, group)
    return {p: state for member in optimizer.members for p, state in member.state.items()}


def _fresh(member: torch.optim.Optimizer, p: torch.Tensor, group: dict[str, Any]) -> dict[str, torch.Tensor]:
    if isinstance(member, Muon):
        return member.fresh_state(p)
    step = torch.zeros((), dtype=torch.float32, device=p.device if group.get("fused") else "cpu")
    return {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
