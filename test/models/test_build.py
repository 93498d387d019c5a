from __future__ import annotations

import shutil

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from wenet_osum.config import LoraConfig, ModelConfig
from wenet_osum.models.build import build, check_folder, load, set_checkpointing, take_over
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.whisper import WhisperPhase

ADAPTER = {"heads": 2, "layers": 1, "ffn": 16}


@pytest.fixture
def sources(folders, tmp_path):
    """The folders again, with a tokenizer of 21 ids in each (transformers adds its padding)."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({f"w{i}": i for i in range(20)}, unk_token="w0")), eos_token="w1")
    for name in ("whisper", "tied"):
        shutil.copytree(folders / name, tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


def osum(sources, **changes):
    return ModelConfig(whisper=str(sources / "whisper"), llm=str(sources / "tied"), adapter_conf=ADAPTER, **changes)


def test_parts_are_taken_over(sources, batch, as_batch):
    phase, tokenizer = build(ModelConfig(kind="whisper", whisper=str(sources / "whisper")))
    assert isinstance(phase, WhisperPhase) and phase.ctc_head is None and len(tokenizer) == 20
    with torch.no_grad():
        phase.encoder.conv1.weight.add_(1.0)
    phase.save_pretrained(sources / "phase1")
    first, _ = build(osum(sources, init_parts={"encoder": str(sources / "phase1")}))
    assert torch.equal(first.encoder.conv1.weight, phase.encoder.conv1.weight)
    first.add_lora(LoraConfig(r=2, targets=["q_proj"]))
    first.save_pretrained(sources / "phase2")
    parts = {part: str(sources / "phase2") for part in ("encoder", "adapter", "speech_boundary", "llm")}
    second, _ = build(osum(sources, init_parts=parts, lora=LoraConfig(r=4)))
    assert second.lora.r == 4
    torch.testing.assert_close(second(as_batch(batch)).nll, first.eval()(as_batch(batch)).nll)
    take_over(build(osum(sources))[0], "llm", str(sources / "tied"))


def test_a_part_that_computes_otherwise_is_refused(sources, folders):
    """Weights of the same shapes, which the new model would read with other settings."""
    model, _ = build(osum(sources))
    OsumModel.from_parts(sources / "whisper", sources / "tied", adapter_conf=ADAPTER | {"heads": 4}).save_pretrained(sources / "four")
    with pytest.raises(ValueError, match=r"adapter: .*heads is 4 there, 2 here"):
        take_over(model, "adapter", sources / "four")

    with pytest.raises(ValueError, match="two tables there, one here"):
        take_over(model, "llm", folders / "untied")
    conf = Qwen2Config.from_pretrained(folders / "tied")
    conf.rope_parameters = {"rope_type": "default", "rope_theta": 1e6}
    Qwen2ForCausalLM(conf).save_pretrained(sources / "theta")
    with pytest.raises(ValueError, match=r"rope_theta is 1000000\.0 there"):
        take_over(model, "llm", sources / "theta")


def test_lora_goes_on_with_another_dropout(sources):
    model, _ = build(osum(sources, lora=LoraConfig(r=2, dropout=0.1, targets=["q_proj"])))
    model.save_pretrained(sources / "phase2")
    for file in (sources / "tied").glob("tokenizer*"):
        shutil.copy(file, sources / "phase2")
    again, _ = build(osum(sources, init_from=str(sources / "phase2"), lora=LoraConfig(r=2, dropout=0.0, targets=["q_proj"])))
    layer = again.llm.model.layers[0].self_attn.q_proj
    assert again.lora.lora_dropout == 0.0 and layer.lora_dropout["default"].rate == 0.0


def test_the_head_of_a_tied_llm_takes_no_lora(sources):
    with pytest.raises(ValueError, match="head is its table of embeddings"):
        build(osum(sources, lora=LoraConfig(r=2, targets=["q_proj", "lm_head"])))


def test_saving_a_merged_model_takes_the_adapters_away(sources):
    model, _ = build(osum(sources, lora=LoraConfig(r=2, targets=["q_proj"])))
    with pytest.raises(ValueError, match="push_to_hub of the model"):
        model.save_pretrained(sources / "x", push_to_hub=True)
    model.save_pretrained(sources / "x")
    merged = OsumModel.from_pretrained(sources / "x")
    merged.merge_lora()
    merged.save_pretrained(sources / "x")
    assert OsumModel.from_pretrained(sources / "x").lora is None


def test_faults_are_named(sources):
    model, _ = build(osum(sources))
    with pytest.raises(ValueError, match="unknown part 'encodr', did you mean 'encoder'"):
        take_over(model, "encodr", sources / "whisper")
    with pytest.raises(ValueError, match="without adapter"):
        take_over(model, "adapter", sources / "whisper")
    other = OsumModel.from_parts(sources / "whisper", sources / "tied", adapter_conf={"heads": 2, "layers": 2, "ffn": 24})
    other.save_pretrained(sources / "other")
    with pytest.raises(ValueError, match=r"adapter: .* does not fit, 19 differences.*is unknown here"):
        take_over(model, "adapter", sources / "other")
    with pytest.raises(ValueError, match="unknown model_type 'qwen2'"):
        load(sources / "tied")
    with pytest.raises(ValueError, match="no model in"):
        load(sources / "nothing")


def test_a_tokenizer_with_more_ids_than_rows_is_refused(sources):
    llm = Qwen2ForCausalLM.from_pretrained(sources / "tied")
    llm.resize_token_embeddings(16)
    llm.save_pretrained(sources / "tied")
    with pytest.raises(ValueError, match="20 ids, the model embeddings for 16"):
        build(osum(sources))


def test_init_from_brings_all_parts_and_checks_lora(sources, batch, as_batch):
    model, tokenizer = build(osum(sources, lora=LoraConfig(r=2, targets=["q_proj"])))
    model.save_pretrained(sources / "final")
    tokenizer.save_pretrained(sources / "final")
    again, _ = build(ModelConfig(init_from=str(sources / "final"), lora=LoraConfig(r=2, targets=["q_proj"])))
    assert torch.equal(again(as_batch(batch)).nll, model.eval()(as_batch(batch)).nll)
    with pytest.raises(ValueError, match="differs from the loaded adapters"):
        build(ModelConfig(init_from=str(sources / "final"), lora=LoraConfig(r=8)))
    with pytest.raises(ValueError, match="model.kind is 'whisper'"):
        build(ModelConfig(kind="whisper", init_from=str(sources / "final")))


def test_dtype_and_checkpointing(sources, batch, as_batch):
    model, _ = build(osum(sources), dtype=torch.bfloat16)
    set_checkpointing(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    output = model.train()(as_batch(batch))
    output.loss.backward()
    assert output.nll.dtype == torch.float32 and model.adapter.output.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "message"),
    [("w/exp/nothere", "no model in 'w/exp/nothere': there is no such folder"), ("exp/1", "did you mean exp/1/final"), ("exp", "has no config.json")],
)
def test_a_folder_without_a_model_is_told(tmp_path, monkeypatch, name, message):
    (tmp_path / "exp/1/final").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    check_folder("org/name")
    with pytest.raises(ValueError, match=message):
        load(name)
