"""Labels without the LLM: what an adapter hears of each label field is to point to the words of the
label in the LLM's space.

For adapters with ``label_queries`` (models/label_queries.py). CTC brings speech to where its words
lie; this loss does the same for emotion, gender and whatever else is heard beside the words. An LLM
can then read a label off as it reads words off.

Letters: B utterances, F label fields, H width of the LLM, V its vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.devices import to_device
from wenet_osum.models.label_words import (
    SCALE,
    UNKNOWN,
    label_directions,
    label_fields,
    label_indices,
    label_logits,
    label_words,
)
from wenet_osum.models.objective import Speech, UtteranceLosses

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.text.template import Template


class Loss:
    """Cross-entropy of every known label of an utterance among the labels of its set, summed over
    the fields that the adapter has queries for.

    The logit of a label is the cosine of the field's embedding and the mean embedding of the
    label's words, times ``scale``. Raises ValueError for a scale that is not above 0, and in a
    batch of an adapter without label queries.
    """

    kinds = ("osum",)
    needs_logits = False

    def __init__(self, template: Template, scale: float = SCALE) -> None:
        if not scale > 0:
            raise ValueError(f"scale {scale} must be above 0")
        self.scale = scale
        self.fields = label_fields(template, template.task_names())
        self.words = label_words(template, self.fields)
        # Fields that the model's adapter has queries for; None: it has not been told.
        self.heard_fields: tuple[str, ...] | None = None

    def has_target(self, utterance: Utterance) -> bool:
        """Return whether any label of the utterance is known that is heard."""
        heard = self.heard_fields
        fields = [field for field in self.fields if heard is None or field.name in heard]
        indices = label_indices(utterance, fields)
        return max(indices, default=UNKNOWN) > UNKNOWN

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``labels`` (F,): the index of each label in its set, -1 where it is not known."""
        indices = label_indices(utterance, self.fields)
        labels = torch.tensor(indices, dtype=torch.int64)
        return {"labels": labels}

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Compute the losses of a batch."""
        if not speech.labels:
            raise ValueError(
                "model.losses labels: the adapter has no embeddings of label fields; name them in "
                "adapter_conf, e.g. {label_queries: [emotion, gender]} of ctc_shrink"
            )
        rows = len(speech.lengths)
        labels = targets["labels"].view(rows, -1)
        device = speech.states.device
        losses = torch.zeros(rows, device=device)
        # In float32 throughout, whatever autocast does around it.
        with torch.autocast(device.type, enabled=False):
            table = speech.table.detach()
            for column, field in enumerate(self.fields):
                heard = speech.labels.get(field.name)
                if heard is None:
                    continue
                directions = label_directions(self.words[column], table)
                known = labels[:, column]
                losses = losses + self._field_losses(heard, directions, known)
        return UtteranceLosses(losses)

    def _field_losses(self, heard: Tensor, directions: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy (B,) of ``labels`` (B,), 0 where they are not known.

        ``heard`` are (B, H), ``directions`` (labels, H).
        """
        logits = label_logits(heard, directions, self.scale)
        return functional.cross_entropy(
            logits,
            to_device(labels, heard.device),
            ignore_index=UNKNOWN,
            reduction="none",
        )
