"""An encoder in two parts gives what it gives in one, and says what its lower part depends on."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from wenet_osum.models import split
from wenet_osum.models.encoder.whisper import Encoder, set_conf
from wenet_osum.models.whisper import WhisperPhase

from .conftest import whisper_config


@pytest.fixture(params=[0.0, 0.5])
def encoder(request):
    torch.manual_seed(0)
    config = whisper_config()
    set_conf(config, pad_s=request.param)
    return Encoder(config).eval()


@pytest.mark.parametrize("after", [0, 1, 2])
@torch.no_grad()
def test_two_parts_give_what_the_whole_gives(encoder, batch, after):
    whole, lengths = encoder(batch["features"], batch["feature_lengths"])
    states, speech = encoder.lower(batch["features"], batch["feature_lengths"], after)
    assert speech.tolist() == lengths.tolist() == [31, 25, 17]
    kept = encoder.kept_lengths(speech, after)
    if encoder.min_frames:
        assert kept.tolist() == ([31, 25, 17] if after == 2 else [31, 25, 25])

    # as they come from disk: each alone, without what stood behind it in its batch
    rows = [row[:length] for row, length in zip(states, kept.tolist(), strict=True)]
    stacked = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    again, lengths = encoder.upper(stacked, speech, after)
    assert lengths.tolist() == speech.tolist() and again.shape == whole.shape
    for ours, theirs, length in zip(again, whole, lengths.tolist(), strict=True):
        torch.testing.assert_close(ours[:length], theirs[:length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("kind", ["osum", "whisper"])
@torch.no_grad()
def test_the_loss_of_states_is_that_of_features(model, folders, batch, as_batch, after, kind):
    model = model if kind == "osum" else WhisperPhase.from_pretrained(folders / "whisper")
    plain = as_batch(batch)
    states, lengths = model.encoder.lower(plain.features, plain.feature_lengths, after)
    stored = dataclasses.replace(plain, features=states, feature_lengths=lengths, states_after=after)
    torch.testing.assert_close(model(stored).nll, model(plain).nll, atol=1e-5, rtol=0)
    halved = dataclasses.replace(stored, features=states.half())
    assert 0 < float((model(halved).nll - model(plain).nll).abs().max()) < 0.05


def test_the_description_changes_with_weights_below_and_settings_alone():
    torch.manual_seed(0)
    encoder = Encoder(whisper_config())
    before = split.describe(encoder, 1)
    with torch.no_grad():
        encoder.layers[1].fc1.weight.add_(1.0)
    assert split.describe(encoder, 1) == before
    assert split.describe(encoder, 2) != before
    set_conf(encoder.config, pad_s=0.5)
    assert split.describe(encoder, 1) != before
    set_conf(encoder.config, pad_s=0)
    assert split.describe(encoder, 1) == before
    with torch.no_grad():
        encoder.layers[0].fc1.bias[3] += 1e-6
    assert split.describe(encoder, 1) != before


def test_the_description_of_half_precision_is_that_of_its_copy_in_float32():
    torch.manual_seed(0)
    half = Encoder(whisper_config()).half()
    before = split.describe(half, 2)
    assert split.describe(half.float(), 2) == before


def test_what_trains_below_the_states_is_refused_by_its_pattern():
    encoder = Encoder(whisper_config()).requires_grad_(False)
    split.check_frozen(encoder, 2, ["encoder.*"])
    encoder.layers[1].requires_grad_(True)
    split.check_frozen(encoder, 1, ["encoder.layers.1.*"])
    with pytest.raises(ValueError, match=r"after 2 of 2 layers .* train_parts 'encoder.\*' trains encoder.layers.1"):
        split.check_frozen(encoder, 2, ["adapter.*", "encoder.*"])
    encoder.layers[0].requires_grad_(True)
    with pytest.raises(ValueError, match=r"e.g. 'encoder.layers.1.\*', or lower cache.after"):
        split.check_frozen(encoder, 1, ["encoder.*"])


def test_encoders_that_cannot_be_split_and_layers_that_are_not_there_are_refused():
    encoder = Encoder(whisper_config())
    assert split.layers_below(encoder, None) == 2 and split.layers_below(encoder, 1) == 1
    with pytest.raises(ValueError, match="cache.after 3: the encoder has 2 layers"):
        split.layers_below(encoder, 3)
    plain = torch.nn.Linear(1, 1)
    plain.config = whisper_config()
    with pytest.raises(ValueError, match="encoder 'whisper' cannot be run in two parts, it lacks depth, lower"):
        split.layers_below(plain, None)


def test_rounding_touches_the_lower_part_alone():
    torch.manual_seed(0)
    encoder = Encoder(whisper_config())
    above = encoder.layers[1].fc1.weight.clone()
    split.round_lower(encoder, 1, torch.bfloat16)
    assert torch.equal(encoder.layers[1].fc1.weight, above)
    low = encoder.layers[0].fc1.weight
    assert torch.equal(low, low.bfloat16().float())
