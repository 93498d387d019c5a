"""What the adapter's label queries heard, in the choice of a label.

Each label gets (1 - w) · log P_LLM + w · log P_queries: a voice and its mood are in the embedding
that a query brings to the words of its labels (models/label_queries.py), while the LLM judges by
the words that were said, and by what it learned to hear in few steps. Labels of fields without a
query, transcripts and replies are the LLM's alone.

Letters: S speech embeddings, F label fields with a query, H width of the LLM, K candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from wenet_osum.decode.heard_labels import LOSS, HeardLabels

if TYPE_CHECKING:
    from wenet_osum.decode.constrain import AnswerState
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.tasks.base import Field
    from wenet_osum.text.template import Template

# What a label has at least, so that the logarithm of a rounded 0 does not rule it out.
LEAST = 1e-12


@dataclass(frozen=True)
class State:
    """The probability of each label, by field, which does not change as the answer grows."""

    probs: dict[str, dict[str, float]]
    weight: float

    def applies(self, answer_state: AnswerState, states: dict[str, Any]) -> bool:
        """Return False: single tokens are the LLM's."""
        return False

    def advance(self, answer_state: AnswerState, token: int) -> State:
        """Return itself: what was heard stays so."""
        return self

    def change(
        self, answer_state: AnswerState, logs: Tensor, tokens: Tensor, states: dict[str, Any]
    ) -> Tensor:
        """Return zeros (K,): nothing is added to the scores of tokens."""
        return logs.new_zeros(logs.shape)

    def change_labels(self, field: Field, logs: dict[str, float]) -> dict[str, float]:
        """Return what turns log P_LLM of a field's labels into the joint score."""
        heard = self.probs.get(field.name)
        if heard is None:
            return {}
        changes = {}
        for label, log in logs.items():
            own = math.log(max(heard[label], LEAST))
            changes[label] = self.weight * (own - log)
        return changes


class Rescorer:
    """Scores labels by the adapter's label queries.

    Raises ValueError for a model whose adapter has none.
    """

    losses = (LOSS,)
    needs = ()

    def __init__(self, model: OsumModel, template: Template, weights: dict[str, float]) -> None:
        self.weight = weights.get("label_queries", 0.0)
        self.heard = HeardLabels(model, template)
        if not self.heard.names:
            raise ValueError(
                "rescore label_queries: needs an adapter with label_queries in adapter_conf; "
                "leave it out"
            )

    def begin(self, states: Tensor, front: Tensor) -> State:
        """Compare what stands in front of the speech, (F, H), with the words of all labels."""
        probs = self.heard.probs(front)
        return State(probs, self.weight)
