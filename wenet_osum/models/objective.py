"""What a model is trained to: ce_weight · Σ weighted cross-entropy of the answers + Σ weight ·
further losses.

Further losses are plug-ins (models/losses), sums over utterances, so that dividing by Σ answer
weights scales all alike. An utterance whose answer weights are all zero, such as a filler, has none
of them.

Letters: B utterances, N speech states of the longest, D width, V classes, A answer tokens of all
utterances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from wenet_osum import lookup
from wenet_osum.models.loss import LossOutput, weighted

if TYPE_CHECKING:
    from wenet_osum.config import ModelConfig
    from wenet_osum.records import Batch, Utterance
    from wenet_osum.text.template import Template

PACKAGE = "wenet_osum.models.losses"

# Gives losses (A,) and correctness (A,) of the answer tokens.
Answers = Callable[[], tuple[Tensor, Tensor]]


@dataclass
class Speech:
    """What a model made of the speech of a batch: the adapter's output, or in phase 1 the
    encoder's."""

    states: Tensor  # (B, N, D)
    lengths: Tensor  # (B,) int64, on the CPU
    state_s: float | None  # s of speech in one state; None: it depends on what is said
    logits: Callable[[], Tensor]  # gives (B, N, V) float32, how much each state is like each class
    blank: int | None  # the class that says nothing
    table: Tensor | None = None  # (V, D), the LLM's token embeddings, in whose space the states lie

    def fixed_state_s(self) -> float:
        """Return the seconds of speech in one state. Raises ValueError where there is no fixed number."""
        if self.state_s is None:
            raise ValueError(
                "model.losses: a loss asks when words are spoken, but the adapter's embeddings have no "
                "times; choose an adapter of fixed rate, or leave that loss (ctc: word_times) out"
            )
        return self.state_s


@dataclass
class UtteranceLosses:
    """What a loss found in a batch."""

    values: Tensor  # (B,) float32
    # Reason → how many utterances could not count, int64.
    left_out: dict[str, Tensor] = field(default_factory=dict)


class Loss(Protocol):
    """A plug-in of models/losses; the package says what each part is for."""

    kinds: tuple[str, ...]
    needs_logits: bool

    def targets(self, utterance: Utterance) -> dict[str, Tensor]: ...

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses: ...


