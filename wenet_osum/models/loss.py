"""The output of a model's forward, and the token losses it is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

# Answer positions whose logits exist at once; 0.6 GB in float32 at a vocabulary of 152k.
CHUNK = 1024


@dataclass
class LossOutput(ModelOutput):
    """Sums over a micro-batch; the caller divides by the weight of all ranks and micro-batches.

    A: answer tokens of the batch, in order.
    """

    # Scalar, ce_weight · Σ weight · nll + Σ of further losses (models/objective.py), not divided.
    loss: Tensor | None = None
    # Scalar, Σ weight.
    weight: Tensor | None = None
    # (A,) float32, negative log-likelihood of each answer token, nats, without gradient.
    nll: Tensor | None = None
    # (A,) bool, the token is the most likely one.
    correct: Tensor | None = None
    # (B,) int64 on the CPU, LLM positions of the speech; None: the LLM did not run.
    speech_lengths: Tensor | None = None
    # Name of a further loss → Σ over utterances, scalar, not times its weight, without gradient.
    further: dict[str, Tensor] | None = None
    # Reason → utterances that a further loss could not count, int64.
    left_out: dict[str, Tensor] | None = None


def token_losses(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the negative log-likelihood (A,) float32 and correctness (A,) bool of ``targets``
    (A,) at ``hidden`` (A, H).

    More than ``CHUNK`` positions are done in pieces whose logits are computed again in the backward
    pass, so that memory does not grow with A × vocabulary.
    """
    if len(targets) <= CHUNK:
        return _losses(head, hidden, targets)
    recompute = torch.is_grad_enabled()
    losses, right = [], []
    for states, ids in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
        if recompute:
            nll, correct = checkpoint(_losses, head, states, ids, use_reentrant=False)
        else:
            nll, correct = _losses(head, states, ids)
        losses.append(nll)
        right.append(correct)
    return torch.cat(losses), torch.cat(right)


def _losses(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    logits = head(hidden)
    logits = logits.float()
    likeliest = logits.detach().argmax(-1)
    nll = functional.cross_entropy(logits, targets, reduction="none")
    return nll, likeliest == targets


def weighted(nll: Tensor, correct: Tensor, weights: Tensor | None) -> LossOutput:
    """Put token losses and their weights (A,) together; no weights means 1 each."""
    if weights is None:
        weights = torch.ones_like(nll)
    weights = weights.to(nll)
    total = (nll * weights).sum()
    return LossOutput(
        loss=total,
        weight=weights.sum(),
        nll=nll.detach(),
        correct=correct,
    )
