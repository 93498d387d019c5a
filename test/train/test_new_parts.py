"""An adapter and an encoder are one file each, also when they are unlike ours: another rate, no fixed rate, another class of configuration.

Each walks the whole way: manifest → shards → plan → training → model folder → answers → scores.
"""

from __future__ import annotations

import importlib
import json
import re
import sys

import numpy as np
import pytest
import torch
import yaml

from wenet_osum import config, lookup
from wenet_osum.bin import recognize, score
from wenet_osum.config import DataConfig
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.pack import pack
from wenet_osum.models import build
from wenet_osum.text.template import Template
from wenet_osum.train.estimate import Mean, estimate
from wenet_osum.train.loop import train
from wenet_osum.train.start import token_counter

# Two states become one embedding: 25 per second behind Whisper.
HALF = """
import torch

class Adapter(torch.nn.Module):
    stride = 2

    def __init__(self, width, llm_width):
        super().__init__()
        self.out = torch.nn.Linear(width, llm_width)

    def output_lengths(self, lengths):
        return (lengths + 1) // 2

    def forward(self, states, lengths):
        return self.out(states[:, ::2]), self.output_lengths(lengths.cpu())
"""
# Loud states stay: how many is known only when the speech has been heard.
LOUD = """
import torch
from torch.nn.utils.rnn import pad_sequence

class Adapter(torch.nn.Module):
    stride = None

    def __init__(self, width, llm_width):
        super().__init__()
        self.out = torch.nn.Linear(width, llm_width)

    def output_lengths(self, lengths):
        return lengths

    def forward(self, states, lengths):
        kept = []
        for row, length in zip(states, lengths.tolist()):
            energy = row[:length].detach().square().mean(1)
            kept.append(row[:length][energy >= energy.median()])
        return self.out(pad_sequence(kept, batch_first=True)), torch.tensor([len(k) for k in kept])
"""
# Patches of four frames, 16 mel bins, and a configuration class that transformers has never heard of.
PATCHES = """
import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

class PatchConfig(PreTrainedConfig):
    model_type = "patches"
    width: int = 12
    bins: int = 16

class Encoder(PreTrainedModel):
    config_class = PatchConfig
    state_s = 0.04

    def __init__(self, config):
        super().__init__(config)
        self.width, self.mels = config.width, config.bins
        self.project = torch.nn.Linear(4 * config.bins, config.width)
        self.post_init()

    def output_lengths(self, lengths):
        return (lengths + 3) // 4

    def forward(self, features, lengths):
        lengths = lengths.cpu()
        short = -features.shape[1] % 4
        padded = torch.nn.functional.pad(features, (0, 0, 0, short))
        known = torch.arange(padded.shape[1]) < lengths[:, None]
        padded = padded * known[:, :, None].to(padded)
        states = self.project(padded.reshape(len(padded), -1, 4 * self.mels))
        return states.relu(), self.output_lengths(lengths)

def read(source, dtype=torch.float32):
    return Encoder.from_pretrained(source, dtype=dtype).eval()

AutoConfig.register("patches", PatchConfig, exist_ok=True)
"""
FILES = {
    "wenet_osum.models.adapter": {"half": HALF, "loud": LOUD},
    "wenet_osum.models.encoder": {"patches": PATCHES},
}


@pytest.fixture(scope="module")
def own_files(tmp_path_factory):
    """A user's folders with two adapters and an encoder; they are forgotten after the tests."""
    before = {}
    for package, files in FILES.items():
        folder = tmp_path_factory.mktemp(package.rpartition(".")[2])
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
        path = importlib.import_module(package).__path__
        before[package] = list(path)
        lookup.add_folder(package, str(folder))
    yield
    for package, files in FILES.items():
        importlib.import_module(package).__path__[:] = before[package]
        for name in files:
            sys.modules.pop(f"{package}.{name}", None)


@pytest.fixture(scope="module")
def shards(tiny, tmp_path_factory):
    """The tiny corpus as shards of ten."""
    folder = tmp_path_factory.mktemp("shards")
    packed = pack([*read_manifest(tiny.train)], folder, per_shard=10, log=print)
    (folder / "data.list").write_text("\n".join(packed.paths) + "\n", encoding="utf-8")
    return folder / "data.list"


