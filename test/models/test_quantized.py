"""Weights of 8 and 4 bits. Where their libraries are not installed (they are not part of the
default install), what depends on them is skipped, and what is said without them is tested.
"""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from transformers import Qwen2ForCausalLM

import wenet_osum
from wenet_osum import config
from wenet_osum.models import quantized
from wenet_osum.models.osum import OsumModel

from .conftest import ADAPTER, llm_config


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_a_missing_library_is_named_with_the_command_before_the_model_is_loaded(monkeypatch, how):
    monkeypatch.setitem(sys.modules, quantized.LIBRARY[how], None)
    with pytest.raises(ValueError, match="pip install -r requirements/quantization.txt"):
        wenet_osum.load("no such folder", quantization=how)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="quantization"):
        wenet_osum.load("no such folder", quantization="int3")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"engine": "fsdp"}, "use engine ddp"),
        ({"model": {"kind": "whisper", "whisper": "w"}}, "has no LLM"),
    ],
)
def test_what_cannot_be_quantized_is_refused(changes, sentence):
    tree = {
        "data": "d",
        "model": {"whisper": "w", "llm": "l"},
        "train_parts": {"*": {}},
        "max_steps": 1,
    }
    tree |= changes
    tree["model"]["quantization"] = "nf4"
    with pytest.raises(ValueError, match=sentence):
        config.from_dict(tree)


def _features(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    lengths = torch.tensor([120, 80, 100][:count])
    return torch.randn(count, 120, 8, generator=draw), lengths


def _states(model, features, lengths) -> torch.Tensor:
    """The LLM's logits after speech alone, each row at its last position."""
    with torch.no_grad():
        speech, lengths = model.padded_speech(features, lengths)
        rows = []
        for row, length in zip(speech, lengths.tolist(), strict=True):
            output = model.llm(inputs_embeds=row[None, :length])
            rows.append(output.logits[0, -1])
    return torch.stack(rows)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """An LLM with rows of whole blocks."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("wide")
    sizes = llm_config(hidden_size=64, intermediate_size=128)
    Qwen2ForCausalLM(sizes).save_pretrained(folder)
    return folder


@pytest.fixture
def whole(folders, wide):
    torch.manual_seed(1)
    return OsumModel.from_parts(folders / "whisper", wide, adapter_conf=ADAPTER).eval()


def test_int8_answers_nearly_as_float_and_a_row_does_not_see_the_others(whole):
    pytest.importorskip("torchao")
    features, lengths = _features()
    before = _states(whole, features, lengths)
    small = copy.deepcopy(whole)
    quantized.for_decoding(small, "int8")
    after = _states(small, features, lengths)
    assert not torch.equal(after, before)
    assert (after - before).norm() < 0.05 * before.norm()

    # A scale per token: the same states beside others, much larger ones.
    layer = small.llm.model.layers[0].mlp.gate_proj
    states = torch.randn(2, 5, layer.weight.shape[1])
    alone = layer(states[:1])
    states[1] *= 100
    torch.testing.assert_close(layer(states)[:1], alone)


def test_nf4_takes_the_llm_but_its_head(whole):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    features, lengths = _features()
    before = _states(whole, features, lengths)
    small = copy.deepcopy(whole)
    quantized.for_decoding(small, "nf4")
    whole.requires_grad_(False)
    count = len(quantized.frozen_layers(whole))
    found = [m for m in small.llm.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(found) == count > 0
    assert type(small.llm.get_output_embeddings()) is torch.nn.Linear
    # The model that these 4 bits stand for; asked first, for answering lays them out anew.
    meant = quantized.plain_state(small, torch.float32)
    after = _states(small, features, lengths)
    assert not torch.equal(after, before)
    whole.load_state_dict(meant)
    meant = _states(whole, features, lengths)
    assert (after - meant).norm() < 0.02 * meant.norm()


def test_saved_and_quantized_again_is_the_same_4_bits(whole):
    pytest.importorskip("bitsandbytes")
    whole.requires_grad_(False)
    first = copy.deepcopy(whole)
    quantized.to_nf4(first, torch.float32, trains=True)
    for dtype in (torch.float32, torch.bfloat16):
        state = quantized.plain_state(first, dtype)
        assert state.keys() == whole.state_dict().keys()
        again = copy.deepcopy(whole)
        again.load_state_dict(state)
        again.requires_grad_(False)
        quantized.to_nf4(again, torch.float32, trains=True)
        ours, theirs = first.state_dict(), again.state_dict()
        packed = [name for name, tensor in ours.items() if tensor.dtype == torch.uint8]
        assert packed
        for name in packed:
            assert torch.equal(ours[name], theirs[name]), name
        scales = [name for name in ours if name.endswith("absmax")]
        assert scales
        for name in scales:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_gradients_pass_through_4_bits_after_an_evaluation(whole):
    pytest.importorskip("bitsandbytes")
    whole.requires_grad_(False)
    quantized.to_nf4(whole, torch.float32, trains=True)
    layer = whole.llm.model.layers[0].mlp.gate_proj
    with torch.no_grad():
        layer(torch.randn(1, 3, layer.in_features))
    states = torch.randn(1, 3, layer.in_features, requires_grad=True)
    layer(states).sum().backward()
    assert states.grad.abs().sum() > 0


def test_phase_1_has_no_4_bits():
    pytest.importorskip("bitsandbytes")
    with pytest.raises(ValueError, match="phase 1 has none"):
        quantized.to_nf4(torch.nn.Linear(2, 2), torch.float32)
