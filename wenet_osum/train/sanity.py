"""Check the training itself, and print in the log what came out.

frozen    every frozen tensor has the same fingerprint as before step 1
trained   in every trained part at least one tensor changed; those that did not are named
tasks     every task of the data had answer tokens with a loss weight
end       every answer ends with the end of text, once, and it carries loss
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from wenet_osum.records import Batch

# Elements hashed at once: bounds the memory that is needed beside a large embedding.
_CHUNK = 1 << 22
# Keeps 64 bits of a Python integer.
_WORD = (1 << 64) - 1
# Integers of as many bytes as an element of a tensor, to read its bits.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Names of tensors, or keys of utterances, that a check shows.
_SHOWN = 5


@dataclass
class SanityCheck:
    """The outcome of one check."""

    name: str
    passed: bool
    text: str

    def __str__(self) -> str:
        outcome = "passed" if self.passed else "FAILED"
        return f"sanity {self.name:8s} {outcome}: {self.text}"


@lru_cache(maxsize=2)
def _multipliers(device: torch.device) -> Tensor:
    """Return a factor of its own for each index of a chunk, so that moved values are seen."""
    index = torch.arange(_CHUNK, device=device, dtype=torch.int64)
    return index * 0x9E3779B1 + 0x7F4A7C15


@torch.no_grad()
def fingerprint(tensor: Tensor) -> int:
    """Hash a tensor's bits to 64 bits, on the device where it lies.

    Of a distributed tensor only the local shard is hashed.
    """
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    tensor = tensor.detach().contiguous().flatten()

    # Read the elements as integers of the same width. torch cannot view bool as another type.
    integer = _INTEGERS[tensor.element_size()]
    if tensor.dtype == torch.bool:
        tensor = tensor.to(torch.uint8)
    bits = tensor.view(integer)

    # A weighted sum of each chunk, in int64 that wraps around; then the chunks are folded.
    value = tensor.numel()
    for chunk in bits.split(_CHUNK):
        factors = _multipliers(chunk.device)[: len(chunk)]
        mixed = (chunk.to(torch.int64) * factors).sum().item()
        value = (value * 1_000_003 + mixed) & _WORD
    return value


@dataclass
class SanityChecks:
    """Take the fingerprints at the start, watch the batches, and judge at the end."""

    module: nn.Module
    # parameter name → the part whose pattern trains it
    part_of: dict[str, str]
    end_id: int
    # tensor name → fingerprint before the first step
    before: dict[str, int] = field(default_factory=dict)
    # task → answer tokens with a weight
    tokens: Counter = field(default_factory=Counter)
    answers: int = 0
    # keys of the first few answers that do not end as they should
    bad_ends: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = self._fingerprints()

    def _fingerprints(self) -> dict[str, int]:
        found = {}
        for name, parameter in self.module.named_parameters():
            found[name] = fingerprint(parameter)
        for name, buffer in self.module.named_buffers():
            found[name] = fingerprint(buffer)
        return found

    def watch(self, batch: Batch) -> None:
        """Count loss tokens and ends of a micro-batch that still lies on the CPU."""
        if batch.filler:
            return
        ids, weights = batch.answer_ids.tolist(), batch.answer_weights.tolist()
        bad = []
        start = 0
        lengths = batch.answer_lengths.tolist()
        owners = range(len(batch.keys)) if batch.turns is None else batch.turns.owners().tolist()
        for owner, length in zip(owners, lengths, strict=True):
            # A turn of a conversation may have no answer.
            if not length:
                continue
            key, task = batch.keys[owner], batch.tasks[owner]
            self.answers += 1

            # The answers lie end to end.
            end = start + length
            answer, weight = ids[start:end], weights[start:end]
            start = end
            self.tokens[task] += sum(w > 0 for w in weight)

            # The end of text stands once, last, and with a weight.
            once = answer.count(self.end_id) == 1
            if not (once and answer[-1] == self.end_id and weight[-1] > 0):
                bad.append(key)
        if len(self.bad_ends) < _SHOWN:
            self.bad_ends += bad[:_SHOWN]

    def judge(
        self,
        gather: Callable[[Any], list[Any]],
        steps: int,
        promised: list[str],
        whole_epoch: bool,
        late: Collection[str] = (),
    ) -> list[SanityCheck]:
        """Make all checks over all processes, which must call this together.

        ``gather`` is dist.gather, ``steps`` the optimizer steps since the start of this process:
        without any, only the frozen tensors are looked at. ``promised`` tasks (tags) must have
        been met once a ``whole_epoch`` has gone by. Parts that are ``late`` still stand still.
        """
        own_changed = set()
        for name, value in self._fingerprints().items():
            if value != self.before[name]:
                own_changed.add(name)
        own = (own_changed, self.tokens, self.answers, self.bad_ends)

        # Shards of a tensor lie on several processes: it has changed where any shard has.
        changed: set[str] = set()
        tokens: Counter = Counter()
        answers = 0
        bad_ends: list[str] = []
        for row_changed, row_tokens, row_answers, row_bad_ends in gather(own):
            changed |= row_changed
            tokens += row_tokens
            answers += row_answers
            bad_ends += row_bad_ends

        checks = [self._frozen(changed)]
        if steps:
            checks.append(self._trained(changed, late))
            checks.append(self._tasks(tokens, promised, whole_epoch))
            checks.append(_ends(answers, bad_ends))
        return checks

    def _frozen(self, changed: set[str]) -> SanityCheck:
        frozen, moved = [], []
        for name in self.before:
            if name in self.part_of:
                continue
            frozen.append(name)
            if name in changed:
                moved.append(name)
        text = f"{len(frozen)} tensors unchanged"
        if moved:
            text = f"changed though frozen: {_first(moved)}"
        return SanityCheck("frozen", not moved, text)

    def _trained(self, changed: set[str], late: Collection[str]) -> SanityCheck:
        # A part fails only when none of its tensors has moved: a bias may well stand still.
        unchanged = []
        moved: dict[str, int] = {}
        for name, part in self.part_of.items():
            moved.setdefault(part, 0)
            if name in changed:
                moved[part] += 1
            else:
                unchanged.append(name)
        dead = [part for part, count in moved.items() if count == 0 and part not in late]

        text = f"{sum(moved.values())} of {len(self.part_of)} tensors changed"
        if unchanged:
            text += f"; unchanged: {_first(unchanged)}"
        if len(unchanged) > _SHOWN:
            text += " …"
        if dead:
            text = f"nothing changed in {', '.join(dead)}; {text}"
        return SanityCheck("trained", not dead, text)

    def _tasks(self, tokens: Counter, promised: list[str], whole_epoch: bool) -> SanityCheck:
        counts = []
        for task, count in sorted(tokens.items()):
            counts.append(f"{task} {count}")
        listed = ", ".join(counts)
        text = f"loss tokens: {listed}"
        missing = [task for task in promised if not tokens[task]]
        if missing:
            text += f"; none yet for {', '.join(missing)}"
        failed = bool(missing) and whole_epoch
        return SanityCheck("tasks", not failed, text)


def _ends(answers: int, bad_ends: list[str]) -> SanityCheck:
    text = f"end of text once in each of {answers} answers"
    if bad_ends:
        text = f"not exactly once, last and weighted in {_first(bad_ends)}"
    return SanityCheck("end", not bad_ends, text)


def _first(names: list[str]) -> str:
    """Join the names that a check shows."""
    return ", ".join(names[:_SHOWN])
