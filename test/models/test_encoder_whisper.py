from __future__ import annotations

import pytest
import torch
from transformers import WhisperConfig, WhisperModel
from transformers.models.whisper.modeling_whisper import sinusoids

from wenet_osum.models.encoder import whisper
from wenet_osum.models.encoder.whisper import Encoder
from wenet_osum.models.osum import OsumConfig, OsumModel


@pytest.fixture
def encoder(folders):
    return whisper.read(str(folders / "whisper"))


def test_equals_transformers_on_thirty_seconds(folders, encoder):
    features = torch.randn(2, 3000, 8)
    theirs = WhisperModel.from_pretrained(folders / "whisper").eval().encoder(features.transpose(1, 2)).last_hidden_state
    ours, lengths = encoder(features, torch.tensor([3000, 3000]))
    assert lengths.tolist() == [1500, 1500]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_alone_equals_any_batch_with_garbage_in_the_padding(encoder):
    lengths = torch.tensor([40, 37, 12, 1, 2, 31])
    features = torch.randn(6, 45, 8)  # padding holds noise, and more of it than the longest needs
    together, out = encoder(features, lengths)
    assert out.tolist() == [20, 19, 6, 1, 1, 16] and together.shape[1] == 20
    for row, length in enumerate(lengths.tolist()):
        alone, _ = encoder(features[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row, : out[row]], alone[0], atol=1e-5, rtol=0)


def test_faults_are_named(encoder):
    with pytest.raises(ValueError, match="3001 frames.*3000 .30 s.; split"):
        encoder(torch.zeros(1, 3001, 8), torch.tensor([3001]))
    with pytest.raises(ValueError, match="no frames"):
        encoder(torch.zeros(2, 5, 8), torch.tensor([5, 0]))
    with pytest.raises(ValueError, match="9 mel bins"):
        encoder(torch.zeros(1, 5, 9), torch.tensor([5]))
    with pytest.raises(ValueError, match="no Whisper model"):
        whisper.read("/nowhere/at/all")


def test_the_residual_stream_lies_in_rows(encoder):
    """A transposed one would be copied before every norm."""
    layouts = []


    def note(layer, arguments):
        layouts.append(arguments[0].is_contiguous())

    for layer in encoder.layers:
        layer.register_forward_pre_hook(note)
    encoder(torch.randn(2, 30, 8), torch.tensor([30, 21]))
    assert layouts == [True, True]


def test_a_new_encoder_has_whispers_sinusoids():
    """Also inside a model that is made from its configuration, which initializes all modules once more."""
    conf = WhisperConfig(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16)
    expected = sinusoids(conf.max_source_positions, 16)
    torch.testing.assert_close(Encoder(conf).embed_positions.weight.data, expected)
    llm = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    llm |= {"intermediate_size": 16, "vocab_size": 32}
    whole = OsumConfig(encoder=conf.to_dict(), llm=llm, adapter="linear")
    torch.testing.assert_close(OsumModel(whole).encoder.embed_positions.weight.data, expected)
