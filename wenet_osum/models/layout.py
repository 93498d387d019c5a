"""Prompt, speech, suffix and answer of each utterance as embeddings of the LLM, in one row or padded.

Letters: B utterances, P prompt and A answer tokens of all utterances, S speech embeddings of the
longest, U suffix tokens, L tokens of all utterances laid end to end, H width of the LLM.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wenet_osum.models.lengths import spans, valid_mask

START, END = 0, 1  # rows of speech_boundary


@dataclass(frozen=True)
class Pieces:
    """What is laid out for each of B utterances. Lengths are (B,) int64 on the CPU."""

    prompt_ids: Tensor  # (P,) end to end
    prompts: Tensor  # lengths
    speech: Tensor  # (B, S, H)
    speeches: Tensor  # lengths
    suffix_ids: Tensor | None = None  # (U,) the same for all; None: nothing
    answer_ids: Tensor | None = None  # (A,) end to end; None: nothing
    answers: Tensor | None = None  # lengths


def lay_out(embed: nn.Module, boundary: nn.Module, pieces: Pieces) -> tuple[Tensor, Tensor]:
    """Lay all utterances end to end: (L, H), and their lengths (B,), on the CPU.

    ``embed`` gives token embeddings, ``boundary`` the two vectors around the speech. All of it is
    one gather from [text; padded speech; boundary].
    """
    prompts, speeches = pieces.prompts, pieces.speeches
    rows, longest, width = pieces.speech.shape
    zero, one, row = torch.zeros_like(prompts), torch.ones_like(prompts), torch.arange(rows)
    answers = zero if pieces.answers is None else pieces.answers

    # The tokens of all pieces, embedded at once.
    texts = [pieces.prompt_ids, pieces.suffix_ids, pieces.answer_ids]
    prompt_ids, suffix_ids, answer_ids = (pieces.prompt_ids[:0] if t is None else t for t in texts)
    ids = torch.cat([prompt_ids, suffix_ids, answer_ids])
    text = embed(ids)
    # Called, so that a device_map can bring its weight.
    borders = boundary(torch.arange(2, device=ids.device))
    source = torch.cat([text, pieces.speech.reshape(-1, width).to(text), borders.to(text)])

    # Where each piece of each utterance begins in the source, in the order of the layout.
    first_answer = len(prompt_ids) + len(suffix_ids)
    first_border = len(ids) + rows * longest
    starts = [
        prompts.cumsum(0) - prompts,
        one * (first_border + START),
        len(ids) + row * longest,
        one * (first_border + END),
        one * len(prompt_ids),
        first_answer + answers.cumsum(0) - answers,
    ]
    sizes = [prompts, one, speeches, one, one * len(suffix_ids), answers]
    lengths = torch.stack(sizes, dim=1)
    index = spans(torch.stack(starts, dim=1).flatten(), lengths.flatten())
    laid = source.index_select(0, index.to(source.device, non_blocking=True))
    return laid, lengths.sum(1)


def pad_left(embeddings: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Pad utterances end to end (L, H) with zeros before each: (B, L of the longest, H), and the
    mask of what is there, int64."""
    rows, longest = len(lengths), int(lengths.max())
    valid = valid_mask(lengths, longest)
    mask = torch.ones(rows, longest, dtype=torch.bool) if valid is None else valid.flip(1)
    mask = mask.to(embeddings.device)
    padded = embeddings.new_zeros(rows, longest, embeddings.shape[1])
    padded[mask] = embeddings
    return padded, mask.long()
