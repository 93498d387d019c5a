"""One model with several LoRAs: each request is answered by the one it names, also side by side."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from starlette.testclient import TestClient

import wenet_osum
from wenet_osum.bin import serve
from wenet_osum.config import LoraConfig
from wenet_osum.decode import static_prefix
from wenet_osum.models import lora, loras
from wenet_osum.models.osum import OsumModel
from wenet_osum.serve.app import make_app
from wenet_osum.serve.settings import Settings

SETTINGS = {"device": "cpu", "max_tokens": 12}


@pytest.fixture(scope="module")
def folders(model_dir, tmp_path_factory):
    """Folders of the model with other adapters each; those of "wide" adapt more layers."""
    found = {}
    for seed, (name, targets) in enumerate({"one": ["q_proj"], "two": ["q_proj"], "wide": ["v_proj", "up_proj"]}.items()):
        found[name] = folder = tmp_path_factory.mktemp("loras") / name
        shutil.copytree(model_dir, folder)
        model = OsumModel.from_pretrained(model_dir)
        model.add_lora(LoraConfig(r=2, targets=targets))
        torch.manual_seed(seed)
        for key, weight in model.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(weight.data, std=0.4)
        model.save_pretrained(folder)
    return found


def client(folder, others, **settings):
    m = wenet_osum.load(folder, **SETTINGS, **settings)
    found = serve._loras(m.recognizer, [f"{name}={path}" for name, path in others.items()])
    return TestClient(make_app(m, Settings(loras=tuple(others)), False, found))


def answer(asked, wav, model):
    response = asked.post("/v1/audio/transcriptions", files={"file": ("a.wav", wav)}, data={"model": model})
    assert response.status_code == 200, response.text
    return response.json()["text"]


def test_each_request_is_answered_by_the_lora_it_names(model_dir, folders, wavs):
    wavs = wavs[1:5]
    alone = {name: wenet_osum.load(folder, **SETTINGS) for name, folder in {"osum": model_dir, **folders}.items()}
    expected = {(name, i): m(wav).text.strip() for name, m in alone.items() for i, wav in enumerate(wavs)}
    assert len({expected[name, 0] for name in alone}) == len(alone), "the test tells them apart"
    with client(model_dir, folders) as asked, ThreadPoolExecutor(8) as pool:
        answers = {key: pool.submit(answer, asked, wavs[key[1]], key[0]) for key in expected}
        assert {key: found.result() for key, found in answers.items()} == expected
        names = [model["id"] for model in asked.get("/v1/models").json()["data"]]
        assert names == ["osum", "one", "two", "wide"]
        assert asked.get("/v1/models/two").json()["id"] == "two"
        refused = asked.post("/v1/audio/transcriptions", files={"file": ("a.wav", wavs[0])}, data={"model": "too"})
        assert refused.status_code == 404 and "did you mean 'two'" in refused.text


def test_steps_of_a_static_cache_are_those_of_one_lora(model_dir, folders, wavs):
    """A CUDA graph goes on computing with the weights that it was captured with."""
    with client(model_dir, folders) as growing, client(model_dir, folders, static_cache=True) as static:
        static_prefix.rooms.clear()
        for name in ("one", "osum", "two", "one"):
            assert answer(static, wavs[1], name) == answer(growing, wavs[1], name)
        (room,) = static_prefix.rooms.values()
        assert {lora for _, lora in room.steps} == {"one", "two", None}


def test_a_model_with_a_lora_of_its_own_keeps_it(folders, wavs):
    """It is not merged, so that the others find the weights that they adapt."""
    from wenet_osum.decode import load

    expected = {name: wenet_osum.load(folder, **SETTINGS)(wavs[1]).text.strip() for name, folder in folders.items()}
    args = serve.parse(["--model", str(folders["one"]), "--lora", f"wide={folders['wide']}", "--max_tokens", "12", "--no_page"])
    args.task = "asr"
    recognizer = load.recognizer(args, merge=False)
    found = serve._loras(recognizer, args.lora)
    app = make_app(wenet_osum.decode.speech.Transcriber(recognizer), serve._settings(args), False, found)
    with TestClient(app, base_url="http://127.0.0.1") as asked:
        for name, model in (("wide", "wide"), ("one", "osum"), ("wide", "wide"), ("one", "whisper-1")):
            assert answer(asked, wavs[1], model) == expected[name]


def test_folders_that_differ_beside_lora_are_refused(model_dir, folders, tmp_path):
    other = tmp_path / "other"
    model = OsumModel.from_pretrained(folders["one"])
    with torch.no_grad():
        model.speech_boundary.weight[0, 0] += 1
    model.save_pretrained(other)
    base = OsumModel.from_pretrained(model_dir)
    with pytest.raises(ValueError, match="differs from the model in speech_boundary.weight"):
        loras.add(base, "x", str(other))
    marked = OsumModel.from_pretrained(folders["one"])
    marked.config.encoder.pad_s = 30.0
    marked.save_pretrained(tmp_path / "marked")
    with pytest.raises(ValueError, match=r"encoder_conf.pad_s 30.0, the model has"):
        loras.add(base, "x", str(tmp_path / "marked"))
    with pytest.raises(ValueError, match="has no LoRA"):
        loras.add(base, "x", str(model_dir))
    assert base.lora is None and not any("lora_" in name for name, _ in base.named_parameters())


@pytest.mark.parametrize(("given", "why"), [(["a"], "write NAME=FOLDER"), (["a.b=x"], "letters"), (["a=x", "a=y"], "each name once"), (["osum=x"], "none of them osum"), (["whisper-1=x"], "whisper-1")])
def test_names_of_loras_are_checked_first(given, why):
    args = serve.parse(["--model", "nowhere", "--lora", *given])
    with pytest.raises(ValueError, match=why):
        serve._settings(args)
    assert lora.NAME == "default"


def test_a_model_alone_may_have_the_name_of_its_own_lora():
    args = serve.parse(["--model", "nowhere", "--name", lora.NAME])
    assert serve._settings(args).model_named("") == lora.NAME


def test_loras_cannot_be_held_against_rounded_weights():
    args = serve.parse(["--model", "nowhere", "--lora", "a=x", "--quantization", "int8"])
    with pytest.raises(ValueError, match="leave one of them out"):
        serve._settings(args)
