"""The labels of utterances as losses see them: indices of their sets, and the words that name them.

Letters: B utterances, V tokens of the LLM, H its width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum import tasks
from wenet_osum.devices import to_device

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.tasks.base import Field
    from wenet_osum.text.template import Template

# Index of a label that is not known.
UNKNOWN = -1
# Logits per unit of cosine: a label is certain before its embedding says nothing else.
SCALE = 15.0


def label_fields(template: Template, among: list[str] | None = None) -> list[Field]:
    """Return the label fields that tasks have, by name; ``among`` names the tasks, None: all."""
    fields = {}
    for name in tasks.names() if among is None else among:
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


def label_directions(options: list[list[int]], table: Tensor) -> Tensor:
    """Return the mean embedding of each label's tokens, scaled to length 1: (labels, H) float32."""
    means = []
    for ids in options:
        tokens = to_device(torch.tensor(ids), table.device)
        # The rows that are needed, for a table in half precision is large.
        embeddings = table[tokens].float()
        means.append(embeddings.mean(0))
    stacked = torch.stack(means)
    return functional.normalize(stacked, dim=-1)


def label_logits(heard: Tensor, directions: Tensor, scale: float) -> Tensor:
    """Compare what was heard of a label field, (B, H), with the ``directions`` (labels, H) of its
    labels: their cosines times ``scale``, (B, labels) float32."""
    heard = functional.normalize(heard.float(), dim=-1)
    return scale * heard @ directions.T
