"""Compare speech with the LLM's own token embeddings, for CTC.

``dot``: s · q of the RMS-normed state s and the token's embedding q. ``distance``: -τ‖s - q‖²
(DirectSpeech2LLM): the state is to lie where the token lies, not only in its direction. With
‖s‖², which all classes share, left out this is the linear layer 2τq · s - τ‖q‖².

τ makes the mean squared distance between two classes count ``SHARPNESS`` nats. Token embeddings of
published LLMs are short (squared norm 0.2 for Qwen2.5-0.5B): without τ the softmax would be flat
for a state that lies exactly on its token.

Letters: V tokens of the LLM, C classes, H width of the LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from wenet_osum.devices import to_device
from wenet_osum.models.dtypes import autocast_dtype

KINDS = ("dot", "distance")
# Embeddings whose scores exist at once: 0.6 GB where all tokens of an LLM are classes.
ROWS = 1024
# Nats; a state on its token has probability 1 among 1,000 classes, near 1 beside twins.
SHARPNESS = 24.0


@dataclass(frozen=True)
class Scoring:
    """The settings that config.json keeps in the entry of the loss ``ctc``."""

    scores: str = "dot"
    # Token ids that are classes beside the blank; None: all tokens of the LLM.
    classes: tuple[int, ...] | None = None
    sharpness: float = SHARPNESS

    def __post_init__(self) -> None:
        if self.scores not in KINDS:
            kinds = " or ".join(KINDS)
            raise ValueError(f"scores {self.scores!r} must be {kinds}")
        if not self.sharpness > 0:
            raise ValueError(f"sharpness {self.sharpness} must be above 0 nats")

    def token_ids(self, classes: list[int]) -> list[int]:
        """Return the token ids of classes, none of them the blank."""
        if self.classes is None:
            return classes
        return [self.classes[number] for number in classes]

    def over(self, table: Tensor, blank: int) -> CTCScores:
        """Return the scores over the LLM's embeddings ``table`` (V, H); ``blank`` is a token id.

        Raises ValueError where it is one of the classes.
        """
        classes = self.classes or ()
        if blank in classes:
            raise ValueError(f"classes: token {blank} is CTC's blank; take it out of the classes")
        return CTCScores(table, blank, self)


@dataclass(frozen=True)
class SpeechClasses:
    """The classes of a model's CTC for decoding, as ``CTCScores`` has them."""

    # States (…, D) → scores (…, C).
    logits: Callable[[Tensor], Tensor]
    # Its class.
    blank: int
    # Of classes.
    token_ids: Callable[[list[int]], list[int]]


def scoring_of(losses: Iterable[dict[str, Any]] | None) -> Scoring:
    """Read how a model was trained from the ``losses`` of its config.json.

    A model that does not say was trained with what was the only way then.
    """
    entry: dict[str, Any] = {}
    for loss in losses or ():
        if loss["name"] == "ctc":
            entry = loss
            break
    classes = entry.get("classes")
    return Scoring(
        scores=entry.get("scores", "dot"),
        classes=None if classes is None else tuple(classes),
        sharpness=entry.get("sharpness", SHARPNESS),
    )


class CTCScores:
    """Scores of speech over the classes: ``states(speech) @ tokens.T + offsets``, log P up to a
    constant of each state.

    The LLM's table is not copied to float32 for the product, neither under autocast nor on an
    accelerator, for with all tokens of an LLM as classes that takes gigabytes.
    """

    def __init__(self, table: Tensor, blank: int, scoring: Scoring) -> None:
        self.scoring = scoring

        # Token ids of the classes, None: each token is one; the blank's class; and the classes'
        # embeddings (C, H), in the table's dtype.
        self.ids: Tensor | None = None
        self.blank = blank
        self.tokens = table
        if scoring.classes is not None:
            # The blank is the last class.
            self.ids = to_device(torch.tensor([*scoring.classes, blank]), table.device)
            self.blank = len(scoring.classes)
            self.tokens = table[self.ids]

        # What states are multiplied with, and (C,) float32; None for ones and zeros.
        self.scale: Tensor | None = None
        self.offsets: Tensor | None = None
        if scoring.scores == "distance":
            squares = squared_norms(self.tokens)
            scale = scoring.sharpness / mean_squared_distance(self.tokens)
            self.scale = 2 * scale
            self.offsets = -scale * squares

    def states(self, speech: Tensor) -> Tensor:
        """Return speech embeddings (…, H) as they are compared, float32."""
        if self.scale is None:
            return normed(speech)
        return self.scale * speech.float()

    def logits(self, speech: Tensor) -> Tensor:
        """Return scores (…, C) of speech embeddings (…, H): float32, or half precision where they
        are computed in it and have no offsets."""
        states = self.states(speech)
        if autocast_dtype(speech.device) is None:
            states = states.to(self._rows.dtype)
            scores = functional.linear(states, self._rows)
        else:
            scores = functional.linear(states, self.tokens)
        if self.offsets is None:
            return scores
        # Added in float32, for both may be much larger than their sum.
        return scores.float() + self.offsets

    @cached_property
    def _rows(self) -> Tensor:
        """The classes as factors without autocast: a CPU is slow in half precision."""
        if self.tokens.device.type == "cpu":
            return self.tokens.float()
        return self.tokens

    @torch.no_grad()
    def best(self, speech: Tensor) -> Tensor:
        """Return the likeliest class (…) of speech embeddings (…, H)."""
        rows = speech.detach().flatten(0, -2)
        rows = rows.to(self.tokens.device)
        found = []
        # As in decoding, whatever autocast does in training.
        with torch.autocast(speech.device.type, enabled=False):
            for part in rows.split(ROWS):
                scores = self.logits(part)
                found.append(scores.argmax(-1))
        return torch.cat(found).view(speech.shape[:-1])

    def token_ids(self, classes: list[int]) -> list[int]:
        """Return the token ids of classes, none of them the blank."""
        return self.scoring.token_ids(classes)


def normed(speech: Tensor) -> Tensor:
    """Return speech embeddings (…, H) at a root mean square of 1, float32."""
    width = speech.shape[-1]
    return functional.rms_norm(speech.float(), (width,))


def squared_norms(tokens: Tensor) -> Tensor:
    """Return ‖q‖² of the rows of ``tokens`` (C, H): (C,) float32, without a copy in float32."""
    norms = torch.linalg.vector_norm(tokens, dim=-1, dtype=torch.float32)
    return norms.square()


@torch.no_grad()
def mean_squared_distance(tokens: Tensor) -> Tensor:
    """Return the mean of ‖a - b‖² over all pairs of rows of ``tokens`` (C, H), a row with itself
    too: twice the variance, summed over channels."""
    mean = tokens.mean(0, dtype=torch.float32)
    spread = squared_norms(tokens).mean() - mean.square().sum()
    return 2 * spread
