"""Features made of a whole batch on the device are those made utterance by utterance, masks included."""

import numpy as np
import pytest
import torch

from wenet_osum.config import AugmentConfig, SpecAugmentConfig
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.device_features import for_device, log_mels, with_features
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.dataset.sample import SampleConfig, make_sample, silent_sample
from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

LENGTHS = [16000, 170, 12345, 31999, 201]  # samples


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(["red cat"] * 9, vocab_size=400))


def waves():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, n).astype(np.float32) * np.linspace(0, 1, n, dtype=np.float32) for n in LENGTHS]


@pytest.mark.parametrize("mels", [80, 128])
def test_a_padded_batch_gives_what_each_gives_alone(mels):
    rows = [for_device(wave) for wave in waves()]
    padded = torch.nn.utils.rnn.pad_sequence([audio for audio, _ in rows], batch_first=True)
    found = log_mels(padded, torch.tensor([frames for _, frames in rows]), mels)
    for row, wave in zip(found, waves(), strict=True):
        alone = log_mel(wave, mels)
        torch.testing.assert_close(row[: len(alone)], alone, atol=2e-5, rtol=0)
        assert not row[len(alone) :].any()


def batch(template, on_device):
    augment = AugmentConfig(speeds=[0.9, 1.0, 1.1], spec_augment=SpecAugmentConfig(substitutions=2))
    conf = SampleConfig(80, augment=augment, seed=3, epoch=1, on_device=on_device)
    rows = [wave for wave in waves() if len(wave) > 2000]
    return collate([make_sample(Utterance(f"k{i}", "x", txt="red cat"), write_wav(w), template.task("asr"), template, conf) for i, w in enumerate(rows)])


def test_the_whole_sample_is_the_same_whoever_makes_its_features(template):
    usual, later = batch(template, False), batch(template, True)
    assert later.features.shape == (*usual.features.shape[:2], 0) and torch.equal(later.feature_lengths, usual.feature_lengths)
    made = with_features(later, 80)
    torch.testing.assert_close(made.features, usual.features, atol=2e-5, rtol=0)
    assert with_features(usual, 80) is usual and made.audio is None
    plain = log_mels(later.audio, later.feature_lengths, 80)
    assert (plain != made.features).any(), "nothing was masked"


def test_fillers_come_along(template):
    conf = SampleConfig(80, on_device=True)
    filled = with_features(collate([], {}, silent_sample(template, conf)), 80)
    assert filled.filler and filled.features.shape == (1, 50, 80) and torch.all(filled.features == -1.5)
