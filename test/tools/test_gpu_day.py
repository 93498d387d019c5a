"""tools/bench/gpu_day.py: one call in parts, and the same on a CPU at tiny sizes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "tools/bench"
MACHINE = {"device": "NVIDIA H200", "memory GiB": 139.8, "torch": "2.11", "commit": "abc"}
MEAN = {"seconds": 8.0, "prompt_tokens": 20, "answer_tokens": 40}


@pytest.fixture
def day(monkeypatch):
    """The module, which imports no torch."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("gpu_day")


def answering(monkeypatch, day, answers: dict) -> list[str]:
    """Let pieces answer what is given, without a process; returns the names of those run."""
    ran = []

    def answer(piece, folder, limit_s):
        ran.append(piece.name)
        return dict(answers.get(piece.name, {"rows": [], "text": ""}))

    monkeypatch.setattr(day, "in_own_process", answer)
    monkeypatch.setattr(importlib.import_module("in_pieces"), "in_own_process", answer)
    return ran


def test_parts_are_chosen_and_minutes_bound_a_call(day, tmp_path, monkeypatch, capsys):
    ran = answering(monkeypatch, day, {"machine": MACHINE})
    short = ["--out", str(tmp_path), "--parts", "tests,decoding", "--minutes", "1"]
    assert day.main(short) == 85
    assert ran == ["machine", "tests", "table"]
    assert "left: decoding 7b, decoding 0.5b; call again" in capsys.readouterr().out
    assert day.main(["--out", str(tmp_path), "--parts", "tests,decoding"]) == 0
    assert ran[3:] == ["machine", "decoding 7b", "decoding 0.5b", "table"]


def test_a_folder_keeps_to_one_machine_and_one_commit(day, tmp_path, monkeypatch, capsys):
    answering(monkeypatch, day, {"machine": MACHINE})
    assert day.main(["--out", str(tmp_path)]) == 0
    answering(monkeypatch, day, {"machine": MACHINE | {"commit": "def"}})
    assert day.main(["--out", str(tmp_path)]) == 2
    assert "is of commit 'abc', this call of 'def'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--parts", "test"], ["--minutes", "0"]])
def test_what_cannot_be_is_refused(day, words):
    with pytest.raises(SystemExit) as leaving:
        day.main(["--out", "x", *words])
    assert leaving.value.code == 2


def test_a_missing_gpu_is_told_in_a_sentence(day, tmp_path, monkeypatch, capsys):
    work = importlib.import_module("gpu_work")
    monkeypatch.setattr(work.torch.cuda, "is_available", lambda: False)
    found = work.machine({"rehearse": False, "commit": ""})
    answering(monkeypatch, day, {"machine": found})
    assert day.main(["--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("there is no GPU") and "--rehearse" in told


def test_a_test_that_a_gpu_skips_is_a_fault(day, tmp_path, monkeypatch):
    work = importlib.import_module("gpu_work")
    report = '<testsuite><testcase name="a"/><testcase name="b"><skipped message="no"/></testcase>'

    def run(words):
        path = next(word for word in words if word.startswith("--junitxml="))
        Path(path.partition("=")[2]).write_text(report + "</testsuite>")

    monkeypatch.setattr(work.pytest, "main", run)
    assert "error" not in work.tests({"rehearse": True})
    found = work.tests({"rehearse": False})
    assert found["error"] == "failed or skipped: b"
    assert found["rows"][1] == {"test": "b", "outcome": "skipped", "why": "no"}


def test_the_table_has_medians_the_share_of_the_peak_and_what_is_missing(day):
    table = importlib.import_module("gpu_table").table
    ours = {"way": "ours", "utterances": 14, "seconds": [0.01] * 3, "flops": 5e12, "peak_gib": 40.0}
    theirs = ours | {"way": "plain", "seconds": [0.02] * 3}
    full = ours | {"way": "whole", "seconds": [], "error": "out of memory"}
    fast = {"way": "ours", "batch": 8, "seconds": [0.5] * 3, "tokens": 40, "peak_gib": 20.0}
    part = {"work": "ctc head", "way": "half", "seconds": [0.01] * 3, "peak_mib": 10.0}
    answers = {
        "tests": None,
        "products": {"rows": [], "tflops": [700.0, 701.0, 702.0]},
        "rates 7b phase 3": {"rows": [ours, theirs, full], "mean": MEAN},
        "ways": {"rows": [part, part | {"way": "before", "seconds": [0.02] * 3, "peak_mib": 40.0}]},
        "decoding 7b": {"rows": [fast], "mean": MEAN},
        "decoding 0.5b": {"error": "it broke"},
    }
    told = table({"machine": MACHINE, "answers": answers, "peak_tflops": 0.0})["text"]
    # 8 s in 0.01 s are 800 hours per hour; 5e12 FLOPs in 0.01 s are 500 of 989 TFLOP/s.
    assert "| 7b phase 3 | ours | 14 | 800 (800–800) | 50.6 (50.6–50.6) % | 1.00" in told
    assert "| 7b phase 3 | plain | 14 | 400 (400–400) | 25.3" in told
    assert "| 7b phase 3 | whole | 14 | out of memory |" in told
    # 8 utterances of 8 s in half a second.
    assert "| 7b | 8 | ours | 128 (128–128) | 640 (640–640) | 1.00" in told
    assert "| ctc head | before | 20 (20–20) | 2.00 (2.00–2.00) | 40.0 | 4.00 |" in told
    assert "701 (700.5–701.5) TFLOP/s" in told
    assert "- tests: not run" in told and "- decoding 0.5b: failed: it broke" in told
    assert "NVIDIA H200" in told and "rehearsal" not in told


def test_the_script_hands_its_options_on():
    """With an unknown part it ends before anything is imported."""
    command = ["bash", str(BENCH / "gpu_day.sh"), "--out", "x", "--parts", "tests,all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no part 'all'; there are tests, rates, ways, decoding" in done.stderr


# Two calls in one process, so that the imports are made once; the first is interrupted in a piece.
TWICE = """
import signal
import sys
import gpu_day
import in_pieces

say = in_pieces._say

def say_and_interrupt(text):
    say(text)
    if text.startswith("[4/11]"):
        signal.setitimer(signal.ITIMER_REAL, 0.1)

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
in_pieces._say = say_and_interrupt
try:
    gpu_day.main(sys.argv[1:])
except KeyboardInterrupt:
    print("interrupted", flush=True)
in_pieces._say = say
sys.exit(gpu_day.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_rehearsal_that_is_interrupted_goes_on(tmp_path):
    """It runs all that a GPU would run. What a SIGKILL leaves is tested in test_in_pieces.py."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{BENCH}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TWICE, "--rehearse", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    first, again = done.stdout.split("interrupted\n")
    assert "table: " not in first and again.startswith("4 of 11 pieces were done before\n[5/11]")
    told = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "A rehearsal on a CPU" in told and "Missing" not in told
    for size in ("7b", "0.5b"):
        for phase in "234":
            assert told.count(f"| {size} phase {phase} | ") == 4
        assert told.count(f"| {size} | ") == 6
    for work in ("ctc head", "lora inputs", "encoder states", "compiled"):
        assert told.count(f"| {work} | ") == 2