def settings(tiny, shards, folder, **model):
    """Two steps of a model with another part, on the shards."""
    data = {
        "train": [{"name": "bursts", "list": str(shards), "tasks": {"asr": 1.0, "sgc": 1.0}}],
        "dev": {"sgc": str(tiny.dev)},
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    tree = tiny.tree(data=str(folder / "data.yaml"), max_steps=2)
    tree["model"] = {"llm": str(tiny.folder / "llm")} | model
    tree["train_parts"] = {"adapter.*": {}, "encoder.*": {}}
    return config.from_dict(tree)


def walk(tiny, shards, folder, **model):
    """Train, answer and score; returns the trained model and its configuration."""
    conf = settings(tiny, shards, folder, **model)
    assert train(conf, folder / "exp") == 0
    final, out = str(folder / "exp/final"), str(folder / "answers")
    words = ["--model", final, "--list", str(tiny.dev), "--task", "sgc", "--out", out]
    assert recognize.main(words) == 0
    page = ["--ref", str(tiny.dev), "--hyp", out, "--task", "sgc", "--report"]
    assert score.main([*page, "--out", str(folder / "score")]) == 0
    rows = json.loads((folder / "score/score.json").read_text(encoding="utf-8"))["scores"]
    assert {row["metric"]: row["utterances"] for row in rows}["accuracy"] == 5
    assert (folder / "score/report.html").exists()
    return build.load(final), conf


def planned_tokens(model, conf):
    """Tokens of each utterance as the plan counts them, with the frames they have."""
    template = Template.load(conf.model.llm)
    data = config.load(conf.data, DataConfig)
    mixture = Mixture(data, conf, template, model.encoder.mels, token_counter(model))
    pool = mixture.pools[0]
    return pool.tokens.min(axis=1), pool.frames


def whisper(tiny):
    return {"whisper": str(tiny.folder / "whisper")}


def test_an_adapter_of_another_rate(tiny, shards, own_files, tmp_path):
    model, conf = walk(tiny, shards, tmp_path, **whisper(tiny), adapter="half")
    assert model.embedding_s == pytest.approx(0.04)
    tokens, frames = planned_tokens(model, conf)
    published, _ = planned_tokens(build.build(settings(tiny, shards, tmp_path, **whisper(tiny)).model)[0], conf)
    # 25 instead of 12.5 embeddings per second, each rounded up.
    assert np.array_equal(tokens - published, -(-frames // 4) - -(-frames // 8))


def test_an_adapter_without_a_fixed_rate_states_the_most(tiny, shards, own_files, tmp_path):
    model, conf = walk(tiny, shards, tmp_path, **whisper(tiny), adapter="loud")
    features = torch.randn(2, 90, model.encoder.mels)
    _, lengths = model.padded_speech(features, torch.tensor([90, 61]))
    most = model.speech_tokens(torch.tensor([90, 61]))
    assert (lengths <= most).all() and (lengths < most).any()
    with pytest.raises(ValueError, match="adapter loud has no fixed rate"):
        _ = model.embedding_s
    tokens, frames = planned_tokens(model, conf)
    assert (tokens > frames / 2).all(), "the plan makes room for the most"


def test_an_adapter_that_shrinks_to_what_ctc_hears(tiny, shards, tmp_path, capsys):
    """Planned and counted for the most that may remain; the log and recognize tell what did."""
    conf = {"adapter": "ctc_shrink", "adapter_conf": {"heads": 2, "ffn": 32, "unshrunk": ["asr"]}}
    conf |= {"losses": [{"name": "ctc", "weight": 0.3, "scores": "distance"}]}
    model, conf = walk(tiny, shards, tmp_path, **whisper(tiny), **conf)
    told = re.search(r"speech: (\d+) LLM tokens for (\d+) s, ([\d.]+) per second", capsys.readouterr().err)
    # 25 per second at most, each utterance rounded up.
    assert 0 < float(told[3]) < 26
    log = (tmp_path / "exp/log.jsonl").read_text(encoding="utf-8").splitlines()
    rates = [row["speech_tokens_per_s"] for row in map(json.loads, log) if "speech_tokens_per_s" in row]
    assert rates and all(0 < rate < 26 for rate in rates)

    tokens, frames = planned_tokens(model, conf)
    assert (tokens > frames / 4).all(), "the plan makes room for the most"
    counted = estimate(conf, model.config.encoder, model.config.llm, Mean(1.0, 5, 5))
    # 100 frames → 50 states → 25 embeddings, two borders, ten of text
    assert counted.positions == 25 + 2 + 10 and counted.flops > 0

    features, lengths = torch.randn(2, 90, model.encoder.mels), torch.tensor([90, 61])
    _, shrunk = model.padded_speech(features, lengths)
    _, whole = model.padded_speech(features, lengths, ["asr", "sgc"])
    most = model.speech_tokens(lengths)
    assert torch.equal(whole, most) and (shrunk <= most).all()


def test_an_encoder_is_one_file_chosen_by_the_yaml(tiny, shards, own_files, tmp_path):
    patches = lookup.load("wenet_osum.models.encoder", "patches")
    torch.manual_seed(1)
    patches.Encoder(patches.PatchConfig()).save_pretrained(tmp_path / "patches")
    chosen = {"encoder": {"name": "patches", "source": str(tmp_path / "patches")}, "adapter": "half"}
    model, conf = walk(tiny, shards, tmp_path, **chosen)
    assert type(model.encoder) is patches.Encoder and model.encoder.mels == 16
    assert model.embedding_s == pytest.approx(0.08)
    counted = estimate(conf, model.config.encoder, model.config.llm, Mean(1.0, 5, 5))
    # 100 frames → 25 patches → 13 embeddings, two borders, ten of text
    assert counted.positions == 13 + 2 + 10


def test_an_encoder_is_named_once(tiny):
    both = {"whisper": "w", "encoder": {"source": "e"}, "llm": "l"}
    with pytest.raises(config.ConfigError, match="model.whisper and model.encoder: give one of them"):
        config.from_dict(tiny.tree(model=both))
    with pytest.raises(config.ConfigError, match="kind whisper takes its encoder from model.whisper"):
        config.from_dict(tiny.tree(model={"kind": "whisper", "encoder": {"source": "e"}}))
