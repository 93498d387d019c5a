"""A tiny model with its plug-ins, and a batch of random features for it."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2Config, WhisperConfig

from wenet_osum import lookup
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.records import Batch


@pytest.fixture(scope="session", autouse=True)
def plugins():
    lookup.add_plugins(["wenet_osum.small"])


@pytest.fixture
def osum():
    """(model, batch): an LLM of width 32 and a vocabulary of 500, three utterances."""
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    whisper = WhisperConfig(
        vocab_size=20,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        init_std=0.3,
        **heads,
        **ids,
    )
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    llm = Qwen2Config(
        vocab_size=500, initializer_range=0.3, eos_token_id=0, bos_token_id=None, **sizes
    )
    torch.manual_seed(7)
    model = OsumModel(
        OsumConfig(
            encoder=whisper.to_dict(),
            llm=llm.to_dict(),
            adapter_conf={"layers": 1, "heads": 2, "ffn": 32},
        )
    ).eval()
    lengths = {
        "feature_lengths": torch.tensor([61, 50, 33]),
        "prompt_lengths": torch.tensor([3, 2, 4]),
        "answer_lengths": torch.tensor([5, 3, 4]),
    }
    texts = {
        "prompt_ids": torch.randint(1, 500, (9,)),
        "answer_ids": torch.randint(1, 500, (12,)),
        "answer_weights": torch.rand(12) + 0.5,
    }
    return model, Batch(
        keys=[""] * 3, tasks=[""] * 3, features=torch.randn(3, 61, 8), **lengths, **texts
    )
