"""Exported folders: the answers of transformers' own way are those of decoding, the card tells the truth, the LLM stands alone."""

from __future__ import annotations

import json
import math
import runpy
import shutil
import sys
import types

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from wenet_osum.bin import export as command
from wenet_osum.decode import generate
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.hub import export, history, licenses
from wenet_osum.records import Score, Utterance
from wenet_osum.score import score_json

LENGTHS = (16000, 9000, 23456, 4000, 12345)
SOUNDS = [np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in LENGTHS]
TOKENS = 30


@pytest.fixture(scope="module")
def hub(lora_dir, tmp_path_factory):
    """The same, exported with LoRA apart and with the LLM alone."""
    out = tmp_path_factory.mktemp("hub") / "out"
    export.export(lora_dir, out, llm=True, uses=["whisper"], license="apache-2.0")
    return out


def decoded(model, template, task, monkeypatch):
    """Token ids that decode says freely, and whether a loop stopped it."""

    def ids_and_loop(row, _):
        return list(row.answer_state.ids), "loop" in row.flags

    monkeypatch.setattr(generate, "hypothesis", ids_and_loop)
    options = DecodeOptions(free=True, max_tokens=TOKENS)
    recognizer = Recognizer(model, template, options, template.task(task))
    items = []
    for number, sound in enumerate(SOUNDS):
        item = recognizer.load(Utterance(str(number), "x"), sound)
        items.append(item)
    return recognizer.decode(items)


def until_end(row, end):
    ids = row.tolist()
    return ids[: ids.index(end)] if end in ids else ids


@pytest.mark.parametrize("task", ["ser", "<GENDER><AGE>", "srwt"])
def test_generate_says_token_for_token_what_decode_says_alone_and_batched(hub, task, monkeypatch):
    model, processor = AutoModel.from_pretrained(hub), AutoProcessor.from_pretrained(hub)
    end = processor.template.end_id
    wanted = decoded(model, processor.template, task, monkeypatch)
    batched = model.generate(**processor(audio=SOUNDS, task=task), max_new_tokens=TOKENS)
    for (ids, looped), row, sound in zip(wanted, batched, SOUNDS, strict=True):
        alone = model.generate(**processor(audio=sound, task=task), max_new_tokens=TOKENS)[0]
        said = until_end(row, end)
        assert said == until_end(alone, end) and said[: len(ids)] == ids
        assert looped or len(said) == len(ids)
    lengths = {len(ids) for ids, _ in wanted}
    assert len(lengths) > 1, "all answers are equally long: padding is not tested"


def test_exported_settings_are_greedy_and_end_where_training_ended(hub):
    settings = json.loads((hub / "generation_config.json").read_text())
    end = AutoProcessor.from_pretrained(hub).template.end_id
    assert settings["eos_token_id"] == settings["pad_token_id"] == end
    assert settings["max_new_tokens"] == 3732 and not settings["do_sample"]


def test_in_a_chat_generate_says_what_decode_says(chat_dir, tmp_path, monkeypatch):
    export.export(chat_dir, tmp_path / "out", llm=True)
    model = AutoModel.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    template = processor.template
    settings = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert settings["eos_token_id"][0] == template.end_id == settings["pad_token_id"]
    assert {*settings["eos_token_id"]} == template.end_ids and len(template.end_ids) == 2
    wanted = decoded(model, template, "ser", monkeypatch)
    said = model.generate(**processor(audio=SOUNDS, task="ser"), max_new_tokens=TOKENS)
    for (ids, _), row in zip(wanted, said, strict=True):
        assert ids and row.tolist()[: len(ids)] == ids


def test_lora_is_kept_apart_or_merged_with_the_same_answers(lora_dir, hub, tmp_path):
    export.export(lora_dir, tmp_path / "merged", merge_lora=True)
    assert (hub / "lora/adapter_model.safetensors").exists()
    assert not (tmp_path / "merged/lora").exists()
    apart, merged = AutoModel.from_pretrained(hub), AutoModel.from_pretrained(tmp_path / "merged")
    inputs = AutoProcessor.from_pretrained(hub)(audio=SOUNDS[0], task="ser")
    assert apart.lora is not None and merged.lora is None
    assert torch.equal(
        apart.generate(**inputs, max_new_tokens=TOKENS),
        merged.generate(**inputs, max_new_tokens=TOKENS),
    )


