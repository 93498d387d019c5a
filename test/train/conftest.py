"""A tiny corpus and tiny models in ordinary folders, for training in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from wenet_osum import config

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["one", "two", "three", "four", "five"]
SMALL = {
    "whisper": {"width": 16, "heads": 2, "ffn": 32, "encoder_layers": 1, "decoder_layers": 1},
    "llm": {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 32},
}


def write_corpus(folder: Path, name: str, count: int, seed: int) -> Path:
    """Bursts of sine, a pitch a word, as wav files and a raw list with transcript and gender."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        words = rng.integers(0, len(WORDS), rng.integers(1, 5))
        bursts = [
            np.sin(2 * np.pi * (300 + 250 * w) * np.arange(2400 + 800 * w) / 16000) for w in words
        ]
        path = folder / f"{name}{i:03d}.wav"
        soundfile.write(path, 0.3 * np.concatenate(bursts), 16000)
        text = " ".join(WORDS[w] for w in words)
        row = {
            "key": path.stem,
            "wav": str(path),
            "txt": text,
            "lang": "en",
            "gender": ["female", "male"][i % 2],
        }
        rows.append(json.dumps(row))
    listed = folder / f"{name}.list"
    listed.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return listed


def write_models(folder: Path) -> None:
    """whisper/ and llm/ with random weights and one tokenizer."""
    import torch

    from wenet_osum.small import models as small
    from wenet_osum.small.train_tokenizer import train_tokenizer

    torch.manual_seed(0)
    conf = config.from_dict(SMALL, small.SmallModels)
    tokenizer = train_tokenizer([" ".join(WORDS), "<female> <male>", "转录 识别 语音"], 400)
    small.save_whisper(conf.whisper, tokenizer, folder / "whisper")
    small.small_llm(conf.llm, tokenizer).save_pretrained(folder / "llm")
    tokenizer.save_pretrained(str(folder / "llm"))


class Tiny:
    """Paths of the tiny corpus and models, and the configurations over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train = write_corpus(folder / "data", "train", 24, 1)
        self.dev = write_corpus(folder / "data", "dev", 5, 2)
        write_models(folder)
        data = {
            "train": [
                {"name": "bursts", "list": str(self.train), "tasks": {"asr": 1.0, "sgc": 1.0}}
            ],
            "dev": {"asr": str(self.dev), "sgc": str(self.dev)},
        }
        self.data = self.write("data.yaml", data)

    def write(self, name: str, tree: dict) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return path

    def tree(self, **changes: object) -> dict:
        """A configuration of the whole model: adapter, encoder and LoRA train."""
        adapter = {"layers": 1, "heads": 2, "ffn": 32}
        tree = {
            "data": str(self.data),
            "model": {
                "whisper": str(self.folder / "whisper"),
                "llm": str(self.folder / "llm"),
                "adapter_conf": adapter,
                "lora": {"r": 2, "dropout": 0.1, "targets": ["q_proj", "v_proj"]},
            },
            "train_parts": {
                "*lora*": {},
                "adapter.*": {"lr": 2e-3},
                "speech_boundary.*": {},
                "encoder.*": {},
            },
            "batch": {"max_frames": 500, "max_tokens": 1500, "window": 2},
            "optim": {"lr": 1e-3, "warmup_steps": 2, "accumulation": 2},
            "max_steps": 6,
            "eval_every": 2,
            "log_every": 1,
            "keep": 3,
        }
        return tree | changes

    def conf(self, **changes: object) -> config.TrainConfig:
        return config.from_dict(self.tree(**changes))

    def whisper_tree(self, **changes: object) -> dict:
        """Phase 1 with a CTC head."""
        tree = self.tree(**changes)
        tree["model"] = {
            "kind": "whisper",
            "whisper": str(self.folder / "whisper"),
            "ce_weight": 0.7,
            "losses": [{"name": "ctc", "weight": 0.3}],
        }
        tree["train_parts"] = {"*": {}}
        return tree


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def launcher():
    """Starts bin/train under torchrun (or plainly with one process); whatever still runs is ended
    after the tests.
    """
    started: list[subprocess.Popen] = []

    def start(conf: Path, exp_dir: Path, processes: int = 2) -> subprocess.Popen:
        torchrun = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(processes),
        ]
        launched = torchrun if processes > 1 else []
        command = [
            sys.executable,
            *launched,
            "-m",
            "wenet_osum.bin.train",
            "--config",
            str(conf),
            "--exp_dir",
            str(exp_dir),
        ]
        env = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        }
        started.append(
            subprocess.Popen(
                command,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()  # torchrun ends its workers, which have sessions of their own
            process.communicate()


@pytest.fixture
def launch(launcher):
    return launcher


def weights(folder: Path) -> dict:
    """All tensors of a model folder, by file and name."""
    from safetensors.torch import load_file

    files = sorted(folder.rglob("*.safetensors"))
    assert files, f"no weights in {folder}"
    return {
        f"{file.relative_to(folder)}:{name}": tensor
        for file in files
        for name, tensor in load_file(file).items()
    }


@pytest.fixture
def weights_of():
    return weights
