"""The key-value cache of a batch of unfinished answers.

Letters: B answers, L cached positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicCache

from wenet_osum.models.llm.causal import last_position


class Prompts(Protocol):
    """The inputs before the answers of a batch, for any kind of model."""

    def prefixes(self, rows: list[int], answers: list[list[int]]) -> Prefixes:
        """Return the prefixes of ``rows`` after their ``answers`` so far."""


class LLMPrompts:
    """The left-padded prompts of a batch, from which an LLM's answers go on.

    ``embeds`` are (B, L, H), ``mask`` (B, L) is 0 for padding; ``kind`` keeps the cache.
    """

    def __init__(
        self,
        llm: torch.nn.Module,
        embeds: Tensor,
        mask: Tensor,
        kind: type[Prefixes] | None = None,
    ) -> None:
        self.llm = llm
        self.embeds, self.mask = embeds, mask
        self.kind = kind or Prefixes

    def prefixes(self, rows: list[int], answers: list[list[int]]) -> Prefixes:
        """Return the prefixes of ``rows`` after their ``answers`` so far."""
        if not any(answers):
            embeds, mask = self.embeds[rows], self.mask[rows]
            return self.kind(self.llm, embeds, mask)

        # Each prompt without its padding, and the answer behind it.
        embed = self.llm.get_input_embeddings()
        parts = []
        for row, said in zip(rows, answers, strict=True):
            real = self.mask[row].bool()
            prompt = self.embeds[row][real]
            ids = torch.tensor(said, dtype=torch.long, device=prompt.device)
            answer = embed(ids)
            answer = answer.to(prompt.dtype)
            parts.append(torch.cat([prompt, answer]))

        # Padded anew on the left.
        lengths = torch.tensor([len(part) for part in parts])
        longest = int(lengths.max())
        padded = []
        for part in parts:
            missing = longest - len(part)
            on_left = (0, 0, missing, 0)
            padded.append(functional.pad(part, on_left))
        embeds = torch.stack(padded)

        # Tokens are real where fewer of them follow than the text is long.
        from_end = torch.arange(longest - 1, -1, -1)
        mask = from_end < lengths[:, None]
        return self.kind(self.llm, embeds, mask.to(embeds.device))


class Prefixes:
    """Answers so far, left-padded, all ending at the same cache position."""

    # Continuations in one forward pass. It bounds the memory of the expanded cache.
    scored_together = 64

    # What the cache holds: (B, L), 0 for padding.
    mask: Tensor
    # The position id (B,) of the next token, which counts real tokens only.
    next: Tensor
    # The logits (B, V) of the next token.
    logits: Tensor
    # Those (B, n, V) behind tokens that are not settled yet.
    proposed: Tensor | None = None

    # -- the cache, and its rows --------------------------------------------------------------

    def __init__(self, llm: torch.nn.Module, embeds: Tensor, mask: Tensor) -> None:
        """Begin with the left-padded prompts, ``embeds`` (B, L, H) and ``mask`` (B, L)."""
        self.llm = llm
        self.cache: Cache = DynamicCache()
        self._start({"inputs_embeds": embeds}, mask)

    def _start(self, inputs: dict[str, Tensor], mask: Tensor) -> None:
        """Run the model over the prompts."""
        self.mask = mask.long()
        self.next = self.mask.sum(1)
        positions = self.mask.cumsum(1) - 1
        self._read(inputs, positions.clamp(min=0))

    def _read(self, inputs: dict[str, Tensor], positions: Tensor) -> None:
        """Run the model over what ``mask`` counts and the cache lacks, for the next logits."""
        logits = self._forward(
            inputs,
            self.mask,
            positions,
            self.cache,
            last=True,
        )
        self.logits = logits[:, -1]

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
        wanted = last_position(mask.device) if last else 0
        out = self.llm(
            **inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=wanted,
        )
        return out.logits.float()

    def feed(self, tokens: list[int]) -> None:
        """Append a token to every answer."""
        ids = torch.tensor(tokens, device=self.mask.device)
        ids = ids.unsqueeze(1)
        real = torch.ones_like(ids)
        self.mask = torch.cat([self.mask, real], dim=1)
        positions = self.next.unsqueeze(1)
        self._read({"input_ids": ids}, positions)
        self.next = self.next + 1

    def propose(self, tokens: list[list[int]]) -> Tensor:
        """Append tokens to every answer, at least one, of which ``settle`` will take some back.

        Returns the logits (B, n, V) behind each of n tokens, the most that a row has.
        """
        device = self.mask.device
        ids, real = _right_padded(tokens)
        ids, real = ids.to(device), real.to(device)

        steps = torch.arange(ids.shape[1], device=device)
        begin = self.next.unsqueeze(1)
        mask = torch.cat([self.mask, real], dim=1)
        self.proposed = self._forward(
            {"input_ids": ids},
            mask,
            begin + steps,
            self.cache,
        )
        return self.proposed

    def settle(self, lengths: list[int]) -> None:
        """Keep the first ``lengths`` (B,) of the tokens proposed, at least one of each row.

        The others stay in the cache as what nothing looks at.
        """
        assert self.proposed is not None, "propose comes first"
        device = self.mask.device
        kept = torch.tensor(lengths, device=device)
        rows, longest, _ = self.proposed.shape
        places = torch.arange(longest, device=device)
        real = places < kept.unsqueeze(1)
        self.mask = torch.cat([self.mask, real.long()], dim=1)
        self.next = self.next + kept

        # The next token is said where the last one that is kept was read.
        row = torch.arange(rows, device=device)
        self.logits = self.proposed[row, kept - 1]
        self.proposed = None

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, also repeated or reordered.

        Padding that no row needs any more is cut.
        """
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        # The first real token of each row; what is before the earliest is padding everywhere.
        begins = mask.argmax(1)
        padding = int(begins.min())
        self.cache = self._selected(index, padding)
        self.mask = mask[:, padding:]
        self.next = self.next[index]
        self.logits = self.logits[index]

    def _selected(self, index: Tensor, padding: int = 0) -> Cache:
        return selected(self.cache, index, padding)

    # -- scoring ------------------------------------------------------------------------------

    def score(self, rows: list[int], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Return the log-probability of every continuation of the given rows, as a whole.

        ``continuations`` has, for each row, lists of token ids. The cache stays as it is.
        """
        pairs = []
        for row, options in zip(rows, continuations, strict=True):
            for ids in options:
                pairs.append((row, ids))
        values: list[float] = []
        for start in range(0, len(pairs), self.scored_together):
            part = pairs[start : start + self.scored_together]
            values += self._score_pairs(part)

        # Back into the rows that they belong to.
        scores, begin = [], 0
        for options in continuations:
            end = begin + len(options)
            scores.append(values[begin:end])
            begin = end
        return scores

    def _score_pairs(self, pairs: list[tuple[int, list[int]]]) -> list[float]:
        """Return the log-probabilities of pairs of a row and what continues it."""
        device = self.mask.device
        rows = [row for row, _ in pairs]
        index = torch.tensor(rows, device=device)
        ids, real = _right_padded([ids for _, ids in pairs])
        ids, real = ids.to(device), real.to(device)

        # The first tokens are scored by the logits that are there, (pairs, 1, V). Each later one is
        # scored where the one before it has been read, on a copy of the rows' cache.
        logits = self.logits[index].unsqueeze(1)
        later = ids.shape[1] - 1
        if later:
            steps = torch.arange(later, device=device)
            begin = self.next[index].unsqueeze(1)
            mask = torch.cat([self.mask[index], real[:, :-1]], dim=1)
            rest = self._forward(
                {"input_ids": ids[:, :-1]},
                mask,
                begin + steps,
                self._selected(index),
                rows=index,
            )
            logits = torch.cat([logits, rest], dim=1)

        # Padding counts nothing.
        logs = logits.log_softmax(-1)
        scores = logs.gather(2, ids.unsqueeze(2))
        scores = scores.squeeze(2).double()
        return (scores * real).sum(1).tolist()


def _right_padded(lists: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return token ids, padded to the longest list, and 1 where they are real.

    Both are (lists, longest).
    """
    longest = max(len(ids) for ids in lists)
    padded, real = [], []
    for ids in lists:
        # Padding is a token id like any other: only ``real`` tells it apart.
        size = len(ids)
        missing = [0] * (longest - size)
        ones = [1] * size
        padded.append(ids + missing)
        real.append(ones + missing)
    return torch.tensor(padded), torch.tensor(real)


def selected(cache: Cache, index: Tensor, padding: int = 0, end: int | None = None) -> DynamicCache:
    """Return the cache of the rows ``index`` (B,) without its first ``padding`` positions, and up
    to ``end`` where it is not full."""
    found = DynamicCache()
    for number, layer in enumerate(cache.layers):
        keys = layer.keys[index, :, padding:end]
        values = layer.values[index, :, padding:end]
        found.update(keys, values, number)
    return found
