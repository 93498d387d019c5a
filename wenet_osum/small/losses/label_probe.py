"""The mean speech embedding of an utterance has to point to the words of its labels.

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

SCALE = 15.0  # logits per unit of cosine: a label is certain when its direction makes up about a third of a frame
UNKNOWN = -1  # index of a label that is not known


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
        return {"labels": torch.tensor(label_indices(utterance, self.fields), dtype=torch.int64)}

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses of a batch."""
        labels = targets["labels"].view(len(speech.lengths), len(self.fields))
        with torch.autocast(speech.states.device.type, enabled=False):
            frames = functional.normalize(speech.states.float(), dim=-1)
            table = speech.table.detach().float()
            return UtteranceLosses(label_losses(frames, speech.lengths, labels, self.words, table))


def label_fields(template: Template) -> list[Field]:
    """Return all label fields that tasks have, by name."""
    fields = {f.name: f for name in tasks.names() for f in template.task(name).label_fields}
    return [fields[name] for name in sorted(fields)]


def label_indices(utterance: Utterance, fields: list[Field]) -> list[int]:
    """Return the index of the utterance's label in the set of each field, ``UNKNOWN`` where there
    is none."""
    return [f.labels.names.index(f.value(utterance)) if f.present(utterance) else UNKNOWN for f in fields]


def label_words(template: Template, fields: list[Field]) -> list[list[list[int]]]:
    """Return the token ids of each label of each field, without the brackets around it."""
    cased = str.lower if template.lowercase else str
    return [[template.encode(cased(name)) for name in field.labels.names] for field in fields]


def label_losses(
    frames: Tensor, lengths: Tensor, labels: Tensor, words: list[list[list[int]]], table: Tensor
) -> Tensor:
    """Compute the cross-entropy (B,) of all known labels, summed over fields.

    ``frames`` (B, S, H) have length 1, ``labels`` (B, F) are indices into ``words``, the token ids
    by field and label; ``table`` (V, H) holds the LLM's embeddings. The logit of a label is the
    cosine of the mean frame and the mean embedding of the label's tokens, times ``SCALE``.
    """
    mask = valid_mask(lengths, frames.shape[1], frames.device)
    existing = frames if mask is None else frames * mask[:, :, None]
    mean = existing.sum(1) / lengths.to(frames)[:, None]
    losses = frames.new_zeros(len(frames))
    for options, label in zip(words, labels.T, strict=True):
        means = torch.stack([table[torch.tensor(ids, device=table.device)].mean(0) for ids in options])
        logits = SCALE * mean @ functional.normalize(means, dim=-1).T
        losses = losses + functional.cross_entropy(logits, label, ignore_index=UNKNOWN, reduction="none")
    return losses
