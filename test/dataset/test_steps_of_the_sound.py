"""The sound goes through the listed steps, and the page of the data path lists them as they run."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wenet_osum.config import AugmentConfig, SpecAugmentConfig
from wenet_osum.dataset import dataset, steps
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.augment import make_rng
from wenet_osum.dataset.sample import make_sample
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

TONE = np.sin(np.arange(16000) / 10).astype(np.float32) / 2
NAMES = [step.__name__ for step in steps.STEPS]


def through(conf: AugmentConfig | None, seed: int = 0, **settings) -> steps.Signal:
    signal = steps.Signal(Utterance("k", "k.wav"), make_rng(seed, 0, "k"), data=write_wav(TONE))
    return steps.run(signal, SampleConfig(augment=conf, **settings))


def test_the_page_lists_the_steps_as_they_run():
    section = dataset.__doc__.split("goes through these steps", 1)[1]
    assert re.findall(r"^    (\w+) ", section, re.MULTILINE) == NAMES


def test_the_speed_is_changed_before_noise_comes_and_the_masks_are_last():
    order = ["decode", "speed_perturb", "reverberate", "add_noise", "apply_effects", "change_gain"]
    order += ["compute_log_mel", "spec_augment"]
    assert [name for name in NAMES if name in order] == order


def test_what_runs_is_the_list(monkeypatch):
    template = Template(train_tokenizer(["transcribe the audio", "转录"], 400))
    taken = []

    def noted(step):
        return lambda signal, conf: (taken.append(step.__name__), step(signal, conf))

    monkeypatch.setattr(steps, "STEPS", [noted(step) for step in steps.STEPS])
    make_sample(Utterance("k", "k.wav", txt="a"), write_wav(TONE), template.task("asr"), template, SampleConfig())
    assert taken == NAMES


@pytest.mark.parametrize(
    ("name", "conf"),
    [
        ("speed_perturb", AugmentConfig(speeds=[0.5])),
        ("reverberate", AugmentConfig(reverb="LIST", reverb_prob=1.0)),
        ("add_noise", AugmentConfig(noise="LIST", noise_prob=1.0)),
        ("apply_effects", AugmentConfig(effects=[{"name": "clipping"}])),
        ("change_gain", AugmentConfig(gain_db=(6.0, 6.0))),
        ("spec_augment", AugmentConfig(spec_augment=SpecAugmentConfig(mel_masks=5, max_mels=40))),
    ],
)
def test_each_step_does_what_its_settings_say(name, conf, tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(write_wav(np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)))
    (tmp_path / "LIST").write_text(f"{tmp_path}/a.wav\n")
    monkeypatch.chdir(tmp_path)
    changed, plain = through(conf), through(AugmentConfig())
    monkeypatch.setattr(steps, "STEPS", [step for step in steps.STEPS if step.__name__ != name])
    without = through(conf)
    same = [found.features.shape == plain.features.shape and bool((found.features == plain.features).all()) for found in (changed, without)]
    assert same == [False, True]


def test_nothing_is_drawn_without_settings():
    plain = through(None)
    assert np.array_equal(plain.audio, through(AugmentConfig()).audio) and plain.speed == 1.0
    assert plain.source_s == plain.seconds == 1.0
