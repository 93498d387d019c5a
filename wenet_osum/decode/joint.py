"""Joint decoding: the LLM's scores of the next token, changed by what rescorers find
(decode/rescore).

As in one-pass decoding (Watanabe et al., 2017, "Hybrid CTC/attention architecture for end-to-end
speech recognition"), only the LLM's likeliest candidates are rescored; where rescorers have a say,
others cannot be chosen.

Letters: S speech embeddings, H width of the LLM, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wenet_osum import lookup

if TYPE_CHECKING:
    from wenet_osum.decode.constrain import AnswerState
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.text.template import Template

PACKAGE = "wenet_osum.decode.rescore"
CANDIDATES = 64  # of the LLM that are rescored
LOG_ZERO = float("-inf")


def parse(text: str) -> dict[str, float]:
    """Read ``NAME=WEIGHT,…``, as commands take it. Raises ValueError for anything else."""
    weights = {}
    for item in filter(None, text.split(",")):
        name, sign, weight = item.partition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            sign = ""
        if not sign:
            raise ValueError(f"rescore {item!r} must read NAME=WEIGHT, e.g. ctc_prefix=0.5")
    return weights


def check_weights(weights: Mapping[str, float], temperature: float) -> None:
    """Raise ValueError for weights out of range, and for sampling with weights."""
    for name, weight in weights.items():
        if not 0 <= weight < 1:
            raise ValueError(f"rescore {name}={weight}: must be 0 (the LLM alone) or more, and below 1")
        if temperature and weight:
            advice = "what is decoded jointly is not sampled; choose one of them"
            raise ValueError(f"rescore {name}={weight} with temperature {temperature}: {advice}")


@dataclass(frozen=True)
class Joint:
    """The states of all rescorers for one answer in the making; it never changes."""

    states: dict[str, Any]

    def advance(self, answer_state: AnswerState, token: int) -> Joint:
        """Return the states after ``token`` has been proposed to ``answer_state``, which still stands
        before it."""
        return Joint({name: state.advance(answer_state, token) for name, state in self.states.items()})

    def scores(self, answer_state: AnswerState, logits: Tensor) -> Tensor:
        """Return joint scores (V,) float64 of the LLM's ``logits`` (V,), -inf for what is no
        candidate."""
        logs = logits.double().log_softmax(-1)
        active = [state for state in self.states.values() if state.applies(answer_state, self.states)]
        if not active:
            return logs
        best, tokens = logs.topk(min(CANDIDATES, len(logs)))
        total = best
        for state in active:
            total = total + state.change(answer_state, best, tokens, self.states)
        joint = torch.full_like(logs, LOG_ZERO)
        joint[tokens] = total
        return joint


class Rescorers:
    """The rescorers of one batch."""

    def __init__(self, model: OsumModel, template: Template, weights: Mapping[str, float]) -> None:
        """Make them. Raises ValueError for an unknown name, and a model that does not fit."""
        check_model(model, template, weights)
        classes = rescorer_classes(weights)
        self.rescorers = {name: made(model, template, dict(weights)) for name, made in classes.items()}

    def begin(self, states: Tensor) -> Joint:
        """Start an answer to the speech embeddings (S, H) of one utterance."""
        return Joint({name: rescorer.begin(states) for name, rescorer in self.rescorers.items()})


def check_model(model: OsumModel, template: Template, weights: Mapping[str, float]) -> None:
    """Raise ValueError for a model that was not trained for a rescorer, or whose answers were
    encoded as whole strings."""
    for name, made in rescorer_classes(weights).items():
        check_training(f"rescore {name}", made.losses, model.config.losses)
    if weights and template.target_tokenization == "whole":
        why = "this model's were whole strings, and a transcript may end inside a token"
        raise ValueError(f"rescore {', '.join(weights)}: needs answers that are encoded field by field; {why}")


def rescorer_classes(weights: Mapping[str, float]) -> dict[str, Any]:
    """Return the classes of all names in ``weights`` and of what they need, those first. Raises
    ValueError for an unknown name."""
    found: dict[str, Any] = {}
    for name in weights:
        made = _rescorer_class(name)
        for needed in made.needs:
            found.setdefault(needed, _rescorer_class(needed))
        found.setdefault(name, made)
    return found


def _rescorer_class(name: str) -> Any:
    try:
        return lookup.load(PACKAGE, name).Rescorer
    except ValueError as error:
        advice = "those of other packages are known by --plugins, e.g. wenet_osum.small"
        raise ValueError(f"{error}; {advice}") from None


def check_training(what: str, needed: tuple[str, ...], trained: list[dict[str, Any]] | None) -> None:
    """Raise ValueError for a model without the losses that ``what`` needs. ``trained`` None: an
    older folder does not say."""
    if trained is None:
        return
    have = [entry["name"] for entry in trained]
    if missing := [loss for loss in needed if loss not in have]:
        had = ", ".join(have) or "none"
        rule = f"needs a model that was trained with {', '.join(missing)} in model.losses"
        raise ValueError(f"{what}: {rule}, and this one had {had}; leave it out")
