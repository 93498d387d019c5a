"""What a model's forward returns, and the token losses it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

CHUNK = 1024  # answer positions whose logits exist at once; 0.6 GB in float32 at a vocabulary of 152k


@dataclass
class LossOutput(ModelOutput):
    """Sums over a micro-batch; the caller divides by the weight of all ranks and micro-batches. A: answer tokens of the batch, in order."""

    loss: Tensor | None = None  # scalar, ce_weight · Σ weight · nll + Σ of further losses (models/objective.py), not divided
    weight: Tensor | None = None  # scalar, Σ weight
    nll: Tensor | None = None  # (A,) float32, negative log-likelihood of each answer token, nats, without gradient
    correct: Tensor | None = None  # (A,) bool, the token is the most likely one
    speech_lengths: Tensor | None = None  # (B,) int64 on the CPU, LLM positions of the speech; None: the LLM did not run
    left_out: dict[str, Tensor] | None = None  # reason → utterances that a further loss could not count, int64


def token_losses(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood (A,) float32 and correctness (A,) bool of ``targets`` (A,) at ``hidden`` (A, H).

    More than ``CHUNK`` positions are done in pieces whose logits are computed again in the backward pass, so that memory does
    not grow with A × vocabulary.
    """
    if len(targets) <= CHUNK:
        return _losses(head, hidden, targets)
    pieces = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    if torch.is_grad_enabled():
        parts = [checkpoint(_losses, head, h, t, use_reentrant=False) for h, t in pieces]
    else:
        parts = [_losses(head, h, t) for h, t in pieces]
    return torch.cat([nll for nll, _ in parts]), torch.cat([correct for _, correct in parts])


def _losses(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float()
    correct = logits.detach().argmax(-1) == targets
    return functional.cross_entropy(logits, targets, reduction="none"), correct


def weighted(nll: Tensor, correct: Tensor, weights: Tensor | None) -> LossOutput:
    """Put token losses and their weights (A,) together; no weights means 1 each."""
    weights = torch.ones_like(nll) if weights is None else weights.to(nll)
    return LossOutput(loss=(nll * weights).sum(), weight=weights.sum(), nll=nll.detach(), correct=correct)
