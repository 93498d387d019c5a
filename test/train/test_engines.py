"""DDP, FSDP2, gradient checkpointing and bfloat16 do the same work: weights after a step stand for the gradients."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wenet_osum.train.loop import train

ROOT = Path(__file__).resolve().parents[2]
FORKED = Path(__file__).with_name("forked.py")


def proportional(tiny, **changes) -> dict:
    """AdamW with eps 1 moves a weight in proportion to its gradient; nothing random, nothing clipped."""
    tree = tiny.tree(max_steps=2, eval_every=2, **changes)
    tree["model"]["adapter_conf"] = {"layers": 1, "heads": 2, "ffn": 32, "dropout": 0.0}
    tree["model"]["lora"]["dropout"] = 0.0
    tree["train_parts"]["adapter.*"] = {}
    tree["optim"] = {"lr": 1.0, "eps": 1.0, "warmup_steps": 0, "clip": 1e9, "accumulation": 2}
    tree["batch"]["max_utterances"] = 4
    data = yaml.safe_load(tiny.data.read_text(encoding="utf-8")) | {"dev": {}}
    tree["data"] = str(tiny.write("engines_data.yaml", data))
    return tree


def furthest(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_no_device_is_named_where_it_need_not_be():
    """Other accelerators work through torch.accelerator; the kernel for packed attention exists on CUDA alone."""
    named = re.compile(r"torch\.cuda|is_cuda|[\"']cuda")
    rooms = [path for room in ("dataset", "models", "train") for path in (ROOT / "wenet_osum" / room).rglob("*.py")]
    assert {path.name for path in rooms if named.search(path.read_text(encoding="utf-8"))} == {"causal.py"}


def test_checkpointing_gives_the_same_gradients(tiny, tmp_path, weights_of):
    from wenet_osum import config

    results = []
    for checkpointing in (False, True):
        conf = config.from_dict(proportional(tiny, checkpointing=checkpointing))
        assert train(conf, tmp_path / str(checkpointing)) == 0
        results.append(weights_of(tmp_path / str(checkpointing) / "final"))
    start = weights_of(tiny.folder / "whisper")["model.safetensors:model.encoder.conv1.weight"]
    assert float((results[0]["model.safetensors:encoder.conv1.weight"] - start).abs().max()) > 1e-4, "nothing was learned"
    assert furthest(*results) < 1e-6


def test_bfloat16_learns_and_leaves_frozen_parts_alone(tiny, tmp_path):
    tree = tiny.tree(dtype="bfloat16", max_steps=4, eval_every=4)
    from wenet_osum import config

    assert train(config.from_dict(tree), tmp_path) == 0
    text = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert "engine ddp, bfloat16" in text and "sanity frozen   passed" in text and "sanity trained  passed" in text
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["loss"] == row["loss"] and row["loss"] < 20 for row in rows if row["task"])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")
def test_fsdp_of_two_processes_equals_ddp_and_goes_on(tiny, tmp_path, weights_of):
    """The second run dies after its checkpoint and is started again: sharded state comes back."""
    results = []
    for engine, lives in (("ddp", "-"), ("fsdp", "step:3:1,-")):
        conf = tiny.write(f"{engine}.yaml", proportional(tiny, engine=engine) | {"max_steps": 3})
        command = [sys.executable, str(FORKED), "2", lives, "--config", str(conf), "--exp_dir", str(tmp_path / engine)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=800)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        results.append(weights_of(tmp_path / engine / "final"))
    assert "resumed from step_00000002" in done.stdout and "engine fsdp" in done.stdout
    assert furthest(*results) < 1e-5
