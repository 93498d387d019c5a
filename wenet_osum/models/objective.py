"""What a model is trained to: ce_weight · Σ weighted cross-entropy of the answers + Σ weight ·
further losses.

Further losses are plug-ins (models/losses), sums over utterances, so that dividing by Σ answer
weights scales all alike. An utterance whose answer weights are all zero, such as a filler, has none
of them.

Letters: B utterances, N speech states of the longest, D width, V classes, A answer tokens of all
utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from wenet_osum import lookup
from wenet_osum.devices import to_device
from wenet_osum.models.loss import LossOutput, weighted

if TYPE_CHECKING:
    from wenet_osum.config import ModelConfig
    from wenet_osum.records import Batch, Utterance
    from wenet_osum.text.template import Template

PACKAGE = "wenet_osum.models.losses"

# Gives losses (A,) and correctness (A,) of the answer tokens; of kind osum models/answers.py.
Answers = Callable[[], tuple[Tensor, Tensor]]


@dataclass
class Speech:
    """What a model made of the speech of a batch: the adapter's output, or in phase 1 the
    encoder's."""

    states: Tensor  # (B, N, D)
    # (B,) int64, on the CPU.
    lengths: Tensor
    # Seconds of speech in one state; None: it depends on what is said.
    state_s: float | None
    # Gives (B, N, V), how much each state is like each class, in the dtype of training.
    logits: Callable[[], Tensor]
    # The class that says nothing.
    blank: int | None
    # (V, D), the LLM's token embeddings, in whose space the states lie.
    table: Tensor | None = None
    # Label field → (B, D), what an adapter with label queries hears of it.
    labels: dict[str, Tensor] = field(default_factory=dict)

    def fixed_state_s(self) -> float:
        """Return the seconds of speech in one state.

        Raises ValueError where there is no fixed number.
        """
        if self.state_s is None:
            raise ValueError(
                "model.losses: a loss asks when words are spoken, but the adapter's embeddings "
                "have no times; choose an adapter of fixed rate, or leave that loss "
                "(ctc: word_times) out"
            )
        return self.state_s


@dataclass
class UtteranceLosses:
    """The values of a loss for a batch."""

    values: Tensor  # (B,) float32
    # Reason → how many utterances could not count, int64.
    left_out: dict[str, Tensor] = field(default_factory=dict)


class Loss(Protocol):
    """A plug-in of models/losses; the package says what each part is for."""

    kinds: tuple[str, ...]
    needs_logits: bool

    def targets(self, utterance: Utterance) -> dict[str, Tensor]: ...

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses: ...


class _Targets(dict[str, Tensor]):
    """The targets of a batch for one loss: a name that is not there says what to do."""

    def __init__(self, targets: dict[str, Tensor], loss: str) -> None:
        super().__init__(targets)
        self.loss = loss

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(
            f"loss {self.loss} needs {name!r} in the batch's targets; give the dataset the "
            "targets of the model's objective (Objective.targets)"
        )


