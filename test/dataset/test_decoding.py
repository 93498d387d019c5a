"""Lists for recognition: every utterance comes out once, as a batch, as long audio, or as a failure with its key."""

import numpy as np
import pytest
import soundfile

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.dataset import DecodeList, decode_batches
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.records import Utterance
from wenet_osum.text.template import Template
from wenet_osum.text.train_tokenizer import train_tokenizer

SECONDS = [0.5, 1.2, 2.6, 0.4, 0.9, 0.05, 1.1]


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(["red cat"] * 9, vocab_size=500))


@pytest.fixture
def source(tmp_path):
    rows = []
    for i, seconds in enumerate(SECONDS):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, np.random.default_rng(i).normal(0, 0.1, int(seconds * 16000)), 16000, subtype="PCM_16")
        rows.append(Utterance(f"u{i}", str(path), task=["asr", "ser", "asr", "nonsense"][i] if i < 4 else None, lang="en"))
    rows.append(Utterance("gone", str(tmp_path / "gone.wav")))
    write_manifest(tmp_path / "raw.list", rows)
    found = DecodeList(str(tmp_path / "raw.list"))
    (tmp_path / "4.wav").write_bytes(b"broken since")
    return found


def outcome(source, task, template, **options):
    found = {"batch": [], "long": [], "failed": dict(source.failures)}
    for part in decode_batches(source, task, template, BatchConfig(max_frames=300), 80, **options):
        found["failed"] |= dict(part.failures)
        if part.long:
            found["long"].append((part.long.utterance.key, round(len(part.long.audio) / 16000, 2)))
        if part.batch:
            assert len(part.tasks) == len(part.batch.keys) and [t.tags for t in part.tasks] == part.batch.tasks
            assert part.batch.features.shape[0] * part.batch.features.shape[1] <= 300 and not len(part.batch.answer_ids)
            found["batch"] += part.batch.keys
    return found


def test_every_utterance_comes_out_once(source, template):
    found = outcome(source, "ser", template, max_s=2.0)
    assert found["batch"] == ["u1", "u6", "u0", "u3", "u5"]
    assert found["long"] == [("u2", 2.6)]
    assert set(found["failed"]) == {"gone", "u4"} and "unreadable" in found["failed"]["u4"]
    assert [i.key for i in source.items] == [f"u{i}" for i in range(7)] and source.items[2].duration_s == pytest.approx(2.6)


def test_own_tasks(source, template):
    found = outcome(source, None, template)
    assert found["batch"] == ["u2", "u1", "u0"] and not found["long"]
    assert "unknown task" in found["failed"]["u3"] and "give --task" in found["failed"]["u6"]


def test_done_ones_are_skipped_and_unknown_tasks_stop(source, template):
    assert outcome(source, "asr", template, skip={"u1", "u2", "u4"})["batch"] == ["u6", "u0", "u3", "u5"]
    with pytest.raises(ValueError, match="did you mean 'asr'"):
        outcome(source, "ars", template)
