"""Processes with unequal, broken or exhausted data keep in step; two give what one gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def finish(process) -> str:
    output = process.communicate(timeout=55)[0]
    assert process.returncode == 0, output[-3000:]
    return output


def test_uneven_shards_do_not_hang(tiny, tmp_path, launch):
    rows = [json.loads(line) for line in Path(tiny.train).read_text(encoding="utf-8").splitlines()][:5]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(Path(rows[0]["wav"]).read_bytes()[:2000])
    rows[1]["wav"] = str(broken)  # its header is fine: it falls out while training
    listed = tmp_path / "uneven.list"
    listed.write_text("".join(json.dumps(row | {"duration": 0.5}) + "\n" for row in rows), encoding="utf-8")
    data = {"train": [{"name": "uneven", "list": str(listed), "tasks": {"asr": 1.0}}], "dev": {"asr": str(listed)}}
    tree = tiny.tree(data=str(tiny.write("uneven_data.yaml", data)), max_steps=None, max_epochs=3, eval_every=2)
    tree["batch"]["max_utterances"] = 2  # three micro-batches of 2, 2, 1: four places a step
    output = finish(launch(tiny.write("uneven.yaml", tree), tmp_path / "x"))
    assert "audio: cut short" in output, "the broken one must be counted"
    assert "gate end      passed" in output and "max_epochs 3 reached" in output


def test_two_processes_learn_what_one_learns(tiny, tmp_path, launch, weights_of):
    results = []
    for processes, accumulation in ((1, 4), (2, 2)):
        tree = tiny.tree(max_steps=2, eval_every=9, rehearsal=False)
        tree["model"]["adapter_conf"] = {"layers": 1, "heads": 2, "ffn": 32, "dropout": 0.0}
        tree["model"]["lora"]["dropout"] = 0.0
        tree["optim"] = {"lr": 1.0, "eps": 1.0, "warmup_steps": 0, "clip": 1e9, "accumulation": accumulation}
        tree["batch"]["max_utterances"] = 4
        finish(launch(tiny.write(f"p{processes}.yaml", tree), tmp_path / str(processes), processes))
        results.append(weights_of(tmp_path / str(processes) / "final"))
    assert max((results[0][name] - results[1][name]).abs().max() for name in results[0]) < 1e-6
