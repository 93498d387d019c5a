"""dataset/headers.py: durations of many recordings, in order; what cannot be read is counted."""

from __future__ import annotations

import numpy as np
import pytest

from wenet_osum.dataset import headers
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.drop import Dropped
from wenet_osum.records import Utterance


def test_order_stays_and_faults_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "AHEAD", 4)
    for i in range(10):
        (tmp_path / f"{i}.wav").write_bytes(write_wav(np.zeros(1600 * (i + 1), np.float32)))
    (tmp_path / "3.wav").write_bytes(b"")
    (tmp_path / "7.wav").unlink()
    dropped = Dropped()
    found = list(headers.with_durations((Utterance(str(i), str(tmp_path / f"{i}.wav")) for i in range(10)), dropped))
    wanted = [(str(i), pytest.approx(0.1 * (i + 1), abs=1e-4)) for i in range(10) if i not in (3, 7)]
    assert [(u.key, u.duration) for u in found] == wanted
    assert dropped.pairs == [("3", "audio: empty"), ("7", "audio: file not found")]
