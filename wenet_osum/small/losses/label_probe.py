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
from wenet_osum.devices import to_device
from wenet_osum.models.label_words import (
    UNKNOWN,
    label_directions,
    label_fields,
    label_indices,
    label_words,
)
from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.objective import Speech, UtteranceLosses

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.text.template import Template

# Logits per unit of cosine: a label is certain when its direction makes up about a third of a
# frame.
SCALE = 15.0


class Loss:
    """Cross-entropy of every known label of an utterance among the labels of its set, summed over
    label fields."""

    kinds = ("osum",)
    needs_logits = False

    def __init__(self, template: Template) -> None:
        usual = tasks.default_names()
        self.fields = label_fields(template, usual)
        self.words = label_words(template, self.fields)

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``probed_labels`` (F,): the index of each label in its set, -1 where it is not
        known."""
        indices = label_indices(utterance, self.fields)
        labels = torch.tensor(indices, dtype=torch.int64)
        return {"probed_labels": labels}

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses of a batch."""
        states, lengths = speech.states, speech.lengths
        labels = targets["probed_labels"]
        rows = len(lengths)
        labels = labels.view(rows, -1)
        with torch.autocast(states.device.type, enabled=False):
            frames = states.float()
            frames = functional.normalize(frames, dim=-1)
            table = speech.table.detach()
            losses = label_losses(frames, lengths, labels, self.words, table)
            return UtteranceLosses(losses)


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
    counts = to_device(lengths, frames.device)
    mean = total / counts[:, None]

    losses = frames.new_zeros(len(frames))
    for options, label in zip(words, labels.T, strict=True):
        directions = label_directions(options, table)
        logits = SCALE * mean @ directions.T
        loss = functional.cross_entropy(
            logits,
            label,
            ignore_index=UNKNOWN,
            reduction="none",
        )
        losses = losses + loss
    return losses
