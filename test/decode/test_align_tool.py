"""tools/force_align.py with a speech LLM: words by the CTC of its adapter, and their ends by the voice."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.decode.pauses import voiced_frames


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("force_align")


@pytest.fixture(scope="module")
def audio():
    """A noise from 0.3 to 1.2 s in 3 s of near silence."""
    found = np.random.default_rng(0).normal(0, 1e-4, 48000)
    found[4800:19200] += np.random.default_rng(1).normal(0, 0.1, 14400)
    return found.astype(np.float32)


def test_voice_is_where_it_is_loud(audio):
    voiced = voiced_frames(log_mel(audio).numpy())
    assert len(voiced) == 300 and voiced[32:118].all() and not voiced[:27].any() and not voiced[124:].any()
    for mels in (80, 128):
        assert not voiced_frames(log_mel(np.zeros(16000, np.float32), mels).numpy()).any()
    assert len(voiced_frames(np.empty((0, 80)))) == 0


def test_words_by_the_adapters_ctc(tool, audio, model_dir, tmp_path, capsys):
    (tmp_path / "a.wav").write_bytes(write_wav(audio))
    (tmp_path / "m.jsonl").write_text(json.dumps({"key": "a", "wav": "a.wav", "txt": "the cat sat"}) + "\n")
    found = {}
    for ends in ("tokens", "voice"):
        done = tool.main(["--model", str(model_dir), "--ends", ends, str(tmp_path / "m.jsonl"), str(tmp_path / f"{ends}.jsonl")])
        assert done == 0, capsys.readouterr().err
        [utterance] = read_manifest(tmp_path / f"{ends}.jsonl")
        found[ends] = utterance.words
        assert [word.text for word in utterance.words] == ["the", "cat", "sat"]
        times = [time for word in utterance.words for time in (word.start, word.end)]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= 3.0
    assert found["tokens"] != found["voice"]
