"""Prompt, speech, suffix and answer of each utterance as embeddings of the LLM, in one row or
padded.

A conversation is several of them in one row, its turns (turns.py): of one that nobody answered
suffix and answer are empty, of one without a recording the speech and its borders.

Letters: B utterances, N turns of all of them, R their recordings (without conversations all three
are the same), P prompt and A answer tokens of all utterances, S speech embeddings of the longest, U
suffix tokens, L tokens of all utterances laid end to end, H width of the LLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wenet_osum.devices import to_device
from wenet_osum.models.lengths import spans, valid_mask

if TYPE_CHECKING:
    from wenet_osum.records import Batch
    from wenet_osum.turns import Turns

# Rows of speech_boundary.
START, END = 0, 1


@dataclass(frozen=True)
class Question:
    """The inputs of a model for B utterances, by the processor's names."""

    # (B, T, M) log-mel.
    features: Tensor
    # (B,) int64, frames.
    feature_lengths: Tensor
    # (P,) int64, all prompts end to end.
    prompt_ids: Tensor
    # (B,) int64.
    prompt_lengths: Tensor
    # (U,) int64, what stands behind the speech of all (text/chat.py); None: nothing does.
    suffix_ids: Tensor | None = None
    # Names or tags of what is asked, for adapters that shrink for some tasks only; None: for all.
    tasks: Sequence[str] | None = None
    # Of conversations: how their turns lie, and what was answered before, (A,) end to end with (N,)
    # lengths. Features are then those of R recordings, prompts those of N turns.
    turns: Turns | None = None
    answer_ids: Tensor | None = None
    answer_lengths: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch) -> Question:
        """Return what a batch asks: of its answers, those before the last of each utterance."""
        asked = cls(
            batch.features,
            batch.feature_lengths,
            batch.prompt_ids,
            batch.prompt_lengths,
            batch.suffix_ids,
            batch.recording_tasks(),
        )
        if batch.turns is None:
            return asked
        return replace(
            asked,
            turns=batch.turns,
            answer_ids=batch.answer_ids,
            answer_lengths=batch.answer_lengths,
        )

    @classmethod
    def split(
        cls, inputs: Iterable[Tensor], keywords: dict[str, Any]
    ) -> tuple[Question, dict[str, Any]]:
        """Take a question out of the arguments of a call, and return the other keywords too."""
        names = {field.name for field in fields(cls)}
        asked, others = {}, {}
        for name, value in keywords.items():
            if name in names:
                asked[name] = value
            else:
                others[name] = value
        return cls(*inputs, **asked), others


@dataclass(frozen=True)
class Pieces:
    """The parts of the input of each of N turns. Lengths are int64 on the CPU."""

    # (P,) end to end.
    prompt_ids: Tensor
    # (N,)
    prompt_lengths: Tensor
    # (R, S, H).
    speech: Tensor
    # (R,)
    speech_lengths: Tensor
    # (U,) the same for all; None: nothing.
    suffix_ids: Tensor | None = None
    # (A,) end to end; None: nothing.
    answer_ids: Tensor | None = None
    # (N,)
    answer_lengths: Tensor | None = None
    # None: each turn is an utterance of its own.
    turns: Turns | None = None

    def of_utterances(self, lengths: Tensor) -> Tensor:
        """Return the lengths (B,) of utterances from those of their turns (N,)."""
        return lengths if self.turns is None else self.turns.sum_turns(lengths)


def lay_out(embed: nn.Module, boundary: nn.Module, pieces: Pieces) -> tuple[Tensor, Tensor]:
    """Lay all turns end to end: (L, H), and their lengths (N,), on the CPU.

    ``embed`` gives token embeddings, ``boundary`` the two vectors around the speech. All of it is
    one gather from [text; padded speech; boundary].
    """
    nothing = pieces.prompt_ids[:0]
    suffix_ids = nothing if pieces.suffix_ids is None else pieces.suffix_ids
    answer_ids = nothing if pieces.answer_ids is None else pieces.answer_ids

    # The source: the tokens of all texts, embedded at once; all speech; the borders.
    ids = torch.cat([pieces.prompt_ids, suffix_ids, answer_ids])
    text = embed(ids)
    width = pieces.speech.shape[-1]
    speech = pieces.speech.reshape(-1, width)
    # Called, so that a device_map can bring its weight.
    borders = boundary(torch.arange(2, device=ids.device))
    source = torch.cat([text, speech.to(text), borders.to(text)])

    # Where each piece of each utterance lies in the source, in the order of the layout.
    starts, lengths = _places(pieces, len(suffix_ids), len(ids))
    index = spans(starts.flatten(), lengths.flatten())
    index = to_device(index, source.device)
    return source.index_select(0, index), lengths.sum(1)


def _places(pieces: Pieces, suffix: int, texts: int) -> tuple[Tensor, Tensor]:
    """Return where the six pieces of each turn begin in the source, and their lengths, both (N, 6).

    ``suffix`` counts the tokens behind the speech, ``texts`` all tokens.
    """
    prompts, speeches = pieces.prompt_lengths, pieces.speech_lengths
    rows, longest, _ = pieces.speech.shape
    row = torch.arange(rows)
    one = torch.ones_like(prompts)
    answers = pieces.answer_lengths
    if answers is None:
        answers = torch.zeros_like(prompts)

    # Which turns have a border around speech, and a suffix.
    border = one
    closed = one
    if pieces.turns is not None:
        spoken = pieces.turns.spoken
        border = spoken.long()
        closed = pieces.turns.closed.long()
        row = border.cumsum(0) - border
        speeches = torch.zeros_like(prompts)
        speeches[spoken] = pieces.speech_lengths

    # What of a turn lies end to end begins where the one before ends.
    prompt = prompts.cumsum(0) - prompts
    answer = answers.cumsum(0) - answers
    first_suffix = len(pieces.prompt_ids)
    first_answer = first_suffix + suffix
    first_border = texts + rows * longest
    starts = [
        prompt,
        one * (first_border + START),
        texts + row * longest,
        one * (first_border + END),
        one * first_suffix,
        first_answer + answer,
    ]
    lengths = [prompts, border, speeches, border, closed * suffix, answers]
    return torch.stack(starts, dim=1), torch.stack(lengths, dim=1)


def pad_left(embeddings: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Pad utterances end to end (L, H) with zeros before each: (B, L of the longest, H), and the
    mask of what is there, int64."""
    rows = len(lengths)
    longest = int(lengths.max())
    mask = valid_mask(lengths, longest)
    if mask is None:
        mask = torch.ones(rows, longest, dtype=torch.bool)

    # What is there on the left of a mask is there on the right of the mask turned round.
    mask = mask.flip(1).to(embeddings.device)
    width = embeddings.shape[1]
    padded = embeddings.new_zeros(rows, longest, width)
    padded[mask] = embeddings
    return padded, mask.long()
