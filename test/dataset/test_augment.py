"""Augmentations do what their numbers say, and depend on nothing but (seed, epoch, key)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from wenet_osum.config import AugmentConfig, SpecAugmentConfig
from wenet_osum.dataset import augment, steps
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.records import Utterance, Word


def tone(seconds=1.0, hz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * 16000)) / 16000)).astype(np.float32)


def write_list(folder, recordings):
    paths = []
    for i, samples in enumerate(recordings):
        paths.append(folder / f"r{i}.wav")
        paths[-1].write_bytes(write_wav(samples, subtype="FLOAT"))
    (folder / "list").write_text("".join(f"{p}\n" for p in paths))
    return str(folder / "list")


def test_generator_is_the_same_in_another_process():
    code = "from wenet_osum.dataset.augment import make_rng; print(make_rng(7, 3, '键 1').integers(1 << 60))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(other) == augment.make_rng(7, 3, "键 1").integers(1 << 60)
    others = [(7, 3, "键 1"), (8, 3, "键 1"), (7, 4, "键 1"), (7, 3, "键 2"), (7, 31, "k"), (73, 1, "k")]
    draws = {int(augment.make_rng(*a).integers(1 << 60)) for a in others}
    assert len(draws) == 6


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25])
def test_speed_changes_length_pitch_and_word_times(factor):
    got, used = augment.speed(tone(), [factor], augment.make_rng(0, 0, "a"))
    assert used == pytest.approx(factor) and abs(len(got) - 16000 / factor) <= 1
    peak = np.argmax(np.abs(np.fft.rfft(got))) * 16000 / len(got)
    assert peak == pytest.approx(440 * factor, rel=0.01)
    assert augment.scale_words([Word("a", 0.9, 1.8)], used) == [Word("a", pytest.approx(0.9 / factor), pytest.approx(1.8 / factor))]
    assert augment.scale_words(None, used) is None


def test_speeds_are_drawn_evenly():
    draw, wave = augment.make_rng(0, 0, "a"), tone(0.01)
    used = [augment.speed(wave, [0.9, 1.0, 1.1], draw)[1] for _ in range(600)]
    assert all(150 < used.count(f) < 250 for f in (0.9, 1.0, 1.1))


@pytest.mark.parametrize("noise_s", [0.3, 3.0])
def test_noise_has_the_ratio_asked_for(tmp_path, noise_s):
    noise = np.random.default_rng(0).normal(0, 0.01, round(noise_s * 16000)).astype(np.float32)
    wave = tone()
    got = augment.add_noise(wave, write_list(tmp_path, [noise]), (10.0, 10.0), augment.make_rng(0, 0, "a"))
    ratio_db = 10 * np.log10(np.mean(wave**2) / np.mean((got - wave) ** 2))
    assert got.dtype == np.float32 and ratio_db == pytest.approx(10.0, abs=0.01)


def test_silence_gets_no_noise(tmp_path):
    path = write_list(tmp_path, [tone(0.1)])
    assert not augment.add_noise(np.zeros(1600, np.float32), path, (5.0, 5.0), augment.make_rng(0, 0, "a")).any()


def test_reverberation_keeps_place_and_level(tmp_path):
    response = np.zeros(800, np.float32)
    response[[100, 300, 700]] = [0.8, 0.3, 0.1]
    wave = np.zeros(16000, np.float32)
    wave[5000] = 1.0
    got = augment.reverberate(wave, write_list(tmp_path, [response]), augment.make_rng(0, 0, "a"))
    assert np.argmax(np.abs(got)) == 5000 and got[5200] / got[5000] == pytest.approx(0.375, abs=1e-3)
    assert np.mean(got**2) == pytest.approx(np.mean(wave**2), rel=1e-3) and got.dtype == np.float32 and len(got) == 16000


def test_gain():
    assert np.allclose(augment.gain(tone(), (-6.0206, -6.0206), augment.make_rng(0, 0, "a")), tone() / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "match"), [(None, "does not exist; write one path per line"), ("\n", "is empty"), ("/none/x.wav\n", "1 of 1 files do not exist")]
)
def test_bad_lists_name_the_next_step(tmp_path, content, match):
    if content is not None:
        (tmp_path / "list").write_text(content)
    with pytest.raises(ValueError, match=match):
        augment.read_list(str(tmp_path / "list"))


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "list").write_text(f"{tmp_path}/a.wav\n", encoding="utf-8-sig")
    assert augment.read_list(str(tmp_path / "list")) == (f"{tmp_path}/a.wav",)


def test_bad_recording_is_named(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"junk")
    (tmp_path / "list").write_text(f"{tmp_path}/x.wav\n")
    with pytest.raises(ValueError, match=r"x\.wav for augmentation cannot be used .*take it out"):
        augment.reverberate(tone(), str(tmp_path / "list"), augment.make_rng(0, 0, "a"))


def test_whole_chain_repeats_and_default_changes_nothing(tmp_path):
    path = write_list(tmp_path, [tone(0.2, 100.0), tone(0.3, 200.0)])
    conf = AugmentConfig(speeds=[0.9, 1.1], noise=path, noise_prob=0.7, reverb=path, reverb_prob=0.7, gain_db=(-6.0, 6.0))

    def changed(conf, epoch):
        signal = steps.Signal(Utterance("k", "k.wav"), augment.make_rng(1, epoch, "k"), audio=tone())
        return steps.run(signal, SampleConfig(augment=conf))

    first, again = changed(conf, 2), changed(conf, 2)
    assert np.array_equal(first.audio, again.audio) and first.speed == again.speed
    assert not np.array_equal(first.audio, changed(conf, 3).audio)
    same = changed(AugmentConfig(), 2)
    assert np.array_equal(same.audio, tone()) and same.speed == 1.0


def masked(features, conf, key):
    """Mask features as the step of the sound does."""
    masks = augment.draw_masks(*features.shape, conf, augment.make_rng(0, 0, key))
    return augment.apply_masks(features, masks)


def test_masks_stay_in_bounds_and_leave_the_input():
    conf = SpecAugmentConfig(time_masks=1, max_time=50, mel_masks=0)
    features = torch.arange(60.0).unsqueeze(1) + torch.arange(80.0) / 100
    before, widths = features.clone(), set()
    for key in range(200):
        changed = masked(features, conf, str(key))
        widths.add(int((changed != features).any(1).sum()))
    assert max(widths) == 12 and 0 in widths and torch.equal(features, before)


def test_mel_masks():
    conf = SpecAugmentConfig(time_masks=0, mel_masks=1, max_mels=10)
    features = torch.rand(100, 80, generator=torch.Generator().manual_seed(0))
    changed = [(masked(features, conf, str(k)) != features) for k in range(100)]
    assert max(int(c.any(0).sum()) for c in changed) == 10 and all(torch.equal(c.any(0), c.all(0)) for c in changed)


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_tiny_features_survive(frames):
    conf = SpecAugmentConfig(substitutions=3)
    assert masked(torch.rand(frames, 80), conf, "a").shape == (frames, 80)


def test_substitution_takes_earlier_frames():
    features = torch.arange(200.0).unsqueeze(1).expand(200, 80)
    conf = SpecAugmentConfig(time_masks=0, mel_masks=0, substitutions=3, max_substitution=30)
    got = masked(features, conf, "b")
    moved = got[:, 0] != features[:, 0]
    assert 0 < int(moved.sum()) <= 90 and torch.all(got[:, 0] <= features[:, 0])
