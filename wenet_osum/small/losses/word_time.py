"""What lies in speech besides words, taught to the adapter directly.

A small LLM learns its tasks from written speech (text/written.py), where every frame carries faint tones on top of the word: the utterance's
labels, and from when to when its word is spoken (a frame of silence tells its own place). CTC on the adapter's output brings the words to where
that LLM looks for them; these losses bring the tones. Without them the adapter has to find out through the LLM's answers alone, and may not in a
few hundred steps.

Letters: B utterances, S frames (80 ms) of the longest, H width of the LLM, V vocabulary, F label fields, C tokens of all transcripts.
``frames`` (B, S, H) have length 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.sinusoids import moment_waves

LABEL_SCALE = 15.0  # logits a unit of cosine: a label is sure when its tone makes about a third of a frame
PLACE_SCALE = 15.0  # the same for places: PLACE_SPREAD is met when a start, or an end, makes about a third of a frame
PLACE_SPREAD = 0.7  # frames: standard deviation of the places that count as right


def label_losses(frames: Tensor, lengths: Tensor, labels: Tensor, words: list[list[list[int]]], table: Tensor) -> Tensor:
    """Cross-entropy (B,) of all known labels, summed over fields: the mean frame should point to the label's tokens, not to another's of its set.

    ``labels`` (B, F) as in ``records.Batch``, ``words`` the token ids by field and label, ``table`` (V, H) the LLM's embeddings.
    """
    mask = valid_mask(lengths, frames.shape[1], frames.device)
    heard = (frames if mask is None else frames * mask[:, :, None]).sum(1) / lengths.to(frames)[:, None]
    losses = frames.new_zeros(len(frames))
    for options, label in zip(words, labels.T, strict=True):
        means = torch.stack([table[torch.tensor(ids, device=table.device)].mean(0) for ids in options])
        logits = LABEL_SCALE * heard @ functional.normalize(means, dim=-1).T
        losses = losses + functional.cross_entropy(logits, label, ignore_index=-1, reduction="none")
    return losses


def stretches(times: Tensor | None, lengths: Tensor | None, rows: int, longest: int, frame_s: float) -> Tensor:
    """From when to when what each frame says is spoken (B, S, 2), in frames: its word where one is known to be spoken then, else the frame itself.

    ``times`` (C, 2) and ``lengths`` (B,) of the transcripts' tokens as in ``records.Batch``; None: no word is known.
    """
    own = torch.arange(longest, dtype=torch.float32)
    spans = torch.stack([own, own + 1], dim=-1).repeat(rows, 1, 1)
    if times is None or lengths is None:
        return spans
    times, lengths = times.cpu() / frame_s, lengths.cpu()
    row = torch.repeat_interleave(torch.arange(rows), lengths)
    middles = own + 0.5
    token, frame = ((times[:, :1] <= middles) & (middles < times[:, 1:]) & times.isfinite().all(1, keepdim=True)).nonzero(as_tuple=True)
    spans[row[token], frame] = times[token]
    return spans


def place_codes(places: Tensor, width: int) -> Tensor:
    """What a half of the channels of a frame of ``width`` would tell of each of ``places`` (P,), in frames: (P, width / 2), of length 1."""
    return functional.normalize(moment_waves(places, width // 2), dim=-1)


def place_logits(frames: Tensor, codes: Tensor) -> Tensor:
    """How well each place of ``codes`` (P, H / 2) fits what ``frames`` (…, H) tell of where their stretch starts and ends: (2, …, P).

    Start and end lie in a half of the channels each (``sinusoids.stretch_waves``).
    """
    return PLACE_SCALE * torch.stack(frames.chunk(2, dim=-1)) @ codes.T


def place_losses(frames: Tensor, lengths: Tensor, spans: Tensor) -> Tensor:
    """Cross-entropy (B,) of where each frame's stretch ``spans`` (B, S, 2) starts and ends, among all places of its utterance: the mean over frames.

    Places nearby are nearly as right.
    """
    longest = frames.shape[1]
    places = torch.arange(longest + 1, device=frames.device)
    exists = places <= lengths.to(frames.device)[:, None]  # (B, S + 1): an end may lie behind the last frame
    logits = place_logits(frames, place_codes(places, frames.shape[2]))
    found = sum(_place_losses(part, wanted, places, exists) for part, wanted in zip(logits, spans.to(frames.device).unbind(-1), strict=True))
    mask = valid_mask(lengths, longest, frames.device)
    found = found if mask is None else found * mask
    return found.sum(1) / lengths.to(frames)


def _place_losses(logits: Tensor, wanted: Tensor, places: Tensor, exists: Tensor) -> Tensor:
    """Cross-entropy (B, S) of the places ``wanted`` (B, S) among those that exist (B, S + 1)."""
    logits = logits.masked_fill(~exists[:, None, :], torch.finfo(logits.dtype).min)
    near = torch.exp(-((wanted[..., None] - places) ** 2) / (2 * PLACE_SPREAD**2)) * exists[:, None, :]
    near = near / near.sum(-1, keepdim=True).clamp(min=1e-9)  # a frame of the padding may have nobody near
    return -(near * logits.log_softmax(-1)).sum(-1)
