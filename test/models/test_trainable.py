from __future__ import annotations

import pytest
import torch

from wenet_osum.config import LoraConfig, OptimConfig, PartConfig
from wenet_osum.models import trainable

OPTIM = OptimConfig(lr=1e-3, weight_decay=0.1)


def test_groups_by_first_pattern_without_decay_on_norms_and_biases(model):
    chosen = {"adapter.layers.0.*": PartConfig(lr=5e-4), "adapter.*": PartConfig(), "speech_boundary.*": PartConfig(weight_decay=0.0)}
    groups = trainable.apply_train_parts(model, chosen, OPTIM)
    where = {name: group for group in groups for name in group["names"]}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(where) == trained == {n for n, _ in model.named_parameters() if n.startswith(("adapter.", "speech_boundary."))}
    assert where["adapter.layers.0.query.weight"]["lr"] == 5e-4 and where["adapter.layers.1.query.weight"]["lr"] == 1e-3
    assert where["adapter.output.weight"]["weight_decay"] == 0.1 and where["speech_boundary.weight"]["weight_decay"] == 0.0
    assert where["adapter.norm.weight"]["weight_decay"] == 0.0 and where["adapter.output.bias"]["weight_decay"] == 0.0
    torch.optim.AdamW(groups)


def test_patterns_without_parameters_are_named(model):
    with pytest.raises(ValueError, match=r"'adaptr\.\*' matches no parameter; close: adapter\.\*"):
        trainable.apply_train_parts(model, {"adaptr.*": PartConfig()}, OPTIM)
    with pytest.raises(ValueError, match="'adapter.norm.*'.*above"):
        trainable.apply_train_parts(model, {"adapter.*": PartConfig(), "adapter.norm.*": PartConfig()}, OPTIM)


def test_sinusoids_never_train_and_tied_names_count(model):
    trainable.apply_train_parts(model, {"encoder.*": PartConfig(), "llm.lm_head.*": PartConfig()}, OPTIM)
    assert not model.encoder.embed_positions.weight.requires_grad and model.encoder.conv1.weight.requires_grad
    assert model.llm.model.embed_tokens.weight.requires_grad


def test_frozen_dropout_stays_off_in_training(model, batch):
    model.encoder.dropout = 0.5
    for layer in model.encoder.layers:
        layer.dropout = 0.5
    model.add_lora(LoraConfig(r=2, dropout=0.5, targets=["q_proj"]))
    trainable.apply_train_parts(model, {"*lora*": PartConfig()}, OPTIM)
    model.train()
    assert model.training and not model.encoder.training and not model.adapter.training
    query = model.llm.model.layers[0].self_attn.q_proj
    assert query.lora_dropout["default"].training and not model.llm.model.layers[0].mlp.training
    first, second = (model.padded_speech(batch["features"], batch["feature_lengths"])[0] for _ in range(2))
    assert torch.equal(first, second)
    trainable.apply_train_parts(model, {"encoder.*": PartConfig()}, OPTIM)  # applies at once, without another train()
    assert model.encoder.training and not query.training
    assert not model.eval().encoder.training


def test_table_counts(model):
    groups = trainable.apply_train_parts(model, {"speech_boundary.*": PartConfig(lr=2e-4)}, OPTIM)
    lines = trainable.table(model, groups).splitlines()
    row = next(line.split() for line in lines if line.startswith("speech_boundary"))
    assert row == ["speech_boundary", "1", "64", "64", "0.0002"]
    assert lines[-1].split()[3] == "64" and [line.split()[0] for line in lines[1:]] == ["encoder", "llm", "adapter", "speech_boundary", "total"]


@pytest.mark.parametrize(
    ("pattern", "trains"),
    [("*lora*", True), ("llm.*", True), ("adapter.*", False), ("llm.model.norm.*", False)],
)
def test_lora_that_nothing_trains_is_a_fault(model, pattern, trains):
    model.add_lora(LoraConfig(r=2, targets=["q_proj"]))
    if trains:
        trainable.check_lora_trains(model, {pattern: PartConfig()})
    else:
        said = r"adapters that train_parts \(.*\) does not train; add '\*lora\*: {}'"
        with pytest.raises(ValueError, match=said):
            trainable.check_lora_trains(model, {pattern: PartConfig()})
