"""Recordings without speech: how they are made, and their empty transcript on the way from manifest to score."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wenet_osum.bin import recognize
from wenet_osum.bin import score as score_command
from wenet_osum.config import BatchConfig, DataConfig, ModelConfig, SourceConfig, TrainConfig
from wenet_osum.dataset import without_speech
from wenet_osum.dataset.augment import make_rng
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.dataset.drop import Dropped
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.dataset.shard import pack, write_list
from wenet_osum.models.build import load
from wenet_osum.models.objective import make_objective
from wenet_osum.records import Utterance
from wenet_osum.text.template import Template

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000


def tool():
    spec = importlib.util.spec_from_file_location("make_silence", ROOT / "tools/make_silence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_numbers_and_lengths():
    assert without_speech.how_many(950, 0.05) == 50 and without_speech.how_many(3, 0.05) == 1
    with pytest.raises(ValueError, match="share 1"):
        without_speech.how_many(9, 1.0)
    dropped = Dropped()
    rows = [Utterance("a", "a", duration=2.0), Utterance("b", "b", start=1.0, end=4.0), Utterance("c", "c"), Utterance("d", "d", duration=99.0)]
    assert without_speech.durations(rows, "", dropped) == [2.0, 3.0, 30.0]
    assert dropped == {"audio: file not found": 1}
    with pytest.raises(ValueError, match="no row has a duration"):
        without_speech.durations(rows[2:3], "", dropped)


def test_sounds_are_as_loud_as_drawn():
    draws = [make_rng(0, 0, str(i)) for i in range(20)]
    quiet = [without_speech.synthetic("silence", RATE, draw) for draw in draws]
    assert {bool(audio.any()) for audio in quiet} == {True, False} and max(np.abs(audio).max() for audio in quiet) < 0.01
    noise = [without_speech.synthetic("noise", RATE, draw) for draw in draws]
    levels = [20 * np.log10(np.sqrt(np.mean(audio**2))) for audio in noise]
    assert min(levels) > -62 and max(levels) < -13 and max(levels) - min(levels) > 15
    ramp = np.linspace(0.1, 0.9, 100, dtype=np.float32)
    cut = without_speech.excerpt(ramp, 40, draws[0])
    assert len(cut) == 40 and np.all(np.diff(cut) > 0) and len(without_speech.excerpt(ramp, 250, draws[0])) == 250


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with 12 utterances of speech, and the tool's output beside them."""
    folder = tmp_path_factory.mktemp("silence")
    rows = []
    for i in range(12):
        path = folder / f"{i}.wav"
        soundfile.write(path, np.random.default_rng(i).normal(0, 0.1, RATE), RATE)
        rows.append(Utterance(f"u{i}", str(path), "the cat sat", lang="en", duration=1.0))
    write_manifest(folder / "train.jsonl", rows)
    (folder / "noise.list").write_text(f"{folder / '0.wav'}\n{folder / '1.wav'}\n")
    words = ["--share", "0.3333", "--recordings", folder / "noise.list", "--wav_dir", folder / "wav", folder / "train.jsonl", folder / "silence.jsonl"]
    assert tool().main([*map(str, words)]) == 0
    return folder


def test_the_tool_makes_each_kind_and_the_same_again(made):
    rows = list(read_manifest(made / "silence.jsonl"))
    assert [row.extra["sound"] for row in rows] == ["silence", "noise", "recording"] * 2
    assert all(row.txt == "" and row.duration == 1.0 and soundfile.info(row.wav).frames == RATE for row in rows)
    again = without_speech.make(2, [1.0] * 12, made / "again", Dropped())
    assert Path(next(again).wav).read_bytes() == Path(rows[0].wav).read_bytes()


def test_another_list_does_not_overwrite_the_recordings(made, capsys):
    before = (made / "wav/without_speech_000000.wav").read_bytes()
    words = ["--share", "0.3333", "--seed", 1, "--wav_dir", made / "wav", made / "train.jsonl", made / "dev_silence.jsonl"]
    assert tool().main([*map(str, words)]) == 1 and "give this list a --wav_dir of its own" in capsys.readouterr().err
    assert (made / "wav/without_speech_000000.wav").read_bytes() == before and not (made / "dev_silence.jsonl").exists()


def test_a_recording_that_is_none_is_counted(tmp_path):
    dropped = Dropped()
    (tmp_path / "bad.wav").write_bytes(b"none")
    found = without_speech.make(3, [1.0], tmp_path, dropped, [Utterance("bad", str(tmp_path / "bad.wav"))])
    assert [row.extra["sound"] for row in found] == ["silence", "noise"] and dropped.total() == 1


def batches(folder, template, targets=None, **source):
    rows = DataConfig(train=[SourceConfig("silence", str(folder / "silence.list"), tasks={"asr": 1.0}, **source)])
    conf = TrainConfig(batch=BatchConfig(max_frames=1000, max_tokens=2000))
    return list(Mixture(rows, conf, template, 80, targets=targets).epoch(0))


def test_an_empty_transcript_from_manifest_to_score(made, tiny_folder, capsys):
    """Manifest → shard → batch → loss → decoding → score."""
    rows = list(read_manifest(made / "silence.jsonl"))
    pack(rows, made / "shards", per_shard=3)
    write_list(made / "silence.list", sorted((made / "shards").glob("*.tar")))
    template = Template.load(tiny_folder)
    with pytest.raises(ValueError, match="nothing left of .*transcript"):
        batches(made, template)

    objective = make_objective(ModelConfig(losses=[{"name": "ctc", "weight": 0.5}]), template)
    found = batches(made, template, objective.targets, without_speech=True)
    assert sorted(key for batch in found for key in batch.keys) == [row.key for row in rows]
    batch = found[0]
    assert batch.answer_ids.tolist() == [template.end_id] * len(batch.keys) and batch.answer_weights.min() == 1.0
    assert batch.targets["transcript_ids_lengths"].tolist() == [0] * len(batch.keys)

    model = load(str(tiny_folder), torch.float32)
    model.set_objective(objective)
    output = model(batch)
    output.loss.backward()
    gradients = [p.grad for p in model.adapter.parameters() if p.grad is not None]
    assert output.loss.isfinite() and output.loss > 0 and gradients and all(g.isfinite().all() for g in gradients)

    out = made / "decode"
    words = ["--model", tiny_folder, "--list", made / "silence.list", "--task", "asr", "--max_tokens", "5", "--out", out]
    assert recognize.main([*map(str, words)]) == 0
    answers = [json.loads(line) for line in (out / "hyp.jsonl").read_text().splitlines()]
    words = ["--ref", made / "silence.list", "--hyp", out, "--task", "asr", "--out", made / "score", "--report"]
    assert score_command.main([*map(str, words)]) == 0
    scores = {row["metric"]: row for row in json.loads((made / "score/score.json").read_text())["scores"]}
    said = [answer["transcript"] for answer in answers]
    score = scores["invented_words"]
    assert score["utterances"] == 6 and score["detail"]["with_words"] == sum(bool(text.strip()) for text in said)
    assert "words/min" in (made / "score/report.html").read_text()
