"""What the LLM hears of the adapter's embeddings: shrunk where the adapter shrinks, with the time
written in where words are to get times.

Letters: B utterances, N embeddings of the longest, H width of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wenet_osum.models import time_marks
from wenet_osum.models.label_queries import front_names, split_front
from wenet_osum.models.shrink import keeps_all


def speech_for_llm(
    model: Any, states: Tensor, lengths: Tensor, tasks: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Return what the LLM hears of the adapter's embeddings (B, N, H), and the lengths (B,), on the
    CPU. Those of label fields stay in front.

    ``tasks`` are names or tags of the utterances: adapters shrink for some tasks only, and
    ``model.time_marks`` stand in speech whose words are to get times. None: for any task.
    """
    speech, lengths = _shrunk(model, states, lengths, tasks)
    front = len(front_names(model.adapter))
    return time_marks.add(model, speech, lengths, front, tasks)


def _shrunk(
    model: Any,
    states: Tensor,
    lengths: Tensor,
    tasks: Sequence[str] | None,
) -> tuple[Tensor, Tensor]:
    """Return fewer embeddings where the adapter shrinks, else the same."""
    adapter = model.adapter
    if not hasattr(adapter, "shrinker"):
        return states, lengths
    front, frames, lengths = split_front(adapter, states, lengths)
    scores = model.speech_classes()
    if frames.device.type == "meta":
        # Where costs are counted nobody knows what is said, and the most remains.
        labels = _all_different(frames)
    else:
        best = scores.best(frames)
        labels = best.cpu()

    # Utterances of which all is kept.
    whole = torch.zeros_like(lengths)
    for row, task in enumerate(tasks or ()):
        whole[row] = keeps_all(task, adapter.unshrunk)
    whole = whole.bool()

    kept, lengths = adapter.shrinker(frames, lengths, labels, scores.blank, whole)
    together = torch.cat([front, kept], 1)
    added = front.shape[1]
    return together, lengths + added


def _all_different(states: Tensor) -> Tensor:
    """Return labels (B, N) on the CPU of which no two are the same, and none is a class."""
    rows, longest, _ = states.shape
    numbers = torch.arange(longest)
    labels = -1 - numbers
    return labels.expand(rows, -1)
