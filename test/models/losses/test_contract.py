"""Every file of models/losses, and of small/losses, keeps to what the package asks of a loss."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wenet_osum import lookup
from wenet_osum.config import ModelConfig
from wenet_osum.dataset.batch import join_targets
from wenet_osum.models.objective import PACKAGE, Objective, Speech, UtteranceLosses, make_objective
from wenet_osum.records import Utterance, Word
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

lookup.add_plugins(["wenet_osum.small"])
KNOWN = Utterance("a", "a", "red cat", labels={"gender": "male"}, words=[Word("red", 0.1, 0.3), Word("cat", 0.3, 0.7)])
SILENT = Utterance("", "", "")  # a filler's


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(["red cat", "male female"] * 9, 400))


def needs_answers(name):
    """Those that do are computed by a whole model, in tests of their own."""
    return getattr(lookup.load(PACKAGE, name).Loss, "needs_answers", False)


@pytest.mark.parametrize("name", [n for n in lookup.names(PACKAGE) if not needs_answers(n)])
def test_targets_and_values(template, name):
    entry = {"name": name, "weight": 1.0}
    kind = lookup.load(PACKAGE, name).Loss.kinds[0]
    objective = make_objective(ModelConfig(kind=kind, losses=[entry]), template)
    rows = [objective.targets(utterance) for utterance in (KNOWN, SILENT)]
    assert rows[0].keys() == rows[1].keys(), "a filler must have the same targets"
    [(_, loss)] = objective.losses
    torch.manual_seed(0)
    table = torch.randn(len(template.tokenizer), 32)
    states = torch.randn(2, 20, 32, requires_grad=True)
    speech = Speech(states, torch.tensor([20, 9]), 0.08, lambda: states @ table.T, template.end_id, table, {"gender": states[:, 0]})
    found = loss(speech, join_targets(rows))
    assert isinstance(found, UtteranceLosses) and found.values.shape == (2,) and found.values.isfinite().all()
    assert all(int(count) == 0 for count in found.left_out.values())
    found.values.sum().backward()
    assert states.grad[0].abs().sum() > 0 and not states.grad[1, 9:].any(), "padding has no gradient"


@pytest.mark.parametrize("name", lookup.names(PACKAGE))
def test_an_unknown_key_is_refused_by_name(template, name):
    kind = lookup.load(PACKAGE, name).Loss.kinds[0]
    with pytest.raises(ValueError, match=f"model.losses {name}: .*no_such_key"):
        make_objective(ModelConfig(kind=kind, losses=[{"name": name, "weight": 1.0, "no_such_key": 1}]), template)


def test_an_unknown_loss_is_told_with_the_known_ones(template):
    with pytest.raises(ValueError, match="did you mean 'ctc'.*plugins"):
        make_objective(ModelConfig(losses=[{"name": "ctcc", "weight": 1.0}]), template)


def test_losses_beside_each_other_have_targets_of_their_own(template):
    """A clip with a label alone: CTC marks its transcript as missing, which others know nothing of."""
    lookup.add_plugins(["wenet_osum.small"])
    entries = [{"name": "ctc", "weight": 1.0, "word_times": True}, {"name": "distill", "weight": 1.0}, {"name": "word_time", "weight": 1.0}]
    labels = [{"name": "labels", "weight": 1.0}, {"name": "label_probe", "weight": 1.0}]
    bare = Utterance("b", "b", labels={"gender": "male"})
    for rows in (entries, entries[::-1], labels, labels[::-1]):
        together = make_objective(ModelConfig(losses=rows), template).targets(bare)
        alone = {}
        for row in rows:
            alone |= make_objective(ModelConfig(losses=[row]), template).targets(bare)
        assert together.keys() == alone.keys() and len(alone) == sum(1 for _ in rows) + (rows in (entries, entries[::-1]))
        assert all(torch.equal(together[name], alone[name]) for name in alone)


def test_labels_that_no_query_hears_are_no_target(template):
    objective = make_objective(ModelConfig(losses=[{"name": "labels", "weight": 1.0}], ce_weight=0.0), template)
    bare = Utterance("b", "b", labels={"gender": "male"})
    assert objective.targets(bare)
    objective.hear_labels(["emotion"])
    assert objective.targets(bare) is None and objective.targets(bare, filler=True)


def test_labels_leave_the_words_of_the_llm_where_they_are(template):
    objective = make_objective(ModelConfig(losses=[{"name": "labels", "weight": 1.0}]), template)
    [(_, loss)] = objective.losses
    table = torch.randn(len(template.tokenizer), 32, requires_grad=True)
    speech = Speech(torch.randn(1, 9, 32), torch.tensor([9]), 0.08, lambda: None, template.end_id, table, {"gender": torch.randn(1, 32)})
    values = loss(speech, join_targets([objective.targets(KNOWN)])).values
    assert values[0] > 0 and not values.requires_grad


class Counted:
    """A loss of nothing that leaves one utterance out."""

    needs_logits = False

    def __init__(self, reason):
        self.reason = reason

    def __call__(self, speech, targets):
        return UtteranceLosses(torch.zeros(2), {self.reason: torch.tensor(1)})


def test_all_reasons_are_counted_and_answers_weigh_what_they_should():
    batch = SimpleNamespace(turns=None, targets={}, answer_weights=None, answer_counts=lambda: torch.tensor([1, 1]))
    speech = Speech(torch.zeros(2, 3, 4), torch.tensor([3, 3]), 0.08, lambda: None, 0)

    def answers():
        return torch.tensor([1.0, 2.0]), torch.tensor([True, False])

    output = Objective(0.5, [(1.0, Counted("a")), (1.0, Counted("b"))])(batch, speech, answers, {})
    assert output.left_out == {"a": 1, "b": 1} and float(output.loss) == 1.5
    assert float(Objective(0.5)(batch, speech, answers, {}).loss) == 1.5


class Given(Counted):
    def __init__(self, *values):
        super().__init__("none")
        self.values = torch.tensor(values)

    def __call__(self, speech, targets):
        return UtteranceLosses(self.values)


@pytest.mark.parametrize("ce_weight", [0.0, 0.5])
def test_each_loss_is_told_without_its_weight(ce_weight):
    """The loss is ce_weight · cross-entropy + Σ weight · what is told; the second utterance is a filler."""
    batch = SimpleNamespace(turns=None, targets={}, answer_weights=torch.tensor([2.0, 0.0]), answer_counts=lambda: torch.tensor([1, 1]))
    speech = Speech(torch.zeros(2, 3, 4), torch.tensor([3, 3]), 0.08, lambda: None, 0)
    objective = Objective(ce_weight, [(3.0, Given(1.0, 100.0)), (0.25, Given(4.0, 100.0))])
    output = objective(batch, speech, lambda: (torch.tensor([5.0, 100.0]), torch.tensor([True, False])), {})
    assert [*output.further] == ["test_contract", "test_contract.2"]
    assert [*map(float, output.further.values())] == [1.0, 4.0]
    assert float(output.loss) == ce_weight * 10 + 3 * 1.0 + 0.25 * 4.0
