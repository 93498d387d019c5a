"""kill -9 of one process and of all, at any moment: the same command ends with the same bits as an unbroken run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

pytestmark = pytest.mark.slow


def wait_for(process, done, seconds: float = 280) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, f"ended early: {process.communicate()[0][-2000:]}"
        assert time.monotonic() < end, "too slow"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_of(exp_dir: Path) -> list[int]:
    """Processes that train in a folder: torchrun gives its workers sessions of their own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(exp_dir).encode() in command and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def finish(process) -> None:
    output = process.communicate(timeout=800)[0]
    assert process.returncode == 0, output[-3000:]


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker processes through /proc")


@pytest.fixture(scope="module")
def conf(tiny) -> Path:
    data = yaml.safe_load(tiny.data.read_text(encoding="utf-8")) | {"dev": {}}
    return tiny.write("kill.yaml", tiny.tree(data=str(tiny.write("kill_data.yaml", data)), max_steps=30, eval_every=5, log_every=5, keep=20))


@pytest.fixture(scope="module")
def unbroken(conf, tmp_path_factory, launcher) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    finish(launcher(conf, folder))
    return folder / "final"


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@needs_proc
def test_one_process_killed(conf, unbroken, tmp_path, launch, weights_of):
    process = launch(conf, tmp_path)
    wait_for(process, (tmp_path / "step_00000005" / "DONE").exists)
    os.kill(children(process.pid)[-1], signal.SIGKILL)  # torchrun ends the other
    assert process.wait(timeout=800) != 0
    assert not (tmp_path / "final").exists()
    finish(launch(conf, tmp_path))
    assert same(weights_of(tmp_path / "final"), weights_of(unbroken))


@needs_proc
def test_all_killed_while_a_checkpoint_is_written(conf, unbroken, tmp_path, launch, weights_of):
    process = launch(conf, tmp_path)
    wait_for(process, (tmp_path / "step_00000005" / "DONE").exists)
    wait_for(process, lambda: any(tmp_path.glob(".step_*.tmp")))
    os.killpg(process.pid, signal.SIGKILL)  # torchrun
    for worker in workers_of(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "final").exists()
    finish(launch(conf, tmp_path))
    assert same(weights_of(tmp_path / "final"), weights_of(unbroken))


def test_sigterm_exits_85(tiny, tmp_path, launch):
    conf = tiny.write("term.yaml", tiny.tree(max_steps=5000, eval_every=5, keep=2))
    process = launch(conf, tmp_path, 1)
    wait_for(process, (tmp_path / "step_00000005" / "DONE").exists)
    process.terminate()
    output = process.communicate(timeout=800)[0]
    assert process.returncode == 85, output[-2000:]
    assert (tmp_path / "REQUEUE").exists() and "interrupted at step" in output and "Traceback" not in output


@needs_proc
def test_sigterm_to_the_process_group_saves_with_data_workers(tiny, tmp_path, launch):
    conf = tiny.write("group.yaml", tiny.tree(max_steps=5000, eval_every=5, keep=2, workers=2))
    process = launch(conf, tmp_path, 1)
    wait_for(process, (tmp_path / "step_00000005" / "DONE").exists)
    os.killpg(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=800)[0]
    assert process.returncode == 85, output[-2000:]
    assert (tmp_path / "REQUEUE").exists() and "interrupted at step" in output and "Traceback" not in output


@needs_proc
def test_sigterm_to_torchrun_saves_with_data_workers(tiny, tmp_path, launch):
    conf = tiny.write("torchrun.yaml", tiny.tree(max_steps=5000, eval_every=5, keep=2, workers=1))
    process = launch(conf, tmp_path, 2)
    wait_for(process, (tmp_path / "step_00000005" / "DONE").exists)
    process.terminate()
    output = process.communicate(timeout=800)[0]
    assert (tmp_path / "REQUEUE").exists(), output[-2000:]
    assert "interrupted at step" in output and "killed by signal" not in output


@needs_proc
def test_data_workers_end_when_their_process_is_killed(tiny, tmp_path, launch):
    conf = tiny.write("orphans.yaml", tiny.tree(max_steps=5000, eval_every=5, keep=2, workers=2))
    process = launch(conf, tmp_path, 1)
    wait_for(process, (tmp_path / "step_00000005" / "DONE").exists)
    assert len(workers_of(tmp_path)) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    end = time.monotonic() + 60
    while workers_of(tmp_path):
        assert time.monotonic() < end, "orphaned data processes"
        time.sleep(0.1)
