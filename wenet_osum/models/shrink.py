"""Fewer embeddings of speech: runs of states in which CTC hears the same become one.

Soundwave (arXiv 2502.12900) keeps the first state of each run, DirectSpeech2LLM and others its
mean. Which states make a run is CTC's best path and has no gradient; what they hold has.

Letters: B utterances, N states of the longest, S runs of the utterance with most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from wenet_osum.models.label_queries import front_names
from wenet_osum.tasks import parse

# What becomes of states in which CTC hears nothing.
BLANKS = ("keep", "pool", "drop")
RUNS = ("first", "mean")
NOWHERE = -1


@dataclass(frozen=True)
class Runs:
    """The states that make each embedding. All tensors are on the CPU."""

    weights: Tensor  # (B, S, N) float32: an embedding is the sum of states by its row
    lengths: Tensor  # (B,) int64, embeddings
    firsts: Tensor  # (B, N) bool: the state is the first of its embedding


def find_runs(
    labels: Tensor, lengths: Tensor, blank: int, blanks: str = "keep", runs: str = "first"
) -> Runs:
    """Find the runs of equal ``labels`` (B, N), CTC classes of ``lengths`` (B,) states.

    Runs of ``blank`` are kept as any other (``keep``), left out (``drop``), or all blank states of
    an utterance become one mean in front (``pool``). Where nothing else would remain, ``drop``
    does as ``pool`` does, so that there is always an embedding. ``runs``: the ``first`` state of a
    run stands for it, or their ``mean``. All tensors on the CPU.
    """
    places, pooled = _places(labels, lengths, blank, blanks)

    # One row of ones and zeros for each embedding: the states that belong to it.
    count = int(places.max()) + 1
    numbers = torch.arange(max(count, 1))
    members = places[:, None, :] == numbers[:, None]
    sizes = members.sum(2, keepdim=True).clamp(min=1)
    means = members.float() / sizes
    firsts = members & (members.cumsum(2) == 1)

    weights = means
    if runs == "first":
        # The blanks' common embedding is a mean even then: no blank stands for all others.
        is_pooled = members & pooled[:, None, :]
        weights = torch.where(is_pooled, means, firsts.float())
    kept = places.amax(1) + 1
    return Runs(weights, kept, firsts.any(1))


def _places(labels: Tensor, lengths: Tensor, blank: int, blanks: str) -> tuple[Tensor, Tensor]:
    """Number the embedding that each state belongs to, ``NOWHERE`` if to none: (B, N), and tell
    which states make the common embedding of blanks: (B, N) bool."""
    rows, longest = labels.shape
    ends = lengths[:, None]
    exists = torch.arange(longest) < ends
    silent = labels == blank
    if blanks == "keep":
        silent = torch.zeros_like(silent)

    # Runs of what is spoken are counted from 0 in each utterance.
    changed = torch.ones(rows, longest, dtype=torch.bool)
    changed[:, 1:] = labels[:, 1:] != labels[:, :-1]
    spoken = exists & ~silent
    begins = changed & spoken
    places = begins.cumsum(1) - 1

    # The blanks' common embedding stands in front of all others.
    pooled = exists & silent
    if blanks == "drop":
        pooled &= ~spoken.any(1, keepdim=True)
    places = places + pooled.any(1, keepdim=True)
    places = places.masked_fill(~spoken, NOWHERE)
    places = places.masked_fill(pooled, 0)
    return places, pooled


def answering(model: Any) -> dict[str, nn.Module]:
    """Return the modules that run for answers alone, by name."""
    found: dict[str, nn.Module] = {
        "llm": model.llm,
        "speech_boundary": model.speech_boundary,
    }
    adapter = model.adapter
    if hasattr(adapter, "shrinker"):
        found["adapter.shrinker"] = adapter.shrinker
    if front_names(adapter) and not _learns_labels(model):
        found["adapter.label_queries"] = adapter.label_queries
    return found


def _learns_labels(model: Any) -> bool:
    """Tell whether a loss hears the embeddings of label fields."""
    entries = model.objective.entries
    names = {entry["name"] for entry in entries}
    return "labels" in names


def check_trained(name: str, adapter: nn.Module, losses: Iterable[dict[str, Any]] | None) -> None:
    """Raise ValueError for an adapter that shrinks without CTC among the ``losses`` that its model
    is or was trained with."""
    entries = losses or ()
    names = [entry["name"] for entry in entries]
    if hasattr(adapter, "shrinker") and "ctc" not in names:
        raise ValueError(
            f"adapter {name} keeps what CTC hears, and this model was never trained with it; "
            "add {name: ctc, weight: 1.0} to model.losses, at first with ce_weight: 0"
        )


def check_tasks(unshrunk: Iterable[str]) -> tuple[str, ...]:
    """Return the tasks of adapter_conf ``unshrunk``. Raises ValueError for unknown ones."""
    names = (unshrunk,) if isinstance(unshrunk, str) else tuple(unshrunk)
    for name in names:
        try:
            _tags(name)
        except ValueError as error:
            raise ValueError(f"adapter_conf: unshrunk: {error}") from None
    return names


def keeps_all(task: str, unshrunk: Iterable[str]) -> bool:
    """Tell whether ``task`` asks for all that one of the tasks ``unshrunk`` asks for.

    Tasks are names or tags; an empty name asks for nothing. With ``srwt`` that is any task whose
    words have times. Raises ValueError for unknown tasks.
    """
    if not task:
        return False
    asked = _tags(task)
    return any(_tags(name) <= asked for name in unshrunk)


@lru_cache(maxsize=256)
def _tags(task: str) -> frozenset[str]:
    fields = parse(task).fields
    return frozenset(field.tag for field in fields)
