"""AdamW and its learning-rate schedule. The rate is a function of the step alone, so there is no scheduler state to lose."""

from __future__ import annotations

import math
from typing import Any

import torch

from wenet_osum.config import OptimConfig


def make_optimizer(groups: list[dict[str, Any]], conf: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over the groups of ``models/parts.py``; each group keeps its peak rate under ``peak``. Build it before any forward (FSDP2)."""
    for group in groups:
        group["peak"] = group.get("lr", conf.lr)
    fused = device.type == "cuda"
    return torch.optim.AdamW(groups, lr=conf.lr, betas=conf.betas, eps=conf.eps, weight_decay=conf.weight_decay, fused=fused)


def factor(step: int, conf: OptimConfig, total: int | None) -> float:
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


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> float:
    """Set every group to ``share`` of its peak; returns the highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return max(group["lr"] for group in optimizer.param_groups)


def fill_state(optimizer: torch.optim.AdamW) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
    """Give every parameter the state AdamW starts from where it has none yet; returns the state by parameter."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if not optimizer.state[p]:
                step = torch.zeros((), dtype=torch.float32, device=p.device if group.get("fused") else "cpu")
                optimizer.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    return optimizer.state
