"""The key-value cache of a batch of unfinished answers.

Letters: B answers, L cached positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

SCORED_TOGETHER = 64  # continuations in one forward pass: bounds the memory of the expanded cache


class Prefixes:
    """Answers so far, left-padded, all ending at the same cache position, and the logits of their next tokens.

    ``embeds`` (B, L, H) and ``mask`` (B, L) are the left-padded prompts. Position ids count real tokens only.
    """

    def __init__(self, llm: torch.nn.Module, embeds: Tensor, mask: Tensor) -> None:
        self.llm, self.cache = llm, DynamicCache()
        self.mask = mask.long()
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.next = self.mask.sum(1)  # (B,) position of the next token
        out = llm(
            inputs_embeds=embeds, attention_mask=self.mask, position_ids=positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        self.logits = out.logits[:, -1].float()  # (B, V)

    def feed(self, tokens: list[int]) -> None:
        """Append a token to every answer."""
        ids = torch.tensor(tokens, device=self.mask.device).unsqueeze(1)
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        out = self.llm(
            input_ids=ids, attention_mask=self.mask, position_ids=self.next.unsqueeze(1), past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        self.logits, self.next = out.logits[:, -1].float(), self.next + 1

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows (also repeated or reordered); padding that no row needs any more is cut."""
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        padding = int(mask.argmax(1).min())
        self.cache = self._selected(index, padding)
        self.mask, self.next, self.logits = mask[:, padding:], self.next[index], self.logits[index]

    def _selected(self, index: Tensor, padding: int = 0) -> DynamicCache:
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            cache.update(layer.keys[index, :, padding:], layer.values[index, :, padding:], number)
        return cache

    def score(self, rows: list[int], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Log-probability of every continuation of the given rows, as a whole. The cache stays as it is."""
        pairs = [(row, ids) for row, options in zip(rows, continuations, strict=True) for ids in options]
        values: list[float] = []
        for start in range(0, len(pairs), SCORED_TOGETHER):
            values += self._score_pairs(pairs[start : start + SCORED_TOGETHER])
        values_left = iter(values)
        return [[next(values_left) for _ in options] for options in continuations]

    def _score_pairs(self, pairs: list[tuple[int, list[int]]]) -> list[float]:
        index = torch.tensor([row for row, _ in pairs], device=self.mask.device)
        logits = self.logits[index].unsqueeze(1)  # (pairs, 1, V)
        longest = max(len(ids) for _, ids in pairs)
        ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for _, ids in pairs], device=self.mask.device)
        real = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for _, ids in pairs], device=self.mask.device)
        if longest > 1:
            rest = self.llm(
                input_ids=ids[:, :-1],
                attention_mask=torch.cat([self.mask[index], real[:, :-1]], dim=1),
                position_ids=self.next[index].unsqueeze(1) + torch.arange(longest - 1, device=ids.device),
                past_key_values=self._selected(index),
                use_cache=True,
            )
            logits = torch.cat([logits, rest.logits.float()], dim=1)
        scores = logits.log_softmax(-1).gather(2, ids.unsqueeze(2)).squeeze(2)
        return (scores.double() * real).sum(1).tolist()