@dataclass
class Objective:
    """The weights of a run, which a model holds while it is trained. Without arguments:
    cross-entropy alone."""

    ce_weight: float = 1.0
    losses: list[tuple[float, Loss]] = field(default_factory=list)  # with their weights
    # The entries of the yaml, which the model's config.json keeps, with what losses have ``kept``.
    entries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def needs_logits(self) -> bool:
        """Whether a loss compares speech with classes."""
        return any(loss.needs_logits for _, loss in self.losses)

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return what the losses have to know of an utterance; what several ask for is there
        once."""
        found: dict[str, Tensor] = {}
        for _, loss in self.losses:
            found |= loss.targets(utterance)
        return found

    def __call__(
        self, batch: Batch, speech: Speech, answers: Answers, answering: dict[str, torch.nn.Module]
    ) -> LossOutput:
        """Compute the loss of a batch.

        ``answers`` runs the modules ``answering``, by name, but not at ``ce_weight`` 0. Then the
        other losses of an utterance are spread over its answer tokens in ``nll``, and none is
        ``correct``. Raises ValueError when the batch lacks targets, and at ``ce_weight`` 0 when
        ``answering`` is to be trained.
        """
        if self.ce_weight == 0:
            _refuse_training(answering)
        if not self.losses:
            output = weighted(*answers(), batch.answer_weights)
            output.loss = self.ce_weight * output.loss
            return output
        extra, left_out = self._extra(batch, speech)
        if self.ce_weight:
            output = weighted(*answers(), batch.answer_weights)
        else:
            output = _spread(batch, extra)
        # Fillers have no weighted answer token; their other losses must not count either.
        has_answer = any_weight(batch.answer_weights, batch.answer_lengths.cpu(), extra.device)
        further = (extra * has_answer).sum()
        output.loss = self.ce_weight * output.loss + further if self.ce_weight else further
        output.left_out = left_out
        return output

    def _extra(self, batch: Batch, speech: Speech) -> tuple[Tensor, dict[str, Tensor]]:
        """Return Σ weight · loss of each utterance (B,), and utterances that could not count, by
        reason."""
        total = torch.zeros(len(speech.lengths), device=speech.states.device)
        left_out: dict[str, Tensor] = {}
        for weight, loss in self.losses:
            try:
                found = loss(speech, batch.targets)
            except KeyError as error:
                name = type(loss).__module__.rpartition(".")[2]
                advice = "give the dataset the targets of the model's objective (Objective.targets)"
                raise ValueError(f"loss {name} needs {error} in the batch's targets; {advice}") from None
            total = total + weight * found.values
            left_out |= found.left_out
        return total, left_out


def make_objective(conf: ModelConfig, template: Template) -> Objective:
    """Make the losses that ``conf`` names.

    Raises ValueError for a name without a file, for keys that a loss does not take, and for a loss
    of the other kind.
    """
    losses = [(float(entry["weight"]), _make(entry, conf.kind, template)) for entry in conf.losses]
    made = zip(conf.losses, losses, strict=True)
    entries = [entry | getattr(loss, "kept", {}) for entry, (_, loss) in made]
    return Objective(conf.ce_weight, losses, entries)


def _make(entry: dict[str, Any], kind: str, template: Template) -> Loss:
    name = entry["name"]
    keys = {key: value for key, value in entry.items() if key not in ("name", "weight")}
    made = loss_class(name)
    if kind not in made.kinds:
        kinds = " and ".join(made.kinds)
        raise ValueError(f"model.losses {name}: is for kind {kinds}, and model.kind is {kind}; drop it")
    try:
        return made(template, **keys)
    except (TypeError, ValueError) as error:
        raise ValueError(f"model.losses {name}: {error}") from None


def loss_class(name: str) -> type:
    """Return the class of a plug-in. Raises ValueError with the known names."""
    try:
        return lookup.load_class(PACKAGE, name, "Loss", "plugins, e.g. [wenet_osum.small]")
    except ValueError as error:
        raise ValueError(f"model.losses: {error}") from None


def trained_with(before: list[dict[str, Any]] | None, now: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the losses to keep in config.json: those of this run, then those of the runs before
    it.

    None, as in folders that were written before there was such a record, means that nobody knows.
    """
    if before is None and not now:
        return None
    names = [entry["name"] for entry in now]
    return [*now, *(entry for entry in before or [] if entry["name"] not in names)]


def any_weight(weights: Tensor | None, answers: Tensor, device: torch.device) -> Tensor:
    """Return (B,) float32: 1 for utterances with a weighted answer token, 0 for fillers."""
    if weights is None:
        return torch.ones(len(answers), device=device)
    row = torch.repeat_interleave(torch.arange(len(answers)), answers).to(device)
    counts = torch.zeros(len(answers), device=device)
    return counts.index_add_(0, row, (weights.to(device) != 0).float()).clamp(max=1)


def _spread(batch: Batch, extra: Tensor) -> LossOutput:
    """Return the losses (B,) of utterances as losses of their answer tokens."""
    answers = batch.answer_lengths.cpu()
    each = extra.detach() / answers.clamp(min=1).to(extra)
    nll = torch.repeat_interleave(each, answers.to(extra.device))
    return weighted(nll, torch.zeros_like(nll, dtype=torch.bool), batch.answer_weights)


def _refuse_training(answering: dict[str, torch.nn.Module]) -> None:
    """Raise ValueError when a module is to be trained that does not run."""
    trained = [name for name, module in answering.items() if any(p.requires_grad for p in module.parameters())]
    if trained and torch.is_grad_enabled():
        patterns = ", ".join(f"{name}.*" for name in trained)
        names = " and ".join(trained)
        raise ValueError(f"model.ce_weight 0 runs no {names}, yet train_parts names it; leave {patterns} out")
