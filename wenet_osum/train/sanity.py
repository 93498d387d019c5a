"""Checks on the training itself, printed in the log: what should stand still stands still, what should learn learns.

frozen    every frozen tensor has the same fingerprint as before step 1
trained   in every trained part at least one tensor changed; those that did not are named
tasks     every task of the data had answer tokens with a loss weight
end       every answer ends with the end of text, once, and it carries loss
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from wenet_osum.records import Batch

_CHUNK = 1 << 22  # elements hashed at once: bounds the memory beside a large embedding
_WORD = (1 << 64) - 1


@dataclass
class SanityCheck:
    """The outcome of one check."""

    name: str
    passed: bool
    text: str

    def __str__(self) -> str:
        return f"sanity {self.name:8s} {'passed' if self.passed else 'FAILED'}: {self.text}"


@lru_cache(maxsize=2)
def _multipliers(device: torch.device) -> Tensor:
    return torch.arange(_CHUNK, device=device, dtype=torch.int64) * 0x9E3779B1 + 0x7F4A7C15


@torch.no_grad()
def fingerprint(tensor: Tensor) -> int:
    """A 64-bit linear hash of a tensor's bits, computed where it lies; of the local shard when it is distributed."""
    tensor = (tensor.to_local() if hasattr(tensor, "to_local") else tensor).detach().contiguous().flatten()
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    value = tensor.numel()
    for chunk in (tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor).view(whole).split(_CHUNK):
        mixed = (chunk.to(torch.int64) * _multipliers(chunk.device)[: len(chunk)]).sum().item()  # int64 wraps around
        value = (value * 1_000_003 + mixed) & _WORD
    return value


@dataclass
class SanityChecks:
    """Takes the fingerprints at the start, watches the batches, and judges at the end."""

    module: nn.Module
    part_of: dict[str, str]  # parameter name → the part whose pattern trains it
    end_id: int
    before: dict[str, int] = field(default_factory=dict)
    tokens: Counter = field(default_factory=Counter)  # task → answer tokens with a weight
    answers: int = 0
    bad_ends: list[str] = field(default_factory=list)  # keys, the first few

    def __post_init__(self) -> None:
        self.before = self._fingerprints()

    def _fingerprints(self) -> dict[str, int]:
        tensors = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: fingerprint(tensor) for name, tensor in tensors}

    def watch(self, batch: Batch) -> None:
        """Count loss tokens and ends of a micro-batch that still lies on the CPU."""
        if batch.filler:
            return
        weighted = (batch.answer_weights > 0).long()
        lasts = batch.answer_lengths.cumsum(0) - 1
        owner = torch.repeat_interleave(torch.arange(len(batch.keys)), batch.answer_lengths)
        per_answer = torch.zeros(len(batch.keys), dtype=torch.int64).index_add_(0, owner, weighted)
        ends = torch.zeros(len(batch.keys), dtype=torch.int64).index_add_(0, owner, (batch.answer_ids == self.end_id).long())
        good = (ends == 1) & (batch.answer_ids[lasts] == self.end_id) & (weighted[lasts] == 1)
        for task, count in zip(batch.tasks, per_answer.tolist(), strict=True):
            self.tokens[task] += count
        self.answers += len(batch.keys)
        if not bool(good.all()) and len(self.bad_ends) < 5:
            self.bad_ends += [key for key, fine in zip(batch.keys, good.tolist(), strict=True) if not fine][:5]

    def judge(self, gather: Callable[[Any], list[Any]], steps: int, promised: list[str], whole_epoch: bool) -> list[SanityCheck]:
        """All checks, over all processes; ``gather`` is dist.gather, ``steps`` the optimizer steps since the start of this process.

        ``promised`` tasks (tags) must have been met once a ``whole_epoch`` has gone by.
        """
        after = self._fingerprints()
        own = {"changed": {n for n, h in after.items() if h != self.before[n]}, "tokens": self.tokens, "answers": self.answers, "bad": self.bad_ends}
        rows = gather(own)
        changed = set().union(*(row["changed"] for row in rows))
        tokens = sum((row["tokens"] for row in rows), Counter())
        bad = [key for row in rows for key in row["bad"]]
        checks = [self._frozen(changed)]
        if steps:
            answers = sum(row["answers"] for row in rows)
            checks += [self._trained(changed), self._tasks(tokens, promised, whole_epoch), SanityCheck("end", not bad, _ends(answers, bad))]
        return checks

    def _frozen(self, changed: set[str]) -> SanityCheck:
        frozen = [name for name in self.before if name not in self.part_of]
        moved = [name for name in frozen if name in changed]
        text = f"changed though frozen: {', '.join(moved[:5])}" if moved else f"{len(frozen)} tensors unchanged"
        return SanityCheck("frozen", not moved, text)

    def _trained(self, changed: set[str]) -> SanityCheck:
        still = [name for name in self.part_of if name not in changed]
        parts = {part: [n for n, p in self.part_of.items() if p == part] for part in dict.fromkeys(self.part_of.values())}
        dead = [part for part, names in parts.items() if not changed.intersection(names)]
        text = f"{len(self.part_of) - len(still)} of {len(self.part_of)} tensors changed"
        text += f"; unchanged: {', '.join(still[:5])}{' …' * (len(still) > 5)}" if still else ""
        return SanityCheck("trained", not dead, f"nothing changed in {', '.join(dead)}; {text}" if dead else text)

    def _tasks(self, tokens: Counter, promised: list[str], whole_epoch: bool) -> SanityCheck:
        missing = [task for task in promised if not tokens[task]]
        text = "loss tokens: " + ", ".join(f"{task} {tokens[task]}" for task in sorted(tokens))
        text += f"; none yet for {', '.join(missing)}" if missing else ""
        return SanityCheck("tasks", not (missing and whole_epoch), text)


def _ends(answers: int, bad: list[str]) -> str:
    return f"not exactly once, last and weighted in {', '.join(bad[:5])}" if bad else f"end of text once in each of {answers} answers"