@pytest.mark.parametrize("where", ["cpu", "auto"])
def test_loads_with_device_map_and_dtype(hub, where):
    model = AutoModel.from_pretrained(hub, device_map=where, dtype=torch.bfloat16)
    processor = AutoProcessor.from_pretrained(hub)
    types_of_llm = {weight.dtype for weight in model.llm.base_model.layers.parameters()}
    assert torch.bfloat16 in types_of_llm and model.encoder.dtype == torch.bfloat16
    inputs = processor(audio=SOUNDS[:2], task="ser").to(model.device)
    ids = model.generate(**inputs, max_new_tokens=5)
    assert ids.shape == (2, 5) or processor.template.end_id in ids


def test_parts_on_other_devices_are_brought_when_called(hub, tmp_path):
    """On one machine without accelerators a disk stands for the other devices: weights come when their module is called."""
    places = {"encoder": "disk", "adapter": "disk", "speech_boundary": "disk", "llm": "cpu"}
    model = AutoModel.from_pretrained(hub, device_map=places, offload_folder=tmp_path)
    inputs = AutoProcessor.from_pretrained(hub)(audio=SOUNDS[0])
    assert model.speech_boundary.weight.device.type == "meta"
    wanted = AutoModel.from_pretrained(hub).generate(**inputs, max_new_tokens=9)
    assert torch.equal(model.generate(**inputs, max_new_tokens=9), wanted)


def test_llm_alone_continues_embeddings_as_the_model_does(hub):
    model, processor = AutoModel.from_pretrained(hub), AutoProcessor.from_pretrained(hub)
    alone = AutoModelForCausalLM.from_pretrained(hub / "llm")
    inputs = processor(audio=SOUNDS, task="ser")
    embeddings, mask = model.prompt_embeddings(**inputs)
    given = alone.generate(inputs_embeds=embeddings, attention_mask=mask, max_new_tokens=TOKENS)
    assert type(alone).__name__ == "Qwen2ForCausalLM"
    assert torch.equal(given, model.generate(**inputs, max_new_tokens=TOKENS))


class FakeLlm:
    """vLLM's door: takes what its LLM takes, answers with the plain LLM of transformers."""

    def __init__(self, model: str, dtype: str, enable_prompt_embeds: bool) -> None:
        assert enable_prompt_embeds
        self.llm = AutoModelForCausalLM.from_pretrained(model)
        assert self.llm.dtype == getattr(torch, dtype)

    def generate(self, prompts, greedy):
        for prompt in prompts:
            embeds = prompt["prompt_embeds"]
            assert embeds.ndim == 2 and embeds.dtype == self.llm.dtype
            ids = self.llm.generate(
                inputs_embeds=embeds[None],
                max_new_tokens=greedy.max_tokens,
                eos_token_id=greedy.stop_token_ids,
            )[0]
            yield types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=ids.tolist())])


def test_example_feeds_vllm_up_to_its_door(hub, tmp_path, monkeypatch, capsys):
    from wenet_osum.dataset.audio import write_wav

    (tmp_path / "a.wav").write_bytes(write_wav(SOUNDS[0], subtype="FLOAT"))
    fake = types.ModuleType("vllm")
    fake.LLM, fake.SamplingParams = FakeLlm, types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", fake)
    words = ["vllm_example.py", "--task", "ser", "--max_tokens", str(TOKENS)]
    monkeypatch.setattr(sys, "argv", [*words, str(tmp_path / "a.wav")])
    runpy.run_path(str(hub / "vllm_example.py"), run_name="__main__")
    model, processor = AutoModel.from_pretrained(hub), AutoProcessor.from_pretrained(hub)
    inputs = processor(audio=SOUNDS[0], task="ser")
    ids = model.generate(**inputs, max_new_tokens=TOKENS)
    wanted = processor.batch_decode(ids)[0]
    assert capsys.readouterr().out == f"{tmp_path / 'a.wav'}\t{wanted}\n"


def test_llm_that_answers_otherwise_is_not_published(lora_dir, tmp_path, monkeypatch):
    written = export.AutoModelForCausalLM.from_pretrained

    def changed(folder):
        llm = written(folder)
        llm.lm_head.weight.data.mul_(-1)
        return llm

    monkeypatch.setattr(export.AutoModelForCausalLM, "from_pretrained", changed)
    with pytest.raises(ValueError, match="nothing was written"):
        export.export(lora_dir, tmp_path / "out", llm=True)
    assert not (tmp_path / "out").exists() and not [*tmp_path.iterdir()]


