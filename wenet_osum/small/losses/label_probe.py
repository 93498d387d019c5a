"""Loss ``label_probe``: the mean speech embedding of an utterance has to point to the words of its
labels.

A small LLM learns labels from pseudo-speech (small/pseudo_speech.py), where every frame carries
their embeddings faintly. This loss brings them into the adapter's output directly. Through the
LLM's answers alone the adapter may not find them in a few hundred steps.

Letters: B utterances, S embeddings (80 ms) of the longest, H width of the LLM, V vocabulary, F
label fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum import tasks
from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.objective import Speech, UtteranceLosses

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.tasks.base import Field
    from wenet_osum.text.template import Template

# Logits per unit of cosine: a label is certain when its direction makes up about a third of a
# frame.
SCALE = 15.0
# Index of a label that is not known.
UNKNOWN = -1


class Loss:
    """Cross-entropy of every known label of an utterance among the labels of its set, summed over
    label fields."""

    kinds = ("osum",)
    needs_logits = False

    def __init__(self, template: Template) -> None:
        self.fields = label_fields(template)
        self.words = label_words(template, self.fields)

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``labels`` (F,): the index of each label in its set, -1 where it is not known."""
        indices = label_indices(utterance, self.fields)
        return {"labels": torch.tensor(indices, dtype=torch.int64)}

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses of a batch."""
        states, lengths = speech.states, speech.lengths
        labels = targets["labels"]
        labels = labels.view(len(lengths), len(self.fields))
        with torch.autocast(states.device.type, enabled=False):
            frames = functional.normalize(states.float(), dim=-1)
            table = speech.table.detach()
            losses = label_losses(frames, lengths, labels, self.words, table.float())
            return UtteranceLosses(losses)


def label_fields(template: Template) -> list[Field]:
    """Return all label fields that tasks have, by name."""
    fields = {}
    for name in tasks.names():
        for field in template.task(name).label_fields:
            fields[field.name] = field
    return [fields[name] for name in sorted(fields)]


def label_indices(utterance: Utterance, fields: list[Field]) -> list[int]:
    """Return the index of the utterance's label in the set of each field, ``UNKNOWN`` where there
    is none."""
    indices = []
    for field in fields:
        index = UNKNOWN
        if field.present(utterance):
            label = field.value(utterance)
            index = field.labels.names.index(label)
        indices.append(index)
    return indices


def label_words(template: Template, fields: list[Field]) -> list[list[list[int]]]:
    """Return the token ids of each label of each field, without the brackets around it."""
    words = []
    for field in fields:
        names = field.labels.names
        if template.lowercase:
            names = [name.lower() for name in names]
        words.append([template.encode(name) for name in names])
    return words


def label_losses(
    frames: Tensor, lengths: Tensor, labels: Tensor, words: list[list[list[int]]], table: Tensor
) -> Tensor:
    """Compute the cross-entropy (B,) of all known labels, summed over fields.

    ``frames`` (B, S, H) have length 1, ``labels`` (B, F) are indices into ``words``, the token ids
    by field and label; ``table`` (V, H) holds the LLM's embeddings. The logit of a label is the
    cosine of the mean frame and the mean embedding of the label's tokens, times ``SCALE``.
    """
    # The mean over the frames that exist, (B, H).
    mask = valid_mask(lengths, frames.shape[1], frames.device)
    if mask is not None:
        frames = frames * mask[:, :, None]
    total = frames.sum(1)
    mean = total / lengths.to(frames)[:, None]

    losses = frames.new_zeros(len(frames))
    for options, label in zip(words, labels.T, strict=True):
        directions = _label_directions(options, table)
        logits = SCALE * mean @ directions.T
        loss = functional.cross_entropy(
            logits,
            label,
            ignore_index=UNKNOWN,
            reduction="none",
        )
        losses = losses + loss
    return losses


def _label_directions(options: list[list[int]], table: Tensor) -> Tensor:
    """Return the mean embedding of each label's tokens, scaled to length 1: (labels, H)."""
    means = []
    for ids in options:
        tokens = torch.tensor(ids, device=table.device)
        embeddings = table[tokens]
        means.append(embeddings.mean(0))
    stacked = torch.stack(means)
    return functional.normalize(stacked, dim=-1)
