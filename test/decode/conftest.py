"""A tiny random model with a small BPE, and batches of random features for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from wenet_osum.dataset.batch import collate
from wenet_osum.records import Sample
from wenet_osum.text.template import Template

MELS = 8
TOOLS = Path(__file__).resolve().parents[2] / "tools"


def make_model(seed: int = 7, tokenizer=None, **changes):
    """``changes`` are keys of OsumConfig, such as another adapter."""
    from transformers import Qwen2Config, WhisperConfig

    from wenet_osum.models.osum import OsumConfig, OsumModel
    from wenet_osum.small.train_tokenizer import train_tokenizer

    chatting = tokenizer is not None
    if not chatting:
        tokenizer = train_tokenizer(["the cat sat on the mat", "今天天气很好。"], vocab_size=420)
    whisper = WhisperConfig(
        vocab_size=20, num_mel_bins=MELS, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    llm = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    settings = {"adapter_conf": {"layers": 1, "heads": 2, "ffn": 32}} | changes
    config = OsumConfig(encoder=whisper.to_dict(), llm=llm.to_dict(), **settings)
    model = OsumModel(config).float()
    # All numbers are drawn here: they depend neither on how parts are initialized nor on what has
    # drawn before. Norms keep their ones.
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_positions" in name:  # the encoder's sinusoids
                continue
            if weight.ndim > 1:
                std = 0.6 if name.startswith("llm.lm_head") else 0.3
                weight.normal_(std=std, generator=draw)
            elif name.endswith("bias"):
                weight.normal_(std=0.1, generator=draw)
    return model.eval(), Template(tokenizer, template="chat" if chatting else "plain")


@pytest.fixture(scope="session")
def parts():
    """(model, template)"""
    return make_model()


@pytest.fixture(scope="module")
def model_dir(parts, tmp_path_factory):
    """The model and its texts as a folder."""
    return save(parts, tmp_path_factory.mktemp("model"))


def save(parts, folder):
    model, template = parts
    model.save_pretrained(folder)
    template.save(folder)
    return folder


@pytest.fixture(scope="session")
def chat_parts(chat_tokenizer):
    """(model, template) of a model that is spoken to in a chat."""
    return make_model(tokenizer=chat_tokenizer)


@pytest.fixture(scope="module")
def chat_dir(chat_parts, tmp_path_factory):
    """The same as a folder."""
    return save(chat_parts, tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="session")
def clips():
    """frames of each clip → random features (frames, mels)"""

    def make(frames: list[int]) -> list[torch.Tensor]:
        return [torch.randn(n, MELS, generator=torch.Generator().manual_seed(n)) for n in frames]

    return make


@pytest.fixture(scope="session")
def samples_of():
    """(template, features, tasks) → samples without answers"""

    def make(template, features, tasks):
        return [
            Sample(
                f"k{i}",
                task.tags,
                f,
                template.prompt_ids(task),
                [],
                [],
                [],
                [],
                suffix_ids=template.suffix_ids,
            )
            for i, (f, task) in enumerate(zip(features, tasks, strict=True))
        ]

    return make


@pytest.fixture(scope="session")
def batch_of(samples_of):
    """(template, features, tasks[, order]) → Batch"""

    def make(template, features, tasks, order=None):
        items = samples_of(template, features, tasks)
        return collate(items if order is None else [items[i] for i in order])

    return make


@pytest.fixture(scope="session")
def load_tool():
    """name below tools/ → the file as a module."""

    def load(name: str) -> ModuleType:
        path = TOOLS / f"{name}.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture()
def prompts(parts):
    """(llm, embeds, mask) of three left-padded prompts of different lengths."""
    model, _ = parts
    embeds = torch.randn(3, 9, model.config.llm.hidden_size, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0] * (9 - n) + [1] * n for n in (9, 4, 6)])
    return model.llm, embeds, mask