def test_card_has_scores_tasks_and_licenses(lora_dir, tmp_path, capsys):
    score = tmp_path / "score.json"
    accuracy = Score("ser", "accuracy", 76.85, 71.3, 82.4, 216, 216)
    undefined = Score("ser", "uar", math.nan, 71.3, 82.4, 216, 216)
    score_json.write([accuracy, undefined], score, {"command": "wenet_osum score …"})
    words = ["--model", str(lora_dir), "--score", str(score), "--out", str(tmp_path / "o")]
    assert command.main([*words, "--uses", "Qwen2", "--license", "mit"]) == 0
    text = (tmp_path / "o/README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "mit" and front["library_name"] == "wenet_osum"
    assert "pipeline_tag" not in front, "hubs print a call of pipelines under it, which fails"
    assert text.index("```bash\npip install .\n") < text.index("import wenet_osum")
    assert "| ser | accuracy | all | 76.85 % | [71.30, 82.40] | 216 |" in text
    assert "command: `wenet_osum score …`" in text
    assert "| [Qwen2](https://huggingface.co/Qwen/Qwen2-7B) | model | Apache-2.0 |" in text
    assert "LoRA of rank 2 kept apart" in text and "sad, anger, neutral" in text
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'o'}: ")


def test_card_names_trained_tasks_and_the_packages_that_are_needed(lora_dir, tmp_path):
    """Tasks of earlier phases count; one of a package that is not installed here is left out."""
    late, early = tmp_path / "exp/4/final", tmp_path / "exp/3/final"
    shutil.copytree(lora_dir, late)
    early.mkdir(parents=True)
    for folder, train, tasks in (
        (late, {"model": {"init_from": "exp/3/final", "llm": str(tmp_path / "secret/my-llm")}, "plugins": ["my_accents"]}, {"asr": 1.0, "accent": 1.0}),
        (early, {"plugins": ["wenet_osum.small", "my_accents"]}, {"<TRANSCRIBE><GENDER>": 1.0, "<EMOTION><GENDER>": 0.5}),
    ):
        (folder / "train.yaml").write_text(yaml.safe_dump(train))
        (folder / "data.yaml").write_text(yaml.safe_dump({"train": [{"name": "mine", "list": "x", "tasks": tasks}]}))
    export.export(late, tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    trained = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.endswith("| yes |")]
    assert trained == ["asr", "sgc", "<EMOTION> <GENDER>"]
    assert "| my-llm |  | not known to the exporter |" in text and "secret" not in text
    assert "| ser | `<TRANSCRIBE> <EMOTION>` |" in text and 'processor(audio="a.wav", task="sgc")' in text
    assert "lookup.add_plugins(['my_accents', 'wenet_osum.small'])" in text and "`--plugins my_accents wenet_osum.small`" in text


def test_origins_are_followed_through_the_runs_a_model_came_from(tmp_path):
    for name, model, data in [
        ("2", {"whisper": "openai/whisper-medium", "llm": "Qwen/Qwen2-7B"}, "toy"),
        ("4", {"init_from": "exp/2/final"}, "mine"),
    ]:
        folder = tmp_path / f"exp/{name}/final"
        folder.mkdir(parents=True)
        (folder / "train.yaml").write_text(yaml.safe_dump({"model": model | {"init": {}}}))
        (folder / "data.yaml").write_text(yaml.safe_dump({"train": [{"name": data, "list": "x"}]}))
    names = history.read(tmp_path / "exp/4/final").origins()
    assert names == ["Qwen/Qwen2-7B", "mine", "openai/whisper-medium", "toy"]
    rows = [licenses.find(name) for name in names]
    assert [row and row.name for row in rows] == ["Qwen2", None, "Whisper", "toy"]
    largest = licenses.find("Qwen/Qwen2-72B-Instruct")
    assert largest.license != licenses.find("Qwen/Qwen2-7B").license
    assert licenses.find("exp/init/whisper") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--uses", "Qwen3"], "unknown model or corpus 'Qwen3', did you mean"),
        (["--score", "no.json"], "no.json"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_faults_leave_nothing_behind(lora_dir, tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["--model", str(lora_dir), "--out", "out", *arguments]) == 1
    assert message in capsys.readouterr().err and not [*tmp_path.iterdir()]
