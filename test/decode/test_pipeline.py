"""From a list to result files, through the commands themselves, with a tiny random model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum.bin import recognize, transcribe
from wenet_osum.decode import longform, pipeline, write
from wenet_osum.decode.jobs import Job, group_jobs
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.tasks import parse

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def raw_list(tmp_path_factory):
    """Nine utterances: good ones of odd lengths, a long one, a missing file, a broken line, a doubled key, NaN, one without a task."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for name, seconds in [("a.1", 0.43), ("b", 1.0), ("中 文", 0.1), ("long", 33.0), ("c", 0.77)]:
        audio = np.random.default_rng(len(rows)).normal(0, 0.1, round(seconds * 16000))
        soundfile.write(folder / f"{len(rows)}.wav", audio, 16000)
        rows.append({"key": name, "wav": str(folder / f"{len(rows)}.wav"), "task": "ser"})
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan, np.float32), 16000, subtype="FLOAT")
    rows.insert(1, {"key": "gone", "wav": "gone.wav", "task": "asr"})
    rows.insert(3, {"key": "b", "wav": rows[0]["wav"], "task": "asr"})
    rows.insert(4, {"key": "nan", "wav": str(folder / "nan.wav"), "task": "sgc"})
    rows.append({"key": "untold", "wav": rows[0]["wav"]})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    lines.insert(6, '{"key": 7}')
    (folder / "test.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "test.list"


ORDER = ["a.1", "gone", "b", "nan", "中 文", "7", "long", "c", "untold"]
FAILED = {"gone", "nan", "7"}


def run(model_dir, raw_list, out, *more):
    return recognize.main(["--model", str(model_dir), "--list", str(raw_list), "--out", str(out), "--max_tokens", "9", *more])


def read(out):
    rows = [Hypothesis.from_dict(json.loads(line)) for line in (out / "hyp.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row.key = row.key.rpartition("test.list:")[2]  # a line without a key goes by the list's name and its number
    return rows


def test_every_line_is_answered_in_order(model_dir, raw_list, tmp_path, capsys):
    assert run(model_dir, raw_list, tmp_path, "--task", "ser") == 0
    rows = read(tmp_path)
    assert [row.key for row in rows] == ORDER
    assert {row.key for row in rows if row.error} == FAILED and "not found" in rows[1].error
    assert all(row.labels["emotion"] and sum(row.probs["emotion"].values()) == pytest.approx(1) for row in rows if not row.error)
    long = rows[6]
    assert len(long.pieces) == 2 and long.duration == 33.0
    text = (tmp_path / "text").read_text(encoding="utf-8").splitlines()
    assert len(text) == 9 and text[0].startswith("a.1 ") and text[1] == "gone"
    assert text[4].startswith("中_文 ") and text[5] == f"{raw_list}:7"
    assert capsys.readouterr().err.count("1 keys hold white space") == 1


def test_auto_takes_each_utterances_own_task(model_dir, raw_list, tmp_path):
    assert run(model_dir, raw_list, tmp_path, "--task", "auto") == 0
    rows = {row.key: row for row in read(tmp_path)}
    assert rows["b"].task == "<TRANSCRIBE> <EMOTION>" and "no task" in rows["untold"].error


def test_a_killed_run_goes_on_and_gives_the_same(model_dir, raw_list, tmp_path, monkeypatch):
    run(model_dir, raw_list, tmp_path / "whole", "--task", "ser")
    add, calls = write.Writer.add, []

    def killed(self, answers):
        add(self, answers)
        calls.append(len(answers))
        if len(calls) == 2:
            self._file.write(b'[99, {"key": "to')
            self._file.flush()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write.Writer, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            run(model_dir, raw_list, tmp_path / "killed", "--task", "ser", "--batch_size", "2")
    assert not (tmp_path / "killed" / "hyp.jsonl").exists()
    decoded = []
    decode = pipeline.Recognizer.decode
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, samples: decoded.extend(samples) or decode(self, samples))
    assert run(model_dir, raw_list, tmp_path / "killed", "--task", "ser", "--batch_size", "4") == 0
    assert 0 < len(decoded) < 7 and not any(sample.key.startswith("long") for sample in decoded)
    for one, other in zip(read(tmp_path / "whole"), read(tmp_path / "killed"), strict=True):
        assert (one.key, one.text, one.labels, one.error) == (other.key, other.text, other.labels, other.error)
    decoded.clear()
    assert run(model_dir, raw_list, tmp_path / "killed", "--task", "ser") == 0 and not decoded


def test_a_list_that_fails_whole_is_told_by_the_status_every_time(model_dir, tmp_path, capsys):
    rows = [json.dumps({"key": key, "wav": f"{key}.wav", "txt": "x"}) for key in ("a", "b")]
    gone = tmp_path / "gone.jsonl"
    gone.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert run(model_dir, gone, tmp_path / "out", "--task", "ser") == 1
    assert run(model_dir, gone, tmp_path / "out", "--task", "ser") == 1
    assert "is complete already" in capsys.readouterr().err
    assert all("not found" in row.error for row in read(tmp_path / "out"))


def test_answers_of_another_model_under_the_same_name_are_not_kept(model_dir, raw_list, tmp_path, capsys):
    shutil.copytree(model_dir, tmp_path / "model")
    assert run(tmp_path / "model", raw_list, tmp_path / "out", "--task", "ser") == 0
    assert run(tmp_path / "model", raw_list, tmp_path / "out", "--task", "ser") == 0 and "is complete already" in capsys.readouterr().err
    weights = tmp_path / "model/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4:] = b"\0\0\0\0"
    weights.write_bytes(data)
    assert run(tmp_path / "model", raw_list, tmp_path / "out", "--task", "ser") == 2
    assert "holds results of another run (weights:" in capsys.readouterr().err


def test_hours_of_audio_are_let_go_piece_by_piece(parts, monkeypatch):
    model, template = parts
    heard, most = [], 0

    def pieces(*_):
        nonlocal most
        for i in range(12):
            audio = np.full(16000, 0.1, np.float32)
            heard.append(weakref.ref(audio))
            most = max(most, sum(one() is not None for one in heard))
            yield longform.Piece(i, i + 1, audio)

    monkeypatch.setattr(pipeline.longform, "read_pieces", pieces)
    recognizer = pipeline.Recognizer(model, template, task=parse("ser"), batch_size=2)
    monkeypatch.setattr(recognizer, "decode", lambda items: [Hypothesis(item.key, "", "", transcript="a") for item in items])
    answer = recognizer.answer_long(Utterance("k", "k.wav"), b"")
    assert len(answer.pieces) == 12 and most <= 4


@pytest.mark.slow
def test_two_processes_give_what_one_gives(model_dir, raw_list, tmp_path):
    run(model_dir, raw_list, tmp_path / "one", "--task", "ser")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "wenet_osum.bin.recognize"]
    arguments = ["--model", model_dir, "--list", raw_list, "--out", tmp_path / "two", "--max_tokens", "9", "--task", "ser", "--batch_size", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for one, other in zip(read(tmp_path / "one"), read(tmp_path / "two"), strict=True):
        assert (one.key, one.text, one.labels, one.error) == (other.key, other.text, other.labels, other.error)


def test_faults_are_sentences(model_dir, raw_list, tmp_path, capsys):
    assert run(model_dir, raw_list, tmp_path, "--task", "sr") == 2
    assert "did you mean" in capsys.readouterr().err
    assert run(model_dir, tmp_path / "none.list", tmp_path, "--task", "ser") == 2
    assert "none.list" in capsys.readouterr().err
    assert run(tmp_path / "none", raw_list, tmp_path, "--task", "ser") == 2
    assert run(model_dir, raw_list, tmp_path, "--task", "ser", "--num_beams", "2", "--temperature", "1") == 2


def test_batches_keep_their_budget():
    jobs = [Job(i, str(i), s, None) for i, s in enumerate([1, 5, 31, 2, 9, 1, 1, 40])]
    groups = group_jobs(jobs, 3, 1000)
    assert [[job.seconds for job in group] for group in groups] == [[40], [31], [9], [5, 2], [1, 1, 1]]


def test_transcribe_prints_in_order_for_people(model_dir, raw_list, tmp_path, capsys):
    files = [str(raw_list.parent / name) for name in ("0.wav", "gone.wav", "1.wav")]
    assert transcribe.main([*files, "--model", str(model_dir), "--task", "ser", "--max_tokens", "9"]) == 1
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines() if not line.startswith(" ")][:1] == [files[0]]
    assert "emotion:" in out and "failed: audio: file not found" in out and "RTF" in err
    assert transcribe.main([files[2], "--model", str(model_dir), "--task", "<AGE>", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]["age"] in ("child", "adult", "old")
