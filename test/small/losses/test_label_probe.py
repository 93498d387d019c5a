"""The mean speech embedding points to the words of the labels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wenet_osum.config import ModelConfig
from wenet_osum.models.objective import make_objective
from wenet_osum.records import Utterance
from wenet_osum.small.losses import label_probe
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

WORDS = [[[1], [2, 3]], [[4], [5], [6]]]  # token ids of the labels of two fields


@pytest.fixture
def table():
    torch.manual_seed(0)
    return torch.randn(9, 64)


def frames_with(direction, count=12):
    torch.manual_seed(1)
    return functional.normalize(functional.normalize(torch.randn(1, count, 64), dim=-1) + direction, dim=-1)


def test_a_label_in_all_frames_is_right_and_another_wrong(table):
    label = functional.normalize((table[2] + table[3]) / 2, dim=-1)
    frames = frames_with(0.5 * label)
    right, wrong, unknown = (
        float(label_probe.label_losses(frames, torch.tensor([12]), torch.tensor([[place, -1]]), WORDS, table)) for place in (1, 0, -1)
    )
    assert right < 0.1 < 2.0 < wrong and unknown == 0.0


def test_losses_of_fields_add_up(table):
    frames, lengths = frames_with(0.0), torch.tensor([12])
    one = [float(label_probe.label_losses(frames, lengths, torch.tensor([row]), WORDS, table)) for row in ([0, 2], [0, -1], [-1, 2])]
    assert one[0] == pytest.approx(one[1] + one[2]) and one[1] > 0 and one[2] > 0


@pytest.mark.parametrize("length", [1, 7, 40])
def test_padding_changes_nothing(table, length):
    frames = functional.normalize(torch.randn(2, 60, 64), dim=-1)
    labels, lengths = torch.tensor([[0, 2], [1, 0]]), torch.tensor([60, length])
    together = label_probe.label_losses(frames, lengths, labels, WORDS, table)
    alone = label_probe.label_losses(frames[1:, :length], lengths[1:], labels[1:], WORDS, table)
    torch.testing.assert_close(together[1:], alone)


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(["red cat", "male female happy sad"] * 9, 400))


def test_targets_are_the_indices_of_known_labels(template):
    loss = label_probe.Loss(template)
    names = [field.name for field in loss.fields]
    found = dict(zip(names, loss.targets(Utterance("a", "a", labels={"gender": "male", "emotion": "happy"}))["probed_labels"].tolist(), strict=True))
    gender, emotion = (next(f for f in loss.fields if f.name == name).labels.names for name in ("gender", "emotion"))
    assert gender[found.pop("gender")] == "male" and emotion[found.pop("emotion")] == "happy"
    assert set(found.values()) == {-1}
    words = loss.words[names.index("emotion")]
    assert [template.decode(ids) for ids in words] == [*emotion]


def test_the_model_takes_it_with_its_weight(osum, template):
    model, batch = osum
    plain = model(batch).loss
    entry = {"name": "label_probe", "weight": 0.5}
    model.set_objective(make_objective(ModelConfig(losses=[entry]), template))
    (_, loss), rows = model.objective.losses[0], [Utterance("a", "a", labels={"gender": "male"}), Utterance("b", "b", labels={"emotion": "sad"}), Utterance("c", "c")]
    batch.targets = {"probed_labels": torch.cat([loss.targets(row)["probed_labels"] for row in rows])}
    speech, lengths = model.padded_speech(batch.features, batch.feature_lengths)
    labels = batch.targets["probed_labels"].view(3, -1)
    found = label_probe.label_losses(functional.normalize(speech, dim=-1), lengths, labels, loss.words, model.get_input_embeddings().weight)
    assert found[:2].min() > 0 == found[2]
    torch.testing.assert_close(model(batch).loss, plain + 0.5 * found.sum())
    batch.answer_weights = torch.zeros_like(batch.answer_weights)
    assert float(model(batch).loss) == 0.0
