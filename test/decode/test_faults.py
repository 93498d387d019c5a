"""Odd recordings have a line that says why; what strikes all alike ends the run."""

from __future__ import annotations

import io
import json
import shutil
import struct

import numpy as np
import pytest
import soundfile
import torch

import wenet_osum
from wenet_osum.bin import recognize, transcribe
from wenet_osum.decode import pipeline
from wenet_osum.decode.faults import MOST, Faults, ProgramFault
from wenet_osum.records import Hypothesis
from wenet_osum.text.template import Template

RATE = 16000
SHORT = np.random.default_rng(5).normal(0, 0.1, RATE // 2).astype(np.float32)  # 0.5 s
LONG = np.random.default_rng(6).normal(0, 0.1, RATE * 58).astype(np.float32)  # three pieces


def wav(samples, rate=None) -> bytes:
    """A file, with another rate in its header."""
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="WAV")
    data = bytearray(out.getvalue())
    if rate:
        data[24:28] = struct.pack("<I", rate)
    return bytes(data)


ODD = {"slow": wav(SHORT, 40), "fast": wav(SHORT, 0xFFFFFFFF), "bad": b"no audio"}


@pytest.fixture(scope="module")
def m(model_dir):
    return wenet_osum.load(model_dir, max_tokens=5)


@pytest.fixture
def folder(tmp_path):
    """Good and odd files."""
    files = {"good": wav(SHORT)} | ODD | {"fine": wav(SHORT[:6000]), "long": wav(LONG)}
    for name, data in files.items():
        (tmp_path / f"{name}.wav").write_bytes(data)
    return tmp_path


@pytest.fixture
def brittle(monkeypatch):
    """Return a switch that lets the model raise ``error`` for the keys that ``fails`` accepts."""

    def switch(fails, error):
        decode = pipeline.Recognizer.decode

        def decoded(self, samples):
            if any(fails(sample.key) for sample in samples):
                raise error
            return decode(self, samples)

        monkeypatch.setattr(pipeline.Recognizer, "decode", decoded)

    return switch


def answered(answers):
    return [answer.error is None for answer in answers]


def test_recognize_has_a_line_for_every_input(model_dir, folder, capsys):
    names = ["slow", "good", "fast", "bad", "fine"]
    rows = [{"key": name, "wav": str(folder / f"{name}.wav")} for name in names]
    listed, out = folder / "a.list", folder / "out"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--model", model_dir, "--list", listed, "--task", "asr", "--out", out]
    assert recognize.main([*map(str, arguments), "--max_tokens", "5"]) == 0
    lines = (out / "hyp.jsonl").read_text().splitlines()
    answers = [Hypothesis.from_dict(json.loads(line)) for line in lines]
    assert [answer.key for answer in answers] == names
    assert answered(answers) == [False, True, False, False, True]
    assert "sample rate outside" in answers[0].error and "sample rate outside" in answers[2].error
    assert "Traceback" not in capsys.readouterr().err


def test_transcribe_answers_what_stands_beside_an_odd_file(model_dir, folder, brittle, capsys):
    brittle(lambda key: "fine" in key, ZeroDivisionError("a library's"))
    files = [str(folder / f"{name}.wav") for name in ("good", "slow", "fine", "good")]
    arguments = [*files, "--model", str(model_dir), "--format", "json"]
    status = transcribe.main([*arguments, "--max_tokens", "5"])
    told = capsys.readouterr()
    answers = [Hypothesis.from_dict(json.loads(line)) for line in told.out.splitlines()]
    assert status == 1 and answered(answers) == [True, False, False, True]
    assert answers[2].error == "ZeroDivisionError: a library's"


def test_a_fault_of_one_is_shown_once_and_the_others_are_answered(m, brittle, capsys):
    brittle(lambda key: key in ("audio 3", "audio 7"), RuntimeError("odd"))
    answers = m([SHORT[: 8000 - i] for i in range(12)])
    assert answered(answers) == [i not in (3, 7) for i in range(12)]
    assert answers[7].error == "RuntimeError: odd"
    assert capsys.readouterr().err.count("Traceback") == 1


def test_a_sound_that_cannot_be_asked_is_its_own_fault(m):
    class Odd:
        def __array__(self, *_, **__):
            raise KeyError("broken")

    answers = m([SHORT, Odd(), SHORT])
    assert answered(answers) == [True, False, True] and "KeyError" in answers[1].error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("odd")])
def test_long_audio_is_tried_in_smaller_batches(m, monkeypatch, error):
    decode, sizes = pipeline.Recognizer.decode, []

    def small(self, samples):
        sizes.append(len(samples))
        if len(samples) > 1:
            raise error
        return decode(self, samples)

    monkeypatch.setattr(pipeline.Recognizer, "decode", small)
    answer = m(LONG)
    assert len(answer.pieces) == 3 and answer.duration == 58.0 and sizes == [3, 1, 2, 1, 1]
    assert [piece["start"] for piece in answer.pieces] == [0.0, 27.0, 54.0]


