"""Tiny models and batches: width 32, two layers, vocabulary 64."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from wenet_osum.models.osum import OsumModel
from wenet_osum.records import Batch

ADAPTER = {"heads": 2, "layers": 2, "ffn": 48, "dropout": 0.1}


def whisper_config(**changes):
    sizes = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    sizes |= {
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "num_mel_bins": 8,
        "vocab_size": 64,
        "decoder_start_token_id": 2,
    }
    return WhisperConfig(
        **(
            sizes
            | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "init_std": 0.2}
            | changes
        )
    )


def llm_config(**changes):
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
    }
    sizes |= {
        "vocab_size": 64,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    return Qwen2Config(**(sizes | {"initializer_range": 0.2} | changes))


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A Whisper folder, and Qwen2 folders with tied and untied embeddings."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("parts")
    WhisperForConditionalGeneration(whisper_config()).save_pretrained(root / "whisper")
    Qwen2ForCausalLM(llm_config()).save_pretrained(root / "tied")
    Qwen2ForCausalLM(llm_config(tie_word_embeddings=False)).save_pretrained(root / "untied")
    return root


@pytest.fixture
def model(folders):
    torch.manual_seed(1)
    return OsumModel.from_parts(folders / "whisper", folders / "tied", adapter_conf=ADAPTER).eval()


@pytest.fixture
def batch():
    """Three utterances of odd and even lengths, as fields of records.Batch."""
    torch.manual_seed(2)
    frames, prompts, answers = (
        torch.tensor([61, 50, 33]),
        torch.tensor([3, 2, 4]),
        torch.tensor([5, 3, 4]),
    )
    features = torch.randn(3, 61, 8)
    for row, length in enumerate(frames):
        features[row, length:] = 0.0
    tensors = {
        "features": features,
        "feature_lengths": frames,
        "prompt_ids": torch.randint(3, 64, (9,)),
        "prompt_lengths": prompts,
    }
    return tensors | {
        "answer_ids": torch.randint(3, 64, (12,)),
        "answer_lengths": answers,
        "answer_weights": torch.rand(12) + 0.5,
    }


@pytest.fixture(params=["plain", "chat"])
def either(request, batch):
    """The same batch as each template lays it out: in a chat with tokens behind the speech."""
    suffix = {"suffix_ids": torch.tensor([7, 9, 11])}
    return batch | (suffix if request.param == "chat" else {})


@pytest.fixture
def as_batch():
    """as_batch(fields[, targets]) → Batch; ``targets`` are tensors end to end with their lengths,
    by name.
    """

    def make(fields, **targets):
        joined = {}
        for name, (tensor, lengths) in targets.items():
            joined |= {name: tensor, f"{name}_lengths": torch.tensor(lengths)}
        names = [""] * len(fields["feature_lengths"])
        return Batch(keys=names, tasks=names, targets=joined, **({"answer_weights": None} | fields))

    return make


@pytest.fixture
def take():
    """take(batch, row): that utterance alone."""

    def alone(batch, row):
        out = {}
        for name, value in batch.items():
            if name == "suffix_ids":  # the same for all utterances
                out[name] = value
                continue
            owner = name.replace("_ids", "_lengths").replace("_weights", "_lengths")
            if name.endswith(("_ids", "_weights")):
                end = int(batch[owner][: row + 1].sum())
                out[name] = value[end - int(batch[owner][row]) : end]
            else:
                out[name] = value[row : row + 1]
        out["features"] = out["features"][:, : int(out["feature_lengths"])]
        return out

    return alone
