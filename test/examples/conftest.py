"""Recipes from corpus to report in seconds, and the small things their corpora are made of."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav

ROOT = Path(__file__).resolve().parents[2]
TWO_STEPS = "max_steps=2 max_epochs=null eval_every=1 optim.warmup_steps=1"
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
TWO_STEPS_PUBLISHED = TWO_STEPS + " optim.accumulation=1 dtype=float32 workers=0"


def load_file(path: Path) -> ModuleType:
    """A Python file outside the package as a module."""
    spec = importlib.util.spec_from_file_location(f"{path.parents[1].name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def load_prepare() -> Callable[[str], ModuleType]:
    """local/prepare.py of a recipe as a module."""
    return lambda recipe: load_file(ROOT / "examples" / recipe / "local/prepare.py")


@pytest.fixture(scope="session")
def load_local() -> Callable[[str, str], ModuleType]:
    """A file of a recipe's local/ as a module, which finds those beside it as a script does."""

    def load(recipe: str, name: str) -> ModuleType:
        folder = ROOT / "examples" / recipe / "local"
        sys.path.insert(0, str(folder))
        try:
            return load_file(folder / f"{name}.py")
        finally:
            sys.path.remove(str(folder))

    return load


@pytest.fixture(scope="session")
def two_steps_published() -> str:
    """Settings for every phase of published models, so that each takes two small steps."""
    return TWO_STEPS_PUBLISHED


@pytest.fixture(scope="session")
def tone() -> Callable[..., bytes]:
    """A 16 kHz wav of so many seconds and such a pitch."""

    def make(seconds: float = 0.4, pitch_hz: float = 200.0) -> bytes:
        return write_wav(
            (0.1 * np.sin(2 * np.pi * pitch_hz * np.arange(int(seconds * 16000)) / 16000)).astype(
                np.float32
            )
        )

    return make


@pytest.fixture(scope="session")
def warm_bin() -> Iterator[Path]:
    """A folder for the front of PATH, whose python and torchrun need no start-up (warm.py)."""
    warm = load_file(Path(__file__).with_name("warm.py"))
    with tempfile.TemporaryDirectory(
        prefix="warm_"
    ) as folder:  # the path of a socket must be short
        address = f"{folder}/socket"
        server = subprocess.Popen(
            [sys.executable, warm.__file__, address],
            stdout=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert server.stdout.readline() == "ready\n", f"the server ended with {server.wait()}"
        warm.bin_folder(Path(folder) / "bin", address)
        yield Path(folder) / "bin"
        server.terminate()
        server.wait()
        server.stdout.close()


@pytest.fixture
def published_pair(tmp_path: Path) -> dict[str, Path]:
    """Folders of a tiny Whisper and a tiny LLM, in the place of published ones."""
    from wenet_osum.small.models import SmallLlm, SmallWhisper, save_whisper, small_llm
    from wenet_osum.small.train_tokenizer import train_tokenizer

    folders = {"whisper": tmp_path / "whisper", "llm": tmp_path / "llm"}
    tokenizer = train_tokenizer(["she read line a b c <0123456789.>"], vocab_size=300)
    # as many encoder layers as Whisper-base has, for configurations that name the last ones
    whisper = SmallWhisper(width=32, heads=2, ffn=32, encoder_layers=6, decoder_layers=1)
    save_whisper(whisper, tokenizer, folders["whisper"])
    llm = SmallLlm(width=32, layers=1, heads=2, kv_heads=1, ffn=32)
    small_llm(llm, tokenizer).save_pretrained(folders["llm"])
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(str(folders["llm"]))
    return folders


@pytest.fixture
def smoke(warm_bin: Path) -> Callable[..., str]:
    """Run a recipe in a work folder, two steps a phase unless told otherwise; returns what it
    printed. ``override`` None is for scripts that train nothing.
    """

    def run(
        recipe: str,
        work: Path,
        *options: str,
        override: str | None = TWO_STEPS,
        script: str = "run.sh",
    ) -> str:
        command = ["bash", str(ROOT / "examples" / recipe / script), "--work", str(work), *options]
        if override is not None:
            command += ["--nproc", "1", "--override", override]
        environment = os.environ | {
            "PATH": f"{warm_bin}:{os.environ['PATH']}",
            "VIRTUAL_ENV": sys.prefix,
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=work.parent,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    return run


# Transcripts of natural_corpora.
WORDS = ["she read line a", "she read line b", "she read line c"]


@pytest.fixture
def natural_corpora(tone: Callable[..., bytes]) -> Callable[[Path], list[str]]:
    """natural_corpora(folder): what examples/natural leaves of a corpus after its stage 1. Speakers
    apart, with transcript, gender and age. Returns the transcripts of training.
    """

    def prepare(folder: Path) -> list[str]:
        for split, count in (("train", 8), ("dev", 2), ("test", 2)):
            rows = []
            for i in range(count):
                key = f"{split}{i}"
                wav = folder / f"wav/{key}.wav"
                wav.parent.mkdir(parents=True, exist_ok=True)
                wav.write_bytes(tone(0.6, 150 + 40 * i))
                row = {"key": key, "wav": str(wav), "txt": WORDS[i % 3], "lang": "en"}
                voice = {"speaker": key, "gender": ["female", "male"][i % 2], "age": 30 - 20 * (i % 2)}
                rows.append(row | {"duration": 0.6} | voice)
            path = folder / f"corpora/speechocean762/data/{split}/manifest.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [WORDS[i % 3] for i in range(8)]

    return prepare
