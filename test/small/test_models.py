"""Small models: ordinary transformers folders, and an encoder whose heads begin by looking where they are told."""

import torch
from transformers import AutoTokenizer, WhisperConfig, WhisperModel

from wenet_osum.models import build
from wenet_osum.models.osum import OsumModel
from wenet_osum.small.models import (
    SmallLlm,
    SmallWhisper,
    init_local_attention,
    save_whisper,
    small_llm,
)
from wenet_osum.small.train_tokenizer import train_tokenizer

WHISPER = SmallWhisper(width=32, heads=2, ffn=64, encoder_layers=1, decoder_layers=1)


def test_heads_begin_at_their_offsets():
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=144, encoder_layers=2, encoder_attention_heads=4, decoder_layers=1, vocab_size=8, pad_token_id=0, bos_token_id=0, eos_token_id=0
    )
    encoder = WhisperModel(config).encoder
    init_local_attention(encoder, offsets=(-9, -3, 3, 9))
    places = encoder.embed_positions.weight[:100].detach()
    for layer in encoder.layers:
        query, key = (p(places).detach() for p in (layer.self_attn.q_proj, layer.self_attn.k_proj))
        for head, offset in enumerate((-9, -3, 3, 9)):
            rows = slice(head * 36, (head + 1) * 36)
            nearest = (query[30:70, rows] @ key[:, rows].T).argmax(1) - torch.arange(30, 70)
            assert (nearest - offset).abs().max() <= 1, (head, nearest)


def test_the_folders_load_as_whisper_and_causal_llm(tmp_path):
    tokenizer = train_tokenizer(["a red cat", "小猫"] * 5, 400)
    save_whisper(WHISPER, tokenizer, tmp_path / "whisper")
    llm = small_llm(SmallLlm(width=32, layers=1, heads=2, kv_heads=1, ffn=32), tokenizer)
    llm.save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(str(tmp_path / "llm"))
    model = OsumModel.from_parts(tmp_path / "whisper", tmp_path / "llm", adapter_conf={"layers": 1, "heads": 2, "ffn": 32})
    assert torch.equal(model.llm.get_input_embeddings().weight, llm.get_input_embeddings().weight)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "whisper")) == len(tokenizer)
    assert type(build.load(tmp_path / "whisper")).__name__ == "WhisperPhase"
