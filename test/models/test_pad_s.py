"""Silence behind short utterances: what transformers' Whisper sees of them, in a batch and alone,
saved and taken over.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from wenet_osum.config import BatchConfig, ModelConfig, PartConfig, TrainConfig
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.models import build
from wenet_osum.models.encoder.whisper import Encoder, set_conf
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.train import estimate

from .conftest import ADAPTER, llm_config, whisper_config

RATE = 16000


def sounds(peaks=(0.5, 0.003, 1e-4)):
    """Noise of 0.3 to 0.5 s at each level that ends in a window of silence, on a whole frame."""
    rng = np.random.default_rng(0)
    waves = [peak * rng.uniform(-1, 1, 4800 + 1600 * n) for n, peak in enumerate(peaks)]
    return [np.concatenate([wave, np.zeros(480)]).astype(np.float32) for wave in waves]


def padded(waves, seconds):
    return [np.pad(wave, (0, max(0, round(seconds * RATE) - len(wave)))) for wave in waves]


def stacked(features):
    lengths = torch.tensor([len(f) for f in features])
    return torch.nn.utils.rnn.pad_sequence(features, batch_first=True), lengths


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    config = whisper_config(num_mel_bins=80)
    set_conf(config, pad_s=0.9)
    return Encoder(config).eval()


@torch.no_grad()
def test_silence_behind_the_features_is_silence_behind_the_samples(encoder):
    waves = sounds()
    features, lengths = stacked([log_mel(wave, 80) for wave in waves])
    longer, heard = encoder._with_silence(features, lengths)
    assert heard.tolist() == [90, 90, 90]
    for row, wave in zip(longer, padded(waves, 0.9), strict=True):
        torch.testing.assert_close(row, log_mel(wave, 80), atol=1e-5, rtol=0)
    assert longer[0, -1, 0] > longer[2, -1, 0] == -1.5, "beside loud speech silence is lifted"


@torch.no_grad()
def test_30_s_give_the_states_of_transformers_whisper():
    torch.manual_seed(0)
    config = whisper_config(num_mel_bins=80)
    plain = WhisperEncoder(config).eval()
    set_conf(config, pad_s=30)
    ours = Encoder(config).eval()
    ours.load_state_dict(plain.state_dict())
    waves = sounds()
    states, lengths = ours(*stacked([log_mel(wave, 80) for wave in waves]))
    inputs = WhisperFeatureExtractor(feature_size=80)(
        waves, sampling_rate=RATE, return_tensors="pt"
    ).input_features
    theirs = plain(inputs).last_hidden_state
    assert lengths.tolist() == [(len(wave) // 160 + 1) // 2 for wave in waves] and states.shape[
        1
    ] == max(lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(states[row, :length], theirs[row, :length], atol=1e-4, rtol=0)


@torch.no_grad()
def test_batch_and_alone_and_longer_than_the_silence_reaches(encoder):
    features = [torch.randn(frames, 80) for frames in (120, 90, 61, 33)]
    states, lengths = encoder(*stacked(features))
    assert lengths.tolist() == [60, 45, 31, 17]
    for row, one in enumerate(features):
        alone, length = encoder(*stacked([one]))
        torch.testing.assert_close(states[row, : lengths[row]], alone[0], atol=1e-5, rtol=0)
    set_conf(encoder.config, pad_s=0)
    without, _ = encoder(*stacked(features))
    changed = [
        float((states[row, :length] - without[row, :length]).abs().max())
        for row, length in enumerate(lengths)
    ]
    assert max(changed[:2]) < 1e-5 < 1e-2 < min(changed[2:])


def test_the_setting_is_checked():
    config = whisper_config(max_source_positions=100)
    with pytest.raises(ValueError, match="pad_s 3 must lie between 0 and 2 s"):
        set_conf(config, pad_s=3)
    model = OsumModel.__new__(OsumModel)
    torch.nn.Module.__init__(model)
    model.encoder = Encoder(config)
    with pytest.raises(ValueError, match="encoder_conf {'pads': 1} does not fit encoder 'whisper'"):
        build.set_encoder_conf(model, {"pads": 1})


@pytest.fixture
def tokenizers(folders, monkeypatch):
    """The folders have no tokenizers, and none is needed here."""
    monkeypatch.setattr(build, "load_tokenizer", lambda source: [])
    return folders


def test_both_kinds_keep_it_and_pass_it_on(tokenizers, batch, take, tmp_path, as_batch):
    """Phase 1 saves it, phase 2 takes it over with the encoder, fine-tuning changes it."""
    whisper, llm = str(tokenizers / "whisper"), str(tokenizers / "tied")
    first, _ = build.build(
        ModelConfig(kind="whisper", whisper=whisper, encoder_conf={"pad_s": 0.9})
    )
    first.save_pretrained(tmp_path / "1")
    first = build.load(tmp_path / "1")
    assert isinstance(first, WhisperPhase) and first.encoder.min_frames == 90
    parts = ModelConfig(
        whisper=whisper, llm=llm, adapter_conf=ADAPTER, init_parts={"encoder": str(tmp_path / "1")}
    )
    second, _ = build.build(parts)
    second.save_pretrained(tmp_path / "2")
    second = build.load(tmp_path / "2")
    assert second.encoder.min_frames == 90
    for model in (first, second):
        together = model(as_batch(batch)).nll
        alone = torch.cat([model(as_batch(take(batch, row))).nll for row in range(3)])
        torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)
        model.encoder.config.pad_s = 0.0
        assert float((model(as_batch(batch)).nll - together).abs().max()) > 1e-3
    assert build.build(ModelConfig(init_from=str(tmp_path / "2")))[0].encoder.min_frames == 90
    tuned, _ = build.build(ModelConfig(init_from=str(tmp_path / "2"), encoder_conf={"pad_s": 0}))
    assert tuned.encoder.min_frames == 0 and tuned.config.encoder.pad_s == 0


def test_estimate_counts_the_silence():
    conf = TrainConfig(train_parts={"adapter.*": PartConfig()}, batch=BatchConfig(max_frames=6000))
    conf.model.adapter_conf = ADAPTER
    sizes = whisper_config(), llm_config()
    before = estimate.estimate(conf, *sizes)
    conf.model.encoder_conf = {"pad_s": 30}
    after = estimate.estimate(conf, *sizes)
    assert (before.utterances, after.utterances) == (7, 2)
    assert after.flops / after.utterances > 2 * before.flops / before.utterances
