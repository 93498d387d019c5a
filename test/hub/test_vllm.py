"""The plug-in of vLLM: what it needs of a model, without vLLM; and with it, where it is installed
(it has a torch of its own).
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from wenet_osum.hub import vllm as plug_in
from wenet_osum.hub.vllm import speech
from wenet_osum.models import lora, unread
from wenet_osum.models.osum import OsumModel
from wenet_osum.text.template import Template

SOUNDS = [
    np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in (16000, 9000, 23456)
]


def weights_of(folder):
    return ((name, stored.read()) for name, stored in unread.find(str(folder)).items())


def test_lora_is_added_to_the_weights_it_adapts(lora_dir):
    model = OsumModel.from_pretrained(lora_dir)
    model.merge_lora()
    wanted = model.state_dict()
    found = dict(speech.merged(weights_of(lora_dir), str(lora_dir)))
    before = dict(weights_of(lora_dir))
    assert set(found) == set(before)
    for name, weight in found.items():
        torch.testing.assert_close(weight, wanted[name])
    changed = {name for name in found if not torch.equal(found[name], before[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "down_proj"}


def test_lora_is_found_under_a_name_of_the_hub(lora_dir, tmp_path, monkeypatch):
    """A download leaves a snapshot that a file of the name points to."""
    repo = tmp_path / "models--me--it"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("0" * 40)
    (repo / "snapshots").mkdir()
    (repo / "snapshots" / ("0" * 40)).symlink_to(lora_dir)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path), raising=False)
    assert lora.settings("me/it") == lora.settings(str(lora_dir)) is not None
    found = dict(speech.merged(weights_of(lora_dir), "me/it"))
    wanted = dict(speech.merged(weights_of(lora_dir), str(lora_dir)))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_speech_is_embedded_as_in_the_model(model_dir):
    model, processor = (
        OsumModel.from_pretrained(model_dir).eval(),
        AutoProcessor.from_pretrained(model_dir),
    )
    part = speech.Speech(model.config).eval()
    own = ((name, weight) for name, weight in weights_of(model_dir) if not name.startswith("llm."))
    assert part.load_weights(own) == {
        name for name, _ in weights_of(model_dir) if not name.startswith("llm.")
    }
    inputs = processor(audio=SOUNDS, task="asr")
    features = [
        row[:length]
        for row, length in zip(inputs["features"], inputs["feature_lengths"], strict=True)
    ]
    found = part.embeddings(features)
    assert [len(row) for row in found] == part.counts(inputs["feature_lengths"]).tolist()
    assert [len(row) for row in found] == speech.skeleton(str(model_dir)).counts(
        inputs["feature_lengths"]
    ).tolist()
    with torch.no_grad():
        wanted, lengths = model.padded_speech(inputs["features"], inputs["feature_lengths"])
    before, after = model.speech_boundary.weight.split(1)
    for row, whole, length in zip(found, wanted, lengths.tolist(), strict=True):
        torch.testing.assert_close(
            row, torch.cat([before, whole[:length], after]), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("folder", ["model_dir", "chat_dir"])
def test_a_prompt_is_that_of_training_with_one_placeholder(folder, request):
    folder = request.getfixturevalue(folder)
    template = Template.load(folder)
    inputs = AutoProcessor.from_pretrained(folder)(audio=SOUNDS[0], task="asr", lang="en")
    ids = speech.prompt_ids(template, "asr", "en")
    place = ids.index(speech.placeholder_id(template))
    assert ids[:place] == inputs["prompt_ids"].tolist()
    assert ids[place + 1 :] == list(template.suffix_ids) and ids.count(ids[place]) == 1
    assert speech.prompt_ids(template, "asr", "fr") == ids


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_model_with_prompts_in_one_language_is_asked_in_it(model_dir, lang):
    table = {"asr": {lang: ["the cat"]}}
    template = Template(Template.load(model_dir).tokenizer, prompts=table)
    asked = [speech.prompt_ids(template, "asr", language) for language in ("zh", "en", None)]
    assert asked[0] == asked[1] == asked[2]


def test_a_recording_that_the_encoder_does_not_reach_is_refused(model_dir):
    config = OsumModel.from_pretrained(model_dir).config
    reach = 2 * config.encoder.max_source_positions
    speech.check_reach(config, torch.tensor([reach]))
    with pytest.raises(ValueError, match="are the most; cut it in pieces"):
        speech.check_reach(config, torch.tensor([reach + 1]))


def test_an_adapter_that_gives_what_ctc_hears_is_refused(model_dir):
    config = OsumModel.from_pretrained(model_dir).config
    config.adapter, config.adapter_conf = "ctc_shrink", {"heads": 2}
    with pytest.raises(ValueError, match="as many embeddings as CTC hears"):
        speech.Speech(config)


def test_an_answer_is_read_as_a_transcript():
    assert speech.transcript("hello \\<there") == "hello <there"


def test_it_registers_the_class_that_config_json_names(monkeypatch, model_dir):
    known = {}
    fake = types.ModuleType("vllm")
    fake.ModelRegistry = types.SimpleNamespace(register_model=known.__setitem__)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    plug_in.register()
    (architecture,) = OsumModel.from_pretrained(model_dir).config.architectures
    assert known == {architecture: "wenet_osum.hub.vllm.model:OsumForVllm"}


def test_vllm_takes_the_class_for_what_it_is():
    pytest.importorskip("vllm")
    from vllm.model_executor.models import interfaces

    from wenet_osum.hub.vllm.model import OsumForVllm

    for name in ("multimodal", "lora", "pp", "transcription"):
        assert getattr(interfaces, f"supports_{name}")(OsumForVllm), name


def test_vllms_processing_puts_a_placeholder_per_embedding(model_dir):
    """A request of /v1/audio/transcriptions with two recordings, through vLLM's own registry."""
    pytest.importorskip("vllm")
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    plug_in.register()
    config = ModelConfig(model=str(model_dir), dtype="float32", max_model_len=2048)
    processor = MULTIMODAL_REGISTRY.create_processor(config)
    template = Template.load(model_dir)
    ids = speech.prompt_ids(template, "asr", "en")
    token = speech.placeholder_id(template)
    frames = AutoProcessor.from_pretrained(model_dir)(audio=SOUNDS, task="asr")["feature_lengths"]
    wanted = speech.skeleton(str(model_dir)).counts(frames).tolist()
    for sound, count in zip(SOUNDS, wanted, strict=True):
        items = processor.info.parse_mm_data({"audio": [(sound, 16000)]})
        made = processor(ids, items)
        place = ids.index(token)
        assert made["prompt_token_ids"] == [*ids[:place], *[token] * count, *ids[place + 1 :]]
        (found,) = made["mm_placeholders"]["audio"]
        assert (found.offset, found.length) == (place, count)
    assert max(wanted) < processor.info.get_mm_max_tokens_per_item(2048, {"audio": 1})["audio"]
