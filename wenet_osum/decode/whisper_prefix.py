"""Answers of phase 1 in the making: Whisper's decoder with a key-value cache.

    start token · prompt · answer

as in training (models/whisper.py), left-padded, so that all rows of a batch end at the same place.

Letters: B answers, L cached positions, N encoder states of the longest, D width, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from wenet_osum.decode.prefix import Prefixes, selected
from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.whisper import run_decoder

if TYPE_CHECKING:
    from wenet_osum.models.whisper import WhisperPhase
    from wenet_osum.records import Batch


class WhisperPrompts:
    """The prompts of a batch, from which answers go on."""

    def __init__(self, model: WhisperPhase, batch: Batch) -> None:
        self.model = model
        self.states, self.lengths = model.encoder(batch.features, batch.feature_lengths)
        self.ids = batch.prompt_ids.cpu().split(batch.prompt_lengths.tolist())

    def prefixes(self, rows: list[int], answers: list[list[int]]) -> WhisperPrefixes:
        """Return the prefixes of ``rows`` after their ``answers`` so far."""
        start = torch.tensor([self.model.config.decoder_start_token_id])
        texts = [
            torch.cat([start, self.ids[row], torch.tensor(said, dtype=torch.int64)])
            for row, said in zip(rows, answers, strict=True)
        ]
        lengths = self.lengths[rows]
        states = self.states[rows, : int(lengths.max())]
        return WhisperPrefixes(self.model, states, lengths, texts)


class WhisperPrefixes(Prefixes):
    """Answers so far over the encoder states (B, N, D) of ``lengths`` (B,)."""

    scored_together = 8  # a row's keys of the encoder states are far more than those of its text

    def __init__(
        self, model: WhisperPhase, states: Tensor, lengths: Tensor, texts: list[Tensor]
    ) -> None:
        self.model, self.states = model, states
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        mask = valid_mask(lengths, states.shape[1], states.device)
        whole = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        self.heard = whole if mask is None else mask  # (B, N), the states that exist
        ids = pad_sequence(texts, batch_first=True, padding_side="left").to(states.device)
        lengths = torch.tensor([len(text) for text in texts])
        places = torch.arange(ids.shape[1] - 1, -1, -1)
        self._start({"input_ids": ids}, (places < lengths[:, None]).to(states.device))

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows (also repeated or reordered)."""
        super().keep(rows)
        self.heard = self.heard[rows]

    def _forward(
        self,
        inputs: dict[str, Tensor],
        mask: Tensor,
        positions: Tensor,
        cache: EncoderDecoderCache,
        rows: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        ids = inputs["input_ids"]
        heard = self.heard if rows is None else self.heard[rows]
        cross, causal = heard[:, None, None, :], _causal(mask, ids.shape[1])
        # After the first pass the layers read the cached keys, and of the states only that they are there.
        hidden = run_decoder(self.model.decoder, ids, self.states, cross, causal, positions, cache)
        return self.model.proj_out(hidden[:, -1:] if last else hidden).float()

    def _selected(self, index: Tensor, padding: int = 0) -> EncoderDecoderCache:
        text = selected(self.cache.self_attention_cache, index, padding)
        speech = selected(self.cache.cross_attention_cache, index)
        return EncoderDecoderCache(text, speech)


def _causal(mask: Tensor, new: int) -> Tensor:
    """Return (B, 1, new, L) bool: what the last ``new`` positions may look at, of all that ``mask``
    (B, L) says exist.

    Each looks at itself, also padding: a softmax over nothing would be no number.
    """
    whole = torch.arange(mask.shape[1], device=mask.device)
    query = whole[-new:, None]
    seen = (whole <= query) & mask.bool()[:, None, :]
    return (seen | (whole == query))[:, None]
