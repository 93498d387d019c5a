"""Joint decoding: rescorers (decode/rescore) change the LLM's scores of the next token or label.

As in one-pass decoding (Watanabe et al., 2017, "Hybrid CTC/attention architecture for end-to-end
speech recognition"), only the LLM's likeliest candidates are rescored; where rescorers have a say,
others cannot be chosen.

Letters: S speech embeddings, F those of label queries, H width of the LLM, V vocabulary, K
candidates.
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
    from wenet_osum.tasks.base import Field
    from wenet_osum.text.template import Template

PACKAGE = "wenet_osum.decode.rescore"
# The LLM's likeliest tokens that are rescored.
CANDIDATES = 64
LOG_ZERO = float("-inf")


def parse(text: str) -> dict[str, float]:
    """Read ``NAME=WEIGHT,…``, as commands take it. Raises ValueError for anything else."""
    weights = {}
    for item in text.split(","):
        if not item:
            continue
        name, sign, weight = item.partition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            sign = ""
        if not sign:
            rule = "must read NAME=WEIGHT, e.g. ctc_prefix=0.5"
            raise ValueError(f"rescore {item!r} {rule}")
    return weights


def check_weights(weights: Mapping[str, float], temperature: float) -> None:
    """Raise ValueError for weights out of range, and for sampling with weights."""
    for name, weight in weights.items():
        if not 0 <= weight < 1:
            rule = "must be 0 (the LLM alone) or more, and below 1"
            raise ValueError(f"rescore {name}={weight}: {rule}")
        if temperature and weight:
            advice = "what is decoded jointly is not sampled; choose one of them"
            raise ValueError(f"rescore {name}={weight} with temperature {temperature}: {advice}")


@dataclass(frozen=True)
class Joint:
    """The states of all rescorers for one answer in the making; it never changes."""

    states: dict[str, Any]

    def advance(self, answer_state: AnswerState, token: int) -> Joint:
        """Return the states after ``token`` has been proposed to ``answer_state``.

        That one still stands before the token.
        """
        states = {}
        for name, state in self.states.items():
            states[name] = state.advance(answer_state, token)
        return Joint(states)

    def scores(self, answer_state: AnswerState, logits: Tensor) -> Tensor:
        """Return joint scores (V,) of the LLM's ``logits`` (V,), in float64.

        Where rescorers have a say, those of all but the candidates are -inf.
        """
        logs = logits.double().log_softmax(-1)
        active = []
        for state in self.states.values():
            if state.applies(answer_state, self.states):
                active.append(state)
        if not active:
            return logs

        # The candidates' log-probabilities (K,), and what each rescorer adds to them.
        count = min(CANDIDATES, len(logs))
        best, tokens = logs.topk(count)
        total = best
        for state in active:
            change = state.change(answer_state, best, tokens, self.states)
            total = total + change

        joint = torch.full_like(logs, LOG_ZERO)
        joint[tokens] = total
        return joint

    def label_scores(self, field: Field, scores: dict[str, float]) -> dict[str, float]:
        """Return joint scores of a field's labels, given the LLM's log-probabilities of each.

        Those of the LLM are taken among the labels alone, where they add up to 1, as those of a
        rescorer do.
        """
        values = torch.tensor([*scores.values()], dtype=torch.float64)
        shares = values.log_softmax(0).tolist()
        logs = dict(zip(scores, shares, strict=True))

        total = dict(logs)
        for state in self.states.values():
            if not hasattr(state, "change_labels"):
                continue
            for label, change in state.change_labels(field, logs).items():
                total[label] += change
        return total


class Rescorers:
    """The rescorers of one batch."""

    def __init__(self, model: OsumModel, template: Template, weights: Mapping[str, float]) -> None:
        """Make them. Raises ValueError for an unknown name, and a model that does not fit."""
        check_model(model, template, weights)
        self.rescorers = {}
        for name, made in rescorer_classes(weights).items():
            self.rescorers[name] = made(model, template, dict(weights))

    def begin(self, states: Tensor, front: Tensor) -> Joint:
        """Start an answer to the speech embeddings (S, H) of one utterance, and those (F, H) of
        its label queries."""
        begun = {}
        for name, rescorer in self.rescorers.items():
            begun[name] = rescorer.begin(states, front)
        return Joint(begun)


def check_model(model: OsumModel, template: Template, weights: Mapping[str, float]) -> None:
    """Check that all rescorers fit a model.

    Raises ValueError for one that was not trained for a rescorer, and for one whose answers were
    encoded as whole strings.
    """
    for name, made in rescorer_classes(weights).items():
        check_training(f"rescore {name}", made.losses, model.config.losses)
    if weights and template.target_tokenization == "whole":
        names = ", ".join(weights)
        rule = "needs answers that are encoded field by field"
        why = "this model's were whole strings, and a transcript may end inside a token"
        raise ValueError(f"rescore {names}: {rule}; {why}")


def rescorer_classes(weights: Mapping[str, float]) -> dict[str, Any]:
    """Return the classes of all names in ``weights`` and of what they need, those first.

    Raises ValueError for an unknown name.
    """
    found: dict[str, Any] = {}
    for name in weights:
        made = _rescorer_class(name)
        for needed in made.needs:
            found.setdefault(needed, _rescorer_class(needed))
        found.setdefault(name, made)
    return found


def _rescorer_class(name: str) -> Any:
    how = "--plugins, e.g. wenet_osum.small"
    return lookup.load_class(PACKAGE, name, "Rescorer", how)


def check_training(
    what: str, needed: tuple[str, ...], trained: list[dict[str, Any]] | None
) -> None:
    """Raise ValueError for a model without the losses that ``what`` needs.

    ``trained`` is None where an older folder does not say which there were.
    """
    if trained is None:
        return
    have = [entry["name"] for entry in trained]
    missing = [loss for loss in needed if loss not in have]
    if missing:
        had = ", ".join(have) or "none"
        lacks = ", ".join(missing)
        rule = f"needs a model that was trained with {lacks} in model.losses"
        raise ValueError(f"{what}: {rule}, and this one had {had}; leave it out")
