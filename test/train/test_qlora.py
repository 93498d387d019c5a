"""LoRA on an LLM whose own weights have 4 bits (QLoRA). Skipped where bitsandbytes is not
installed: it is not part of the default install.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from wenet_osum import config
from wenet_osum.models import build
from wenet_osum.small import models as small
from wenet_osum.text.tokenizer import load_tokenizer
from wenet_osum.train.estimate import Mean, estimate
from wenet_osum.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory):
    """An LLM with rows of whole blocks."""
    folder = tmp_path_factory.mktemp("wide")
    tokenizer = load_tokenizer(str(tiny.folder / "llm"))
    tokenizer.save_pretrained(str(folder))
    sizes = small.SmallLlm(width=64, layers=1, heads=2, kv_heads=1, ffn=64)
    small.small_llm(sizes, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def conf(tiny, llm):
    """conf(quantization, …) → configuration."""

    def make(quantization: str = "nf4", **changes) -> config.TrainConfig:
        tree = tiny.tree(**changes)
        tree["model"] |= {"llm": str(llm), "quantization": quantization}
        return config.from_dict(tree)

    return make


def test_a_run_that_goes_on_ends_with_the_bits_of_an_unbroken_one(conf, tmp_path, weights_of):
    pytest.importorskip("bitsandbytes")
    assert train(conf(), tmp_path / "whole") == 0
    assert train(conf(max_steps=4), tmp_path / "parts") == 0
    assert train(conf(), tmp_path / "parts") == 0
    whole, parts = (weights_of(tmp_path / name / "final") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_the_folder_is_an_ordinary_one_with_the_weights_that_were_trained_on(conf, tmp_path):
    pytest.importorskip("bitsandbytes")
    assert train(conf(max_steps=2), tmp_path) == 0
    found = build.load(tmp_path / "final")
    before = build.build(conf("none").model)[0]
    ours = dict(found.llm.named_parameters())
    theirs = dict(before.llm.named_parameters())
    name = "model.layers.0.self_attn.q_proj.base_layer.weight"
    kept = ours[name]
    assert kept.shape == theirs[name].shape
    difference = (kept - theirs[name]).norm() / theirs[name].norm()
    assert 0.01 < difference < 0.3
    assert len(kept.unique()) <= 16 * (kept.numel() // 64 + 1)


def test_the_estimate_counts_half_a_byte_and_a_scale_per_weight(conf):
    mean = Mean(2.0, 5, 7)
    sizes = [
        AutoConfig.from_pretrained(conf().model.whisper),
        AutoConfig.from_pretrained(conf().model.llm),
    ]
    plain = estimate(conf("none"), *sizes, mean).memory
    counted = estimate(conf(), *sizes, mean).memory
    name = "frozen weights of 4 bits, with their scales"
    assert name not in plain
    weights = counted[name] / 0.5625
    frozen = "frozen weights, 4 bytes each"
    assert weights == 4 * 64 * 64 - 2 * 32 * 64 + 3 * 64 * 64, (
        "query, output; half as wide key, value; the MLP"
    )
    assert plain[frozen] - counted[frozen] == 4 * weights
