"""The key-value cache of a batch of unfinished answers.

Letters: B answers, L cached positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache


class LLMPrompts:
    """The left-padded prompts of a batch, ``embeds`` (B, L, H) with ``mask`` (B, L), from which answers
    go on."""

    def __init__(self, llm: torch.nn.Module, embeds: Tensor, mask: Tensor) -> None:
        self.llm, self.embeds, self.mask = llm, embeds, mask

    def prefixes(self, rows: list[int], answers: list[list[int]]) -> Prefixes:
        """Return the prefixes of ``rows`` after their ``answers`` so far."""
        if not any(answers):
            return Prefixes(self.llm, self.embeds[rows], self.mask[rows])
        embed = self.llm.get_input_embeddings()
        parts = []
        for row, said in zip(rows, answers, strict=True):
            prompt = self.embeds[row][self.mask[row].bool()]
            ids = torch.tensor(said, dtype=torch.long, device=prompt.device)
            parts.append(torch.cat([prompt, embed(ids).to(prompt.dtype)]))
        longest = max(len(part) for part in parts)
        padded = [torch.nn.functional.pad(part, (0, 0, longest - len(part), 0)) for part in parts]
        lengths = torch.tensor([len(part) for part in parts])
        real = torch.arange(longest - 1, -1, -1) < lengths[:, None]
        return Prefixes(self.llm, torch.stack(padded), real.to(self.embeds.device))


class Prefixes:
    """Answers so far, left-padded, all ending at the same cache position, and the logits of their next tokens.

    ``embeds`` (B, L, H) and ``mask`` (B, L) are the left-padded prompts. Position ids count real tokens only.
    """

    scored_together = 64  # continuations in one forward pass: bounds the memory of the expanded cache

    def __init__(self, llm: torch.nn.Module, embeds: Tensor, mask: Tensor) -> None:
        self.llm = llm
        self.cache: Cache = DynamicCache()
        self._start({"inputs_embeds": embeds}, mask)

    def _start(self, inputs: dict[str, Tensor], mask: Tensor) -> None:
        """Run the model over the prompts."""
        self.mask = mask.long()
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.next = self.mask.sum(1)  # (B,) position of the next token
        # (B, V)
        self.logits = self._forward(inputs, self.mask, positions, self.cache, last=True)[:, -1]

    def _forward(
        self,
        inputs: dict[str, Tensor],
        mask: Tensor,
        positions: Tensor,
        cache: Cache,
        rows: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        """Run the model over new positions: logits (B, new, V), or (B, 1, V) of the ``last`` alone.

        ``mask`` (B, L + new) counts what the cache holds as well. ``rows``: the batch is these rows
        of the prefixes; None: all, in their order.
        """
        out = self.llm(
            **inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=int(last),
        )
        return out.logits.float()

    def feed(self, tokens: list[int]) -> None:
        """Append a token to every answer."""
        ids = torch.tensor(tokens, device=self.mask.device).unsqueeze(1)
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        positions = self.next.unsqueeze(1)
        self.logits = self._forward({"input_ids": ids}, self.mask, positions, self.cache, last=True)[:, -1]
        self.next = self.next + 1

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows (also repeated or reordered); padding that no row needs any more is cut."""
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        padding = int(mask.argmax(1).min())
        self.cache = self._selected(index, padding)
        self.mask, self.next, self.logits = mask[:, padding:], self.next[index], self.logits[index]

    def _selected(self, index: Tensor, padding: int = 0) -> Cache:
        return selected(self.cache, index, padding)

    def score(self, rows: list[int], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Log-probability of every continuation of the given rows, as a whole. The cache stays as it is."""
        pairs = [(row, ids) for row, options in zip(rows, continuations, strict=True) for ids in options]
        values: list[float] = []
        for start in range(0, len(pairs), self.scored_together):
            values += self._score_pairs(pairs[start : start + self.scored_together])
        values_left = iter(values)
        return [[next(values_left) for _ in options] for options in continuations]

    def _score_pairs(self, pairs: list[tuple[int, list[int]]]) -> list[float]:
        index = torch.tensor([row for row, _ in pairs], device=self.mask.device)
        logits = self.logits[index].unsqueeze(1)  # (pairs, 1, V)
        longest = max(len(ids) for _, ids in pairs)
        ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for _, ids in pairs], device=self.mask.device)
        real = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for _, ids in pairs], device=self.mask.device)
        if longest > 1:
            rest = self._forward(
                {"input_ids": ids[:, :-1]},
                torch.cat([self.mask[index], real[:, :-1]], dim=1),
                self.next[index].unsqueeze(1) + torch.arange(longest - 1, device=ids.device),
                self._selected(index),
                rows=index,
            )
            logits = torch.cat([logits, rest], dim=1)
        scores = logits.log_softmax(-1).gather(2, ids.unsqueeze(2)).squeeze(2)
        return (scores.double() * real).sum(1).tolist()


def selected(cache: DynamicCache, index: Tensor, padding: int = 0) -> DynamicCache:
    """Return the cache of the rows ``index`` (B,) without its first ``padding`` positions."""
    found = DynamicCache()
    for number, layer in enumerate(cache.layers):
        found.update(layer.keys[index, :, padding:], layer.values[index, :, padding:], number)
    return found
