"""Processes with unequal, broken or exhausted data keep in step; two give what one gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from wenet_osum.dataset.shard import pack, write_list
from wenet_osum.records import Utterance

ROOT = Path(__file__).resolve().parents[2]
FORKED = Path(__file__).with_name("forked.py")
pytestmark = pytest.mark.slow


def finish(process) -> str:
    output = process.communicate(timeout=800)[0]
    assert process.returncode == 0, output[-3000:]
    return output


def uneven_list(tiny, folder: Path) -> Path:
    """Shards of 1, 1 and 5 utterances; a recording of the last is cut short, which shows only while training."""
    rows = [Utterance.from_dict(json.loads(line)) for line in Path(tiny.train).read_text(encoding="utf-8").splitlines()][:7]
    shards = []
    for name, part in (("a", rows[:1]), ("b", rows[1:2]), ("c", rows[2:])):
        shards += pack(part, folder / name, 10, log=lambda line: None).paths
    whole, stamp = bytearray(Path(shards[-1]).read_bytes()), Path(shards[-1]).stat().st_mtime_ns
    at = whole.rindex(b"WAVEfmt ") + 32  # the size of its samples in the header
    whole[at : at + 4] = (10**8).to_bytes(4, "little")
    Path(shards[-1]).write_bytes(whole)
    os.utime(shards[-1], ns=(stamp, stamp))  # the index still fits
    write_list(folder / "uneven.list", shards)
    return folder / "uneven.list"


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_uneven_shards_do_not_hang(tiny, tmp_path, processes):
    listed = uneven_list(tiny, tmp_path)
    data = {"train": [{"name": "uneven", "list": str(listed), "tasks": {"asr": 1.0}}], "dev": {"asr": str(listed)}}
    tree = tiny.tree(data=str(tiny.write("uneven_data.yaml", data)), max_steps=None, max_epochs=3, eval_every=2)
    tree["batch"]["max_utterances"] = 2  # four micro-batches of 7 utterances: 4, 6 or 8 places a step
    command = [sys.executable, str(FORKED), str(processes), "-", "--config", str(tiny.write(f"uneven{processes}.yaml", tree)), "--exp_dir", str(tmp_path / "x")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert f"{processes} × cpu" in done.stdout and "audio: cut short" in done.stdout, "the broken one must be counted"
    assert "sanity end      passed" in done.stdout and "max_epochs 3 reached" in done.stdout


def test_two_nodes_of_torchrun(tiny, tmp_path):
    """Two launchers that know each other by an address, as on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = tiny.write("nodes.yaml", tiny.tree(max_steps=2, eval_every=2))
    meet = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "test"]
    command = [sys.executable, "-m", "torch.distributed.run", *meet, "-m", "wenet_osum.bin.train", "--config", str(conf), "--exp_dir", str(tmp_path)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    nodes = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    outputs = [node.communicate(timeout=800)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "".join(outputs)[-3000:]
    assert "2 × cpu" in "".join(outputs) and (tmp_path / "final" / "DONE").exists()


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
