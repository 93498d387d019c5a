"""The processor: what it takes, what it gives, how it is found and kept. That its inputs lead to decoding's answers: test/hub/test_export.py."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForMultimodalLM, AutoProcessor

from wenet_osum.dataset.audio import resample
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.processor import OsumFeatureExtractor, OsumProcessor
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

ROOT = Path(__file__).resolve().parents[2]
NOISE = np.random.default_rng(3).normal(0, 0.1, 12000).astype(np.float32)


@pytest.fixture
def folder(model, tmp_path):
    """As training leaves it: model, tokenizer and text settings, no processor_config.json."""
    template = Template(train_tokenizer(["the cat", "天气"], 300), labels={"emotion": ["glad", "sad"]}, prompts={"ser": {"en": ["How?"]}})
    model.save_pretrained(tmp_path / "m")
    template.save(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


def test_auto_classes_know_our_folders(folder, processor):
    assert type(processor) is OsumProcessor and processor.feature_extractor.feature_size == 8
    assert processor.template.labels == {"emotion": ["glad", "sad"]}
    assert type(AutoModel.from_pretrained(folder)) is type(AutoModelForMultimodalLM.from_pretrained(folder)) is OsumModel


@pytest.mark.parametrize(
    "order",
    [
        "import wenet_osum, transformers",
        pytest.param("import transformers, wenet_osum", marks=pytest.mark.slow),
        pytest.param("import wenet_osum.models.osum", marks=pytest.mark.slow),
    ],
)
def test_importing_the_package_registers_whatever_comes_first(order, folder):
    code = f"{order}\nfrom transformers import AutoConfig, AutoProcessor\nprint(type(AutoProcessor.from_pretrained({str(folder)!r})).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "OsumProcessor", done.stderr


def test_saved_processor_comes_back_with_its_settings(processor, tmp_path):
    processor.save_pretrained(tmp_path / "p")
    kept = json.loads((tmp_path / "p/processor_config.json").read_text())
    assert kept["processor_class"] == "OsumProcessor" and kept["feature_extractor"]["feature_size"] == 8
    assert type(AutoFeatureExtractor.from_pretrained(tmp_path / "p")) is OsumFeatureExtractor
    assert json.loads((tmp_path / "p/text.json").read_text())["prompts"] == {"<TRANSCRIBE> <EMOTION>": {"en": ["How?"]}}


def test_gives_exactly_what_generate_takes(model, processor):
    inputs = processor(audio=[NOISE, NOISE[:5000]], task=["ser", "<GENDER><AGE>"])
    assert list(inputs) == processor.model_input_names == ["features", "feature_lengths", "prompt_ids", "prompt_lengths", "tasks"]
    assert inputs["feature_lengths"].tolist() == [75, 31] and not inputs["features"][1, 31:].any()
    assert torch.equal(inputs["features"][0], log_mel(NOISE, 8))
    ser, both = inputs["prompt_ids"].split(inputs["prompt_lengths"].tolist())
    assert processor.template.decode(ser.tolist()) == "How?"
    assert both.tolist() == processor.template.prompt_ids(processor.template.task("<GENDER><AGE>"))
    assert processor(audio=NOISE, prompt="你好")["prompt_ids"].tolist() == processor.template.encode("你好")


def test_in_a_chat_the_suffix_comes_along(chat_tokenizer):
    settings = {"template": "chat", "system": "Be brief."}
    chatting = OsumProcessor(OsumFeatureExtractor(8), chat_tokenizer, settings)
    inputs = chatting(audio=[NOISE, NOISE[:5000]], prompt="Write.")
    assert list(inputs) == chatting.model_input_names and list(inputs)[-1] == "suffix_ids"
    assert chat_tokenizer.decode(inputs["suffix_ids"]) == "<|im_end|>\n<|im_start|>assistant\n"
    asked = chatting.template.encode_prompt("Write.")
    assert inputs["prompt_ids"].tolist() == asked * 2
    assert "system\nBe brief.<|im_end|>" in chat_tokenizer.decode(asked)


def test_sounds_of_all_kinds_and_rates(processor, tmp_path):
    wav = tmp_path / "a.wav"
    soundfile.write(wav, NOISE, 16000, subtype="FLOAT")
    data = wav.read_bytes()
    stereo = np.stack([NOISE, NOISE])
    kinds = [NOISE, torch.from_numpy(NOISE), wav, str(wav), data, io.BytesIO(data), (NOISE, 16000), stereo]
    features = processor(audio=kinds)["features"]
    assert all(torch.allclose(row, features[0], atol=1e-5) for row in features)
    halved = processor(audio=NOISE, sampling_rate=8000)
    assert torch.allclose(halved["features"][0], log_mel(resample(NOISE, 8000), 8), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_rate": 16}, "sample rate 16 must be a whole number of Hz"),
        ({"task": "emotion"}, "unknown task 'emotion'"),
        ({"task": ["ser", "asr"]}, "2 tasks for 1 sounds"),
        ({"task": "ser", "lang": "zh"}, "no 'zh' prompts"),
        ({"return_tensors": "np"}, "return_tensors 'np'"),
        ({"audio": []}, "at least one"),
        ({"audio": [0.1, 0.2]}, "a number is none"),
        ({"audio": np.zeros(0, np.float32)}, "empty"),
    ],
)
def test_faults_are_sentences(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**({"audio": NOISE} | arguments))


def test_texts_end_where_answers_end(processor):
    end, ids = processor.template.end_id, processor.template.encode("the cat<glad>")
    rows = torch.tensor([[*ids, end, end], [*ids[:-1], end, end, end]])
    assert processor.batch_decode(rows)[0] == "the cat<glad>" and "<|endoftext|>" not in processor.batch_decode(rows)[1]
    assert "<|endoftext|>" in processor.decode(rows[0], skip_special_tokens=False)
    assert processor.read("the cat<glad>", "ser").labels == {"emotion": "glad"}
