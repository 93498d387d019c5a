"""What a model's forward returns, and the token losses it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

MARGIN_S = 0.05  # how far from a word's time it may be said
BORDER_S = 0.03  # how far inside a word there may be a blank, also between a word and the same again
UNTIMELY = -20.0  # nats, for what is said at another time
CHUNK = 1024  # answer positions whose logits exist at once; 0.6 GB in float32 at a vocabulary of 152k


@dataclass
class LossOutput(ModelOutput):
    """Sums over a micro-batch; the caller divides by the weight of all ranks and micro-batches. A: answer tokens of the batch, in order."""

    loss: Tensor | None = None  # scalar, Σ weight · nll (phase 1: with the CTC share), not divided
    weight: Tensor | None = None  # scalar, Σ weight
    nll: Tensor | None = None  # (A,) float32, negative log-likelihood of each answer token, nats, without gradient
    correct: Tensor | None = None  # (A,) bool, the token is the most likely one
    impossible: Tensor | None = None  # scalar int64, utterances whose transcript is too long for their frames (CTC only)


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


def ctc_losses(
    logits: Tensor,
    lengths: Tensor,
    ids: Tensor | None,
    id_lengths: Tensor | None,
    blank: int,
    times: Tensor | None = None,
    state_s: float = 0.08,
    held: bool = False,
) -> tuple[Tensor, Tensor]:
    """CTC loss (Graves et al., 2006) of each utterance (B,) float32, zero where it is impossible, and how many are impossible.

    ``logits`` (B, N, V) of ``lengths`` (B,) states of ``state_s`` seconds; ``ids`` (C,) of all transcripts end to end. Where ``times`` (C, 2)
    says when a token is spoken, paths that say it elsewhere count next to nothing (alignment constraint, Senior et al., 2015, "Acoustic modelling
    with CD-CTC-sMBR LSTM RNNs"): a small model need not find out what is said where, and puts no word where none is spoken. ``held``: and inside a
    word there is no blank, so that all of its states learn from it and not the one where CTC puts its spike.
    Raises ValueError without transcripts.
    """
    if ids is None or id_lengths is None:
        raise ValueError("model.ctc_weight above 0 needs transcript_ids and transcript_lengths in the batch")
    logs, outside = logits.float().log_softmax(-1), None
    if times is not None and bool(times.isfinite().any()):
        timely = logs + _untimely(logits, ids, id_lengths, blank, times, state_s, held)
        share = timely.logsumexp(-1)  # ln of what is said of all that may be; torch's CTC gradient needs logs that add up to one
        logs = timely - share[..., None]
        outside = (share * (torch.arange(share.shape[1]) < lengths.cpu()[:, None]).to(share)).sum(1)
    logs = logs.transpose(0, 1)
    losses = functional.ctc_loss(logs, ids, lengths, id_lengths.cpu(), blank=blank, reduction="none")
    bad = losses.detach().isinf()
    if bool(bad.any()):  # an infinite loss has NaN gradients; zero_infinity makes both zero, but hides how many there were
        losses = functional.ctc_loss(logs, ids, lengths, id_lengths.cpu(), blank=blank, reduction="none", zero_infinity=True)
    return losses if outside is None else losses - outside.masked_fill(bad, 0.0), bad.sum()


def _untimely(logits: Tensor, ids: Tensor, id_lengths: Tensor, blank: int, times: Tensor, state_s: float, held: bool) -> Tensor:
    """What to add to the logs (B, N, V): 0 for what may be said, ``UNTIMELY`` for a token outside of its time, and for a blank inside a word if ``held``."""
    rows = torch.repeat_interleave(torch.arange(len(id_lengths)), id_lengths.cpu()).to(ids.device)
    starts, ends = times[:, :1], times[:, 1:]
    begins = torch.arange(logits.shape[1], device=times.device) * state_s
    added = torch.full_like(logits, UNTIMELY, dtype=torch.float32)
    token, state = ((begins + state_s > starts - MARGIN_S) & (begins < ends + MARGIN_S)).nonzero(as_tuple=True)
    added[rows[token], state, ids[token]] = 0.0
    added[..., blank] = 0.0
    if held:
        inside = (begins > starts + BORDER_S) & (begins + state_s < ends - BORDER_S) & starts.isfinite()
        token, state = inside.nonzero(as_tuple=True)
        added[rows[token], state, blank] = UNTIMELY
    return added


def any_weight(weights: Tensor | None, answers: Tensor, device: torch.device) -> Tensor:
    """(B,) float32: 1 for utterances with a weighted answer token, 0 for fillers."""
    if weights is None:
        return torch.ones(len(answers), device=device)
    row = torch.repeat_interleave(torch.arange(len(answers)), answers).to(device)
    return torch.zeros(len(answers), device=device).index_add_(0, row, (weights.to(device) != 0).float()).clamp(max=1)


def with_ctc(output: LossOutput, share: float, ctc: Tensor, impossible: Tensor, heard: Tensor) -> LossOutput:
    """The output with (1 - share) · its loss + share · Σ CTC loss (B,) of the utterances that are ``heard``."""
    output.loss = (1 - share) * output.loss + share * (ctc * heard).sum()
    output.impossible = impossible
    return output