def test_a_piece_that_fails_fails_its_recording_alone(m, brittle):
    brittle(lambda key: key == "audio 0@27.00", torch.OutOfMemoryError("full"))
    answers = m([LONG, SHORT])
    assert answered(answers) == [False, True]
    assert answers[0].error.startswith("out of memory") and "audio 0@27.00" in answers[0].error


def test_a_long_recording_is_one_fault_however_many_its_pieces(m, brittle):
    brittle(lambda key: "@" in key, RuntimeError("odd"))
    m.recognizer.decoding = Faults()
    longest = np.tile(LONG, 5)
    answers = m([longest, LONG, SHORT])
    assert answered(answers) == [False, False, True]
    m.recognizer.decoding = Faults()
    with pytest.raises(ProgramFault):
        m([LONG] * MOST)
    m.recognizer.decoding = Faults()


@pytest.mark.parametrize("error", [RuntimeError("the GPU has gone"), ValueError("of the settings")])
def test_what_strikes_every_utterance_ends_the_run(m, brittle, error):
    brittle(lambda key: True, error)
    m.recognizer.decoding = Faults()
    with pytest.raises(ProgramFault, match=f"{MOST} utterances in a row") as told:
        m([SHORT] * 20)
    assert told.value.__cause__ is error
    m.recognizer.decoding = Faults()


def test_a_model_that_breaks_on_the_way_ends_the_run(m, brittle):
    """Long ones come first: these are answered."""
    brittle(lambda key: int(key.split()[1]) >= 16, RuntimeError("the GPU has gone"))
    m.recognizer.decoding = Faults()
    with pytest.raises(ProgramFault):
        m([SHORT[: 8000 - 100 * i] for i in range(32)])
    m.recognizer.decoding = Faults()


def test_a_programme_that_can_read_nothing_ends_the_run(m, monkeypatch):
    def broken(*_):
        raise TypeError("a new library")

    monkeypatch.setattr(pipeline.Recognizer, "load", broken)
    m.recognizer.reading = pipeline.Recognizer(None, None).reading
    with pytest.raises(ProgramFault, match="TypeError"):
        m([SHORT] * 20)
    monkeypatch.undo()
    assert answered(m([SHORT])) == [True]


def test_odd_files_may_come_in_hundreds(m, monkeypatch):
    load = pipeline.Recognizer.load

    def odd(self, utterance, samples):
        if len(samples) == 8000:
            return load(self, utterance, samples)
        raise TypeError("an odd file")

    monkeypatch.setattr(pipeline.Recognizer, "load", odd)
    answers = m([SHORT, *[SHORT[:7000]] * 40])
    assert answered(answers) == [True] + [False] * 40


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_the_run_stops_it(m, brittle, stop):
    brittle(lambda key: True, stop())
    with pytest.raises(stop):
        m([SHORT, SHORT])


def test_a_setting_that_fits_no_utterance_is_refused_before_the_run(model_dir, parts, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "model")
    Template(parts[1].tokenizer, target_tokenization="whole").save(folder)
    with pytest.raises(ValueError, match="encoded field by field"):
        wenet_osum.load(folder, rescore={"ctc_prefix": 0.5})


# what ends before it should


def test_a_segment_behind_the_end_of_its_recording_is_flagged(model_dir, folder, capsys):
    rows = [
        {"key": "behind", "wav": str(folder / "good.wav"), "start": 0.2, "end": 0.9},
        {"key": "rounded", "wav": str(folder / "good.wav"), "start": 0.2, "end": 0.55},
        {"key": "long", "wav": str(folder / "long.wav"), "start": 5.0, "end": 60.0},
        {"key": "good", "wav": str(folder / "good.wav")},
    ]
    listed, out = folder / "a.list", folder / "out"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--model", model_dir, "--list", listed, "--task", "asr", "--out", out]
    assert recognize.main([*map(str, arguments), "--max_tokens", "5"]) == 0
    lines = (out / "hyp.jsonl").read_text().splitlines()
    flags = {row["key"]: "shortened" in row.get("flags", []) for row in map(json.loads, lines)}
    assert flags == {"behind": True, "rounded": False, "long": True, "good": False}
    assert "shortened 2" in capsys.readouterr().err


@pytest.mark.parametrize("samples", [SHORT.repeat(8), LONG])
def test_a_cut_mp3_is_flagged_and_told(model_dir, tmp_path, capsys, samples):
    whole, cut = tmp_path / "whole.mp3", tmp_path / "cut.mp3"
    soundfile.write(whole, samples, RATE, format="MP3")
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    arguments = [str(whole), str(cut), "--model", str(model_dir), "--format", "json"]
    assert transcribe.main([*arguments, "--max_tokens", "5"]) == 0
    told = capsys.readouterr()
    one, other = [Hypothesis.from_dict(json.loads(line)) for line in told.out.splitlines()]
    assert "shortened" not in one.flags and "shortened" in other.flags
    assert other.duration < 0.7 * one.duration and "shortened 1" in told.err
