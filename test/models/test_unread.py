"""Models whose weights stay in their files at first have, once these are read, the numbers of models
that were read whole.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    WhisperForConditionalGeneration,
)

from wenet_osum.config import LoraConfig, ModelConfig
from wenet_osum.models import build, unread
from wenet_osum.models.llm import proof

ADAPTER = {"heads": 2, "layers": 1, "ffn": 16}
LORA = LoraConfig(r=2, targets=["q_proj"])


@pytest.fixture(scope="module")
def sources(folders, tmp_path_factory):
    """The folders with a tokenizer, phase 1 of other weights, and a whole model with LoRA."""
    root = tmp_path_factory.mktemp("unread")
    words = models.WordLevel({f"w{i}": i for i in range(20)}, unk_token="w0")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="w1")
    for name, kind in (("whisper", WhisperForConditionalGeneration), ("tied", Qwen2ForCausalLM)):
        kind.from_pretrained(folders / name, dtype=torch.bfloat16).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    phase, _ = build.build(ModelConfig(kind="whisper", whisper=str(root / "whisper")))
    with torch.no_grad():
        phase.encoder.conv1.weight.add_(1.0)
    phase.encoder.config.pad_s = 0.5
    phase.save_pretrained(root / "phase1")
    torch.manual_seed(5)
    whole, _ = build.build(new(root, lora=LORA))
    for name, parameter in whole.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    whole.save_pretrained(root / "whole", max_shard_size="2KB")
    tokenizer.save_pretrained(root / "whole")
    return root


def new(sources, **changes) -> ModelConfig:
    parts = {"whisper": str(sources / "whisper"), "llm": str(sources / "tied")}
    return ModelConfig(**parts, adapter_conf=ADAPTER, **changes)


def both(conf: ModelConfig):
    """The model read whole, and that whose weights are read later; what they draw next."""
    found = []
    for later in (False, True):
        torch.manual_seed(1)
        model, _ = build.build(conf, weights_later=later)
        found.append((model, torch.rand(3)))
    (whole, drawn), (later, drawn_later) = found
    assert torch.equal(drawn, drawn_later), "the draws after it are others"
    return whole, later


def starts(sources) -> dict[str, ModelConfig]:
    phase1, whole = str(sources / "phase1"), str(sources / "whole")
    return {
        "new": new(sources),
        "lora": new(sources, lora=LORA),
        "phase1": new(sources, init_parts={"encoder": phase1}),
        "parts": new(sources, init_parts=dict.fromkeys(("encoder", "adapter", "llm"), whole)),
        "whole": ModelConfig(init_from=whole, lora=LORA),
    }


@pytest.mark.parametrize("start", ["new", "lora", "phase1", "parts", "whole"])
def test_all_starts_give_the_same_numbers(sources, start):
    whole, later = both(starts(sources)[start])
    on_meta = {name for name, p in later.named_parameters() if p.is_meta}
    assert any(name.startswith("encoder.") for name in on_meta)
    assert any(name.startswith("llm.") for name in on_meta) or start == "parts", "LoRA is merged"
    assert not any(name.startswith(("adapter.", "speech")) or "lora" in name for name in on_meta)

    unread.read(later)
    assert not later.unread
    wanted = whole.state_dict()
    found = later.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    buffers = dict(later.named_buffers())
    assert buffers.keys() == dict(whole.named_buffers()).keys()
    assert all(torch.equal(value, buffers[name]) for name, value in whole.named_buffers())
    head, table = later.llm.get_output_embeddings(), later.get_input_embeddings()
    assert head.weight is table.weight, "tied weights stay tied"
    assert later.llm.generation_config.to_dict() == whole.llm.generation_config.to_dict()
    assert later.config.to_dict() == whole.config.to_dict()


def test_weights_are_read_in_the_dtype_the_model_has(sources):
    _, later = both(new(sources))
    for parameter in later.encoder.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    unread.read(later, part="encoder")
    assert {p.dtype for p in later.encoder.parameters()} == {torch.bfloat16}
    assert all(p.is_meta for p in later.llm.parameters())
    place = later.unread["llm.model.norm.weight"]
    assert torch.equal(place.read(1, 3), place.read()[1:3])


def test_a_copy_is_whole_and_the_model_stays_unread(sources):
    whole, later = both(ModelConfig(init_from=str(sources / "whole"), lora=LORA))
    copied = unread.whole_copy(later, "llm", torch.device("cpu"), torch.float32)
    found = copied.state_dict()
    for name, tensor in whole.llm.state_dict().items():
        assert torch.equal(found[name], tensor), name
    assert all(p.is_meta for name, p in later.llm.named_parameters() if "lora" not in name)
    assert any(name.startswith("llm.") for name in later.unread)


def test_what_a_file_has_otherwise_is_read_whole(sources, tmp_path):
    """Names of before, .bin files: transformers knows them."""
    llm = build.causal.read(str(sources / "tied"))
    llm.save_pretrained(tmp_path / "bin")
    (tmp_path / "bin/model.safetensors").unlink()
    torch.save(llm.state_dict(), tmp_path / "bin/pytorch_model.bin")
    conf = new(sources)
    conf.llm = str(tmp_path / "bin")
    shutil.copy(sources / "tied/tokenizer.json", tmp_path / "bin")
    shutil.copy(sources / "tied/tokenizer_config.json", tmp_path / "bin")
    _, later = both(conf)
    assert not any(p.is_meta for p in later.llm.parameters())
    assert all(name.startswith("encoder.") for name in later.unread)


def test_packing_is_proved_without_the_weights(sources, monkeypatch):
    """A few layers stand in; attention across the border is noticed all the same."""
    llm, _ = build.causal.without_weights(str(sources / "tied"))
    proof.check_packed(llm)
    packing = build.causal.Packing
    monkeypatch.setattr(build.causal, "Packing", lambda lengths, device: packing([sum(lengths)]))
    with pytest.raises(ValueError, match="the second of two utterances differs"):
        proof.check_packed(llm)