@dataclass
class Objective:
    """The weights of a run, which a model holds while it is trained.

    Without arguments: cross-entropy alone.
    """

    ce_weight: float = 1.0
    # Each with its weight.
    losses: list[tuple[float, Loss]] = field(default_factory=list)
    # The entries of the yaml, which the model's config.json keeps, with what losses have ``kept``.
    entries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def needs_logits(self) -> bool:
        """Tell whether a loss compares speech with classes."""
        return any(loss.needs_logits for _, loss in self.losses)

    def has_target(self, utterance: Utterance) -> bool:
        """Return whether anything is to be learned from an utterance.

        Its answer is, unless ``ce_weight`` is 0; then one of the losses has to say so.
        """
        if self.ce_weight or not self.losses:
            return True
        for _, loss in self.losses:
            learns_from = getattr(loss, "has_target", None)
            if learns_from is None or learns_from(utterance):
                return True
        return False

    def targets(self, utterance: Utterance, filler: bool = False) -> dict[str, Tensor] | None:
        """Return what the losses have to know of an utterance, by names of their own.

        None: nothing is to be learned from it, so its answer tokens must not count in Σ weights.
        Those of a ``filler`` count nothing anyway, and the losses run on it as on any other.
        """
        if not filler and not self.has_target(utterance):
            return None
        found: dict[str, Tensor] = {}
        for _, loss in self.losses:
            own = loss.targets(utterance)
            for name in own.keys() & found.keys():
                if not torch.equal(own[name], found[name]):
                    raise ValueError(f"model.losses: two of them mean something else by {name!r}")
            found |= own
        return found

    def hear_labels(self, names: Sequence[str]) -> None:
        """Tell losses on label fields which of them the model's adapter hears."""
        for _, loss in self.losses:
            if hasattr(loss, "heard_fields"):
                loss.heard_fields = tuple(names)

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

        values, left_out = self._further(batch, speech, answers)
        extra = torch.zeros_like(values[0])
        for (weight, _), row in zip(self.losses, values, strict=True):
            extra = extra + weight * row
        if self.ce_weight:
            output = weighted(*answers(), batch.answer_weights)
        else:
            output = _spread(batch, extra)

        # Fillers have no weighted answer token; their other losses must not count either.
        has_answer = any_weight(batch.answer_weights, batch.answer_counts(), extra.device)
        further = (extra * has_answer).sum()
        if self.ce_weight:
            output.loss = self.ce_weight * output.loss + further
        else:
            output.loss = further

        # What the log tells of each.
        sums = {}
        for name, row in zip(self.names(), values, strict=True):
            sums[name] = (row.detach() * has_answer).sum()
        output.further = sums
        output.left_out = left_out
        return output

    def names(self) -> list[str]:
        """Name the further losses by their files; one that comes again is ``NAME.2``."""
        names: list[str] = []
        for _, loss in self.losses:
            file = _file_of(loss)
            before = sum(name.partition(".")[0] == file for name in names)
            names.append(f"{file}.{before + 1}" if before else file)
        return names

    def _further(
        self, batch: Batch, speech: Speech, answers: Answers
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the values (B,) of each further loss, not times its weight, and utterances that
        could not count, by reason."""
        recordings = (len(speech.lengths),)
        rows: list[Tensor] = []
        left_out: dict[str, Tensor] = {}
        for _, loss in self.losses:
            name = _file_of(loss)
            given = (speech, _Targets(batch.targets, name))
            if _needs_answers(loss):
                given += (answers,)
            found = loss(*given)
            if found.values.shape != recordings:
                raise ValueError(
                    f"loss {name} gives values of shape {tuple(found.values.shape)}; it must give "
                    f"one per utterance, {recordings}"
                )
            values = found.values.float()
            if batch.turns is not None:
                # So far they are those of recordings.
                values = batch.turns.sum_recordings(values)
            rows.append(values)
            left_out |= found.left_out
        return rows, left_out


def make_objective(conf: ModelConfig, template: Template) -> Objective:
    """Make the losses that ``conf`` names.

    Raises ValueError for a name without a file, for keys that a loss does not take, for a loss of
    the other kind, and for one on answers at ``ce_weight`` 0.
    """
    losses, entries = [], []
    for entry in conf.losses:
        loss = _make(entry, conf.kind, template)
        if _needs_answers(loss) and not conf.ce_weight:
            raise ValueError(
                f"model.losses {entry['name']}: is computed on the answers, which ce_weight 0 "
                "leaves out; set ce_weight above 0"
            )
        weight = float(entry["weight"])
        losses.append((weight, loss))
        entries.append(entry | getattr(loss, "kept", {}))
    return Objective(conf.ce_weight, losses, entries)


def _make(entry: dict[str, Any], kind: str, template: Template) -> Loss:
    """Make the loss of one entry of the yaml."""
    keys = dict(entry)
    name = keys.pop("name")
    keys.pop("weight", None)
    made = loss_class(name)
    if kind not in made.kinds:
        kinds = " and ".join(made.kinds)
        raise ValueError(
            f"model.losses {name}: is for kind {kinds}, and model.kind is {kind}; drop it"
        )
    try:
        return made(template, **keys)
    except (TypeError, ValueError) as error:
        raise ValueError(f"model.losses {name}: {error}") from None


def _file_of(loss: Loss) -> str:
    """Return the name that a loss has in the yaml, that of its file."""
    return type(loss).__module__.rpartition(".")[2]


def _needs_answers(loss: Loss) -> bool:
    """Return whether a loss is computed on the answers of the LLM too."""
    return getattr(loss, "needs_answers", False)


def loss_class(name: str) -> type:
    """Return the class of a plug-in. Raises ValueError with the known names."""
    try:
        return lookup.load_class(PACKAGE, name, "Loss", "plugins, e.g. [wenet_osum.small]")
    except ValueError as error:
        raise ValueError(f"model.losses: {error}") from None


def trained_with(
    before: list[dict[str, Any]] | None, now: list[dict[str, Any]]
) -> list[dict[str, Any]] | None:
    """Return the losses to keep in config.json: those of this run, then those of the runs before
    it.

    None, as in folders that were written before there was such a record, means that nobody knows.
    """
    if before is None and not now:
        return None
    names = {entry["name"] for entry in now}
    kept = list(now)
    for entry in before or []:
        if entry["name"] not in names:
            kept.append(entry)
    return kept


def any_weight(weights: Tensor | None, answers: Tensor, device: torch.device) -> Tensor:
    """Return (B,) float32: 1 for utterances with a weighted answer token, 0 for fillers.

    ``weights`` are (A,), None for 1 each; ``answers`` (B,) count the tokens of each utterance.
    """
    count = len(answers)
    if weights is None:
        return torch.ones(count, device=device)
    numbers = torch.arange(count)
    row = torch.repeat_interleave(numbers, answers)
    row = to_device(row, device)  # (A,)
    weighs = (weights != 0).to(device, torch.float32)
    counts = torch.zeros(count, device=device)
    counts.index_add_(0, row, weighs)
    return counts.clamp(max=1)


def _spread(batch: Batch, extra: Tensor) -> LossOutput:
    """Return the losses (B,) of utterances as losses of their answer tokens: with the weights of
    the tokens they add up to the losses again."""
    answers = batch.answer_counts()
    total = int(answers.sum())
    answers = to_device(answers, extra.device)
    weights = answers.to(torch.float32)
    if batch.answer_weights is not None:
        own = to_device(batch.answer_weights, extra.device)
        weights = torch.segment_reduce(own.float(), "sum", lengths=answers, unsafe=True)
    weights = torch.where(weights == 0, 1.0, weights)
    each = extra.detach() / weights
    nll = torch.repeat_interleave(each, answers, output_size=total)
    wrong = torch.zeros_like(nll, dtype=torch.bool)
    return weighted(nll, wrong, batch.answer_weights)


def _refuse_training(answering: dict[str, torch.nn.Module]) -> None:
    """Raise ValueError when a module is to be trained that does not run."""
    if not torch.is_grad_enabled():
        return
    trained = []
    for name, module in answering.items():
        if any(parameter.requires_grad for parameter in module.parameters()):
            trained.append(name)
    if trained:
        names = " and ".join(trained)
        patterns = ", ".join(f"{name}.*" for name in trained)
        raise ValueError(
            f"model.ce_weight 0 runs no {names}, yet train_parts names it; leave {patterns} out"
        )
