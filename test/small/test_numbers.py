"""Losses and gradients that the figures of the small recipes rest on, for weights and batches made of sines.

The numbers are those of the weighted sum that was written into the models before losses were plug-ins.
"""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2Config, WhisperConfig, WhisperForConditionalGeneration

from wenet_osum.config import ModelConfig
from wenet_osum.models.objective import make_objective
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import Batch
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
IDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
WHISPER = WhisperConfig(vocab_size=20, num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1, **HEADS, **IDS)
SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
CLOSE = 1e-4  # a change of the weights by their rounding, 1e-7, moves these numbers by 3e-5
LABEL_WORDS = [[[1], [2, 3]], [[4], [5], [6]]]  # token ids of the labels of two fields


def waves(model):
    """The model with weights of sines, which are the same whatever draws its own."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(model.named_parameters())):
            if "embed_positions" not in name or "decoder" in name:
                values = 0.4 * torch.sin(1.7 * torch.arange(parameter.numel(), dtype=torch.float64) + number)
                parameter.copy_(values.view(parameter.shape))
    return model.eval()


@pytest.fixture
def batch():
    features = torch.sin(torch.arange(2 * 60 * 8, dtype=torch.float64)).float().view(2, 60, 8).clone()
    features[1, 41:] = 0
    targets = {
        "transcript_ids": torch.tensor([6, 7, 8]),
        "transcript_times": torch.tensor([[0.05, 0.2], [0.25, 0.5], [-torch.inf, torch.inf]]),
        "probed_labels": torch.tensor([0, 2, -1, 1]),
    }
    targets["word_times"] = targets["transcript_times"]
    lengths = torch.tensor([2, 1])
    return Batch(
        keys=["a", "b"],
        tasks=["", ""],
        features=features,
        feature_lengths=torch.tensor([60, 41]),
        prompt_ids=torch.tensor([3, 4, 5]),
        prompt_lengths=torch.tensor([2, 1]),
        answer_ids=torch.tensor([6, 7, 0, 8, 0]),
        answer_lengths=torch.tensor([3, 2]),
        answer_weights=torch.tensor([1.0, 1.0, 0.5, 2.0, 1.0]),
        targets=targets | {"transcript_ids_lengths": lengths, "transcript_times_lengths": lengths, "word_times_lengths": lengths, "probed_labels_lengths": torch.tensor([2, 2])},
    )


def measured(model, batch):
    """Loss, and norm of the whole gradient."""
    model.zero_grad()
    output = model(batch)
    output.loss.backward()
    squares = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
    return output.loss.item(), torch.stack(squares).sum().sqrt().item()


def with_losses(model, kind, ce_weight, *losses):
    template = Template(train_tokenizer(["a"], 300))
    objective = make_objective(ModelConfig(kind=kind, ce_weight=ce_weight, losses=[*losses]), template)
    for _, loss in objective.losses:
        if hasattr(loss, "words"):
            loss.fields, loss.words = [None, None], LABEL_WORDS
    model.set_objective(objective)
    return model


@pytest.mark.parametrize(("ctc", "further", "loss", "norm"), [(0.8, None, 25.3244572, 41.5137212), (0.1, 4.0, 99.0740051, 57.7863858)])
def test_the_adapter_s_losses(batch, ctc, further, loss, norm):
    llm = Qwen2Config(vocab_size=20, eos_token_id=0, bos_token_id=None, **SIZES)
    config = OsumConfig(encoder=WHISPER.to_dict(), llm=llm.to_dict(), adapter_conf={"layers": 1, "heads": 2, "ffn": 32})
    losses = [{"name": "ctc", "weight": ctc, "word_times": True}]
    losses += [{"name": name, "weight": further} for name in ("label_probe", "word_time") if further]
    model = with_losses(waves(OsumModel(config).float()), "osum", 1 - ctc, *losses)
    assert measured(model, batch) == (pytest.approx(loss, rel=CLOSE), pytest.approx(norm, rel=CLOSE))


@pytest.mark.parametrize(("ctc", "loss", "norm"), [(0.7, 100.193054, 54.9483287), (1.0, 135.106720, 78.4399038)])
def test_the_encoder_s_losses(batch, ctc, loss, norm):
    model = WhisperPhase(WhisperForConditionalGeneration(WHISPER))
    model.add_ctc_head(model.blank)
    waves(model)
    with_losses(model, "whisper", 1 - ctc, {"name": "ctc", "weight": ctc, "word_times": True, "blanks_in_words": False})
    if ctc == 1:
        model.decoder.requires_grad_(False)
        model.proj_out.requires_grad_(False)
    assert measured(model, batch) == (pytest.approx(loss, rel=CLOSE), pytest.approx(norm, rel=CLOSE))
