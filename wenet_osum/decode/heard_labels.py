"""Labels without the LLM: what an adapter's label queries hear, compared with the words of labels.

For models that were trained with the loss ``labels`` (models/losses/labels.py).

Letters: F label fields, H width of the LLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from wenet_osum.models.label_queries import front_names
from wenet_osum.models.label_words import (
    SCALE,
    label_directions,
    label_fields,
    label_logits,
    label_words,
)
from wenet_osum.models.whisper import WhisperPhase

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template

LOSS = "labels"


def fields_heard(model: OsumModel | WhisperPhase) -> tuple[str, ...]:
    """Return the label fields that a model has learned to hear without its LLM."""
    if isinstance(model, WhisperPhase) or _entry(model) is None:
        return ()
    return front_names(model.adapter)


class HeardLabels:
    """Tells the probabilities of labels from the embeddings in front of an utterance's speech."""

    def __init__(self, model: OsumModel | WhisperPhase, template: Template) -> None:
        self.names = fields_heard(model)
        self.scale = SCALE
        self.labels: dict[str, tuple[str, ...]] = {}
        self.directions: dict[str, Tensor] = {}
        if not self.names:
            return

        entry = _entry(model)
        self.scale = entry.get("scale", SCALE)
        table = model.get_input_embeddings().weight
        fields = label_fields(template, template.task_names())
        words = label_words(template, fields)
        for field, options in zip(fields, words, strict=True):
            name = field.name
            self.labels[name] = field.labels.names
            self.directions[name] = label_directions(options, table)

    def probs(self, front: Tensor) -> dict[str, dict[str, float]]:
        """Return the probability of each label, by field, from ``front`` (F, H)."""
        found = {}
        pairs = zip(self.names, front, strict=True)
        for name, heard in pairs:
            directions = self.directions[name]
            logits = label_logits(heard, directions, self.scale)
            shares = logits.softmax(-1)
            by_label = zip(self.labels[name], shares.tolist(), strict=True)
            found[name] = dict(by_label)
        return found


def _entry(model: OsumModel) -> dict[str, Any] | None:
    """Return how the loss was set; None: the model was not trained with it."""
    entries = model.config.losses or ()
    for entry in entries:
        if entry["name"] == LOSS:
            return entry
    return None
