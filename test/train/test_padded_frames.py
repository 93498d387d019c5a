"""Budgets count what the encoder computes: with encoder_conf.pad_s also the silence behind short
utterances.
"""

from __future__ import annotations

import numpy as np
import yaml

from wenet_osum import config
from wenet_osum.config import DataConfig
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.models import build
from wenet_osum.train.loop import train
from wenet_osum.train.start import open_model


def padded(tiny, **changes):
    tree = tiny.tree(**changes)
    tree["model"]["encoder_conf"] = {"pad_s": 2.0}
    return config.from_dict(tree)


def test_a_micro_batch_holds_as_many_padded_utterances_as_fit(tiny):
    conf = padded(tiny)
    _, template = open_model(conf, None)
    assert conf.batch.min_frames == 200
    plan = Mixture(config.load(conf.data, DataConfig), conf, template, 80).epoch(0).plan
    assert plan.column("frames").min() == 200
    assert np.diff(plan.bounds).max() == 2, (
        "500 frames hold two utterances of 200, though most are shorter than 100"
    )


def test_a_run_with_silence_keeps_it(tiny, tmp_path):
    assert train(padded(tiny, max_steps=2, eval_every=2), tmp_path) == 0
    assert build.load(tmp_path / "final").encoder.min_frames == 200
    saved = yaml.safe_load((tmp_path / "final" / "train.yaml").read_text(encoding="utf-8"))
    assert saved["batch"]["min_frames"] == 200 and saved["model"]["encoder_conf"] == {"pad_s": 2.0}
