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
        ids = batch.prompt_ids.cpu()
        lengths = batch.prompt_lengths.tolist()
        self.ids = ids.split(lengths)

    def prefixes(self, rows: list[int], answers: list[list[int]]) -> WhisperPrefixes:
        """Return the prefixes of ``rows`` after their ``answers`` so far."""
        start = torch.tensor([self.model.config.decoder_start_token_id])
        texts = []
        for row, said in zip(rows, answers, strict=True):
            prompt = self.ids[row]
            answer = torch.tensor(said, dtype=torch.int64)
            text = torch.cat([start, prompt, answer])
            texts.append(text)

        lengths = self.lengths[rows]
        longest = int(lengths.max())
        states = self.states[rows, :longest]
        return WhisperPrefixes(self.model, states, lengths, texts)


class WhisperPrefixes(Prefixes):
    """Answers so far over the encoder states (B, N, D) of ``lengths`` (B,)."""

    # A row's keys of the encoder states are far more than those of its text.
    scored_together = 8

    def __init__(
        self, model: WhisperPhase, states: Tensor, lengths: Tensor, texts: list[Tensor]
    ) -> None:
        self.model, self.states = model, states
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

        # (B, N), the states that exist
        device = states.device
        mask = valid_mask(lengths, states.shape[1], device)
        if mask is None:
            mask = torch.ones(states.shape[:2], dtype=torch.bool, device=device)
        self.heard = mask

        # Tokens are real where fewer of them follow than the text is long.
        ids = pad_sequence(texts, batch_first=True, padding_side="left")
        sizes = torch.tensor([len(text) for text in texts])
        from_end = torch.arange(ids.shape[1] - 1, -1, -1)
        real = from_end < sizes[:, None]
        self._start({"input_ids": ids.to(device)}, real.to(device))

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
        heard = self.heard
        if rows is not None:
            heard = heard[rows]
        cross = heard[:, None, None, :]
        causal = _causal(mask, ids.shape[1])

        # After the first pass the layers read the cached keys, and of the states only that they
        # are there.
        hidden = run_decoder(
            self.model.decoder,
            ids,
            self.states,
            cross,
            causal,
            positions,
            cache,
        )
        if last:
            hidden = hidden[:, -1:]
        logits = self.model.proj_out(hidden)
        return logits.float()

    def _selected(self, index: Tensor, padding: int = 0) -> EncoderDecoderCache:
        text = selected(self.cache.self_attention_cache, index, padding)
        speech = selected(self.cache.cross_attention_cache, index)
        return EncoderDecoderCache(text, speech)


def _causal(mask: Tensor, new: int) -> Tensor:
    """Return what the last ``new`` positions may look at: (B, 1, new, L), bool.

    These are positions that ``mask`` (B, L) says exist, up to their own. Each looks at itself, also
    padding: a softmax over nothing would be no number.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    query = positions[-new:, None]
    exists = mask.bool()
    seen = (positions <= query) & exists[:, None, :]
    itself = positions == query
    allowed = seen | itself
    return allowed[:, None]
