"""kill -9 with 2 and 4 processes, in every phase, at many moments: keys, losses and weights come out as in an unbroken run, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
FORKED = Path(__file__).with_name("forked.py")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")]


def start(conf: Path, exp_dir: Path, processes: int, death: str = "-", *overrides: str) -> subprocess.Popen:
    options = [word for setting in overrides for word in ("--override", setting)]
    command = [sys.executable, str(FORKED), str(processes), death, "--config", str(conf), "--exp_dir", str(exp_dir), *options]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*arguments, status: int = 0) -> str:
    process = start(*arguments)
    output = process.communicate(timeout=800)[0]
    assert process.returncode == status, output[-3000:]
    return output


def losses(exp_dir: Path) -> list[tuple]:
    rows = map(json.loads, (exp_dir / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [(r["step"], r["task"], r["loss"], r["acc"]) for r in rows if r["task"]]


def keys(exp_dir: Path) -> list[list[dict]]:
    """What every process trained on, step by step."""
    files = sorted((exp_dir / "keys").glob("rank_*.jsonl"))
    return [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]


def tree(tiny, phase: str) -> dict:
    """Phase 1 with its CTC head, 2 (adapter alone), 3 (adapter, encoder), 4 (with LoRA and its dropout), or 4 with the whole LLM."""
    data = yaml.safe_load(tiny.data.read_text(encoding="utf-8")) | {"dev": {}}
    changes = {"data": str(tiny.write("kill_many_data.yaml", data)), "max_steps": 9, "eval_every": 3, "log_every": 1, "log_keys": True, "keep": 2}
    whole = tiny.whisper_tree(**changes) if phase == "whisper" else tiny.tree(**changes)
    if phase == "adapter":
        del whole["model"]["lora"]
        whole["train_parts"] = {"adapter.*": {}}
    if phase in ("encoder", "full"):
        del whole["model"]["lora"], whole["train_parts"]["*lora*"]
    if phase == "full":
        whole["train_parts"]["llm.*"] = {"lr": 1e-4}
    whole["batch"]["max_utterances"] = 2
    return whole


CASES = {
    "phase 1, 2 processes": ("whisper", 2, ["dcp:6:0", "step:9:1"]),
    "phase 2, 2 processes": ("adapter", 2, ["step:1:0", "step:5:1"]),
    "phase 3, 2 processes": ("encoder", 2, ["publish:3:0", "dcp:6:1"]),
    "phase 4, 4 processes": ("lora", 4, ["step:2:3", "dcp:3:1", "publish:6:0", "step:8:2"]),
    "whole LLM, 4 processes": ("full", 4, ["step:5:2", "dcp:6:3"]),
}


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    """(phase, processes) → configuration and folder of a run that nobody disturbed."""
    known: dict[tuple, tuple[Path, Path]] = {}

    def get(phase: str, processes: int) -> tuple[Path, Path]:
        if (phase, processes) not in known:
            conf = tiny.write(f"kill_{phase}.yaml", tree(tiny, phase))
            folder = tmp_path_factory.mktemp(f"unbroken_{phase}_{processes}")
            run(conf, folder, processes)
            known[phase, processes] = conf, folder
        return known[phase, processes]

    return get


@pytest.mark.parametrize("case", CASES)
def test_deaths_leave_no_trace(case, unbroken, tmp_path, weights_of):
    phase, processes, deaths = CASES[case]
    conf, whole = unbroken(phase, processes)
    output = run(conf, tmp_path, processes, ",".join([*deaths, "-"]))
    assert [line.split()[-1] for line in output.splitlines() if line.startswith("ended with")] == [*["137"] * len(deaths), "0"]
    assert keys(tmp_path) == keys(whole) and len(keys(whole)) == processes and len(keys(whole)[0]) == 9
    assert losses(tmp_path) == losses(whole) and losses(whole)
    ours, theirs = weights_of(tmp_path / "final"), weights_of(whole / "final")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("first", "second", "workers"), [(2, 3, 1), (4, 1, 0)])
def test_another_number_of_processes_and_workers_loses_nothing(tiny, tmp_path, first, second, workers):
    """Two epochs over 24 utterances; the second start comes in the middle of the first."""
    conf = tiny.write("worlds.yaml", tree(tiny, "adapter") | {"max_steps": None, "max_epochs": 2})
    output = run(conf, tmp_path, first, "step:3:0", "eval_every=2", status=137)
    assert "saved" in output and "step_00000002" in output
    output = run(conf, tmp_path, second, "-", f"workers={workers}")
    assert f"it was written by {first} processes: no sample is lost or repeated" in output
    steps = [row for rank in keys(tmp_path) for row in rank]
    seen = Counter((row["epoch"], key) for row in steps for key, _ in row["keys"] if row["step"] <= 2 or row in _of(tmp_path, second))
    assert set(seen.values()) == {1} and len(seen) == 2 * 24


def _of(exp_dir: Path, processes: int) -> list[dict]:
    """Rows of the processes that the second start had; the step the first was killed in is no part of the training."""
    return [row for rank in keys(exp_dir)[:processes] for row in rank]


def test_a_signal_to_one_process_lets_all_save(tiny, tmp_path):
    conf = tiny.write("term_many.yaml", tree(tiny, "adapter") | {"max_steps": 5000})
    process = start(conf, tmp_path, 2)
    pids = process.stdout.readline().split()[1:]
    end = time.monotonic() + 280
    while not (tmp_path / "step_00000003" / "DONE").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    os.kill(int(pids[1]), signal.SIGTERM)
    output = process.communicate(timeout=800)[0]
    assert process.returncode == 85, output[-2000:]
    assert (tmp_path / "REQUEUE").exists() and output.count("interrupted at step") == 1
