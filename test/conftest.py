"""Order of the tests: the slow ones run last, so that a broken unit shows first. And a model folder
for tests of whole commands.
"""

from __future__ import annotations

from pathlib import Path

import pytest

# In the manner of Qwen's: turns with roles, and a system message of its own where none is given.
CHAT_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights as training leaves one: 80 mel bins, width 16, a BPE of
    its own.
    """
    import torch
    from transformers import Qwen2Config, WhisperConfig

    from wenet_osum.models.osum import OsumConfig, OsumModel
    from wenet_osum.small.train_tokenizer import train_tokenizer
    from wenet_osum.text.template import Template

    torch.manual_seed(7)
    template = Template(
        train_tokenizer(["the cat sat on the mat", "今天天气很好。"], vocab_size=400)
    )
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    whisper = WhisperConfig(
        vocab_size=20, d_model=16, encoder_layers=1, decoder_layers=1, init_std=0.3, **heads, **ids
    )
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    llm = Qwen2Config(
        vocab_size=len(template.tokenizer),
        initializer_range=0.3,
        eos_token_id=template.end_id,
        bos_token_id=None,
        **sizes,
    )
    model = OsumModel(
        OsumConfig(
            encoder=whisper.to_dict(),
            llm=llm.to_dict(),
            adapter_conf={"layers": 1, "heads": 2, "ffn": 32},
        )
    )
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    template.save(folder)
    return folder


@pytest.fixture(scope="session")
def chat_tokenizer():
    """A small BPE with the turns of an Instruct LLM's chat; its end of a sentence is the end of
    turn.
    """
    from wenet_osum.small.train_tokenizer import train_tokenizer

    lines = ["the cat sat on the mat", "one two three four five", "今天天气很好。"]
    tokenizer = train_tokenizer(lines, vocab_size=420)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
