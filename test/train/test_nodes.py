"""Two machines of two processes each: a link that drops, a machine that dies without a word, and
another number of machines afterwards.

The machines are network namespaces where making these is permitted, else two loopback addresses
with a proxy between them (machines.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from .machines import NODE, Loopbacks, Namespaces, environment, permitted

STEPS = 12
WAIT_S = 8  # step_timeout_s of the runs


# Machines that can be made here, the better ones first.
KINDS = [Namespaces, Loopbacks] if permitted() else [Loopbacks]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def conf(tiny):
    """Twelve steps of four processes, a checkpoint every three."""
    tree = tiny.tree(
        max_steps=STEPS, eval_every=3, log_every=1, log_keys=True, rehearsal=False, keep=9
    )
    tree["batch"]["max_utterances"] = 2
    tree["step_timeout_s"] = WAIT_S
    # Dropout is drawn by each process, so another number of them would draw other numbers.
    tree["model"]["lora"]["dropout"] = 0.0
    tree["model"]["adapter_conf"]["dropout"] = 0.0
    tree["optim"]["accumulation"] = 1
    data = yaml.safe_load(tiny.data.read_text(encoding="utf-8")) | {"dev": {}}
    tree["data"] = str(tiny.write("nodes_data.yaml", data))
    return tiny.write("two_machines.yaml", tree)


def arguments(conf: Path, exp_dir: Path, *overrides: str) -> list[str]:
    settings = [word for setting in overrides for word in ("--override", setting)]
    return ["--config", str(conf), "--exp_dir", str(exp_dir), *settings]


def alone(conf: Path, exp_dir: Path, ranks: int, *overrides: str) -> str:
    """Run to the end on one machine with as many processes."""
    command = [sys.executable, str(NODE), "0", str(ranks), str(ranks), "127.0.0.1", "29617"]
    done = subprocess.run(
        command + arguments(conf, exp_dir, *overrides),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def unbroken(conf, tmp_path_factory):
    """The losses of four processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    alone(conf, folder, 4)
    return losses(folder)


def losses(exp_dir: Path) -> list[tuple]:
    """Return step, task and loss of each row of the log; of steps done twice the later."""
    rows = map(json.loads, (exp_dir / "log.jsonl").read_text(encoding="utf-8").splitlines())
    found = {(row["step"], row["task"]): row["loss"] for row in rows if row["task"]}
    return sorted((*place, loss) for place, loss in found.items())


def wait_for(exp_dir: Path, step: int, nodes: list[subprocess.Popen]) -> None:
    """Wait until a step is logged; what the machines said is shown when it never is."""
    log = exp_dir / "log.jsonl"
    for _ in range(4000):
        if log.exists() and f'"step": {step},' in log.read_text(encoding="utf-8"):
            return
        if any(node.poll() is not None for node in nodes):
            break
        time.sleep(0.05)
    for node in nodes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
    raise AssertionError(f"step {step} was never logged: {outputs(nodes)}")


def outputs(nodes: list[subprocess.Popen]) -> list[str]:
    return [node.communicate(timeout=800)[0] for node in nodes]


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_that_drops_costs_time_and_nothing_else(kind, conf, unbroken, tmp_path):
    with kind() as machines:
        # Nobody is to give up here, however busy this machine is.
        nodes = machines.both(29611, arguments(conf, tmp_path, "step_timeout_s=60"))
        wait_for(tmp_path, 2, nodes)
        machines.link("down")
        time.sleep(2)
        at = len(losses(tmp_path))
        time.sleep(1)
        assert len(losses(tmp_path)) == at < len(unbroken), "training went on without the link"
        machines.link("up")
        said = outputs(nodes)
    assert [node.returncode for node in nodes] == [0, 0], "".join(said)[-3000:]
    assert losses(tmp_path) == unbroken


@pytest.mark.parametrize("kind", KINDS[:1])
def test_a_machine_that_dies_is_noticed_and_the_run_goes_on(kind, conf, unbroken, tmp_path):
    """It dies without closing a connection, as when its power fails."""
    with kind() as machines:
        nodes = machines.both(29612, arguments(conf, tmp_path / "x"))
        wait_for(tmp_path / "x", 5, nodes)
        machines.link("down")
        os.killpg(nodes[1].pid, signal.SIGKILL)
        began = time.monotonic()
        said = nodes[0].communicate(timeout=800)[0]
        assert time.monotonic() - began < 60, "nobody noticed"
        assert nodes[0].returncode == 1, said[-3000:]
        assert "another process of this run cannot be reached" in said
        assert "Traceback" not in said
        nodes[1].communicate(timeout=60)

        # One machine goes on alone from what was saved. With twice the micro-batches per process
        # its steps hold the same utterances; sums are only made in another order.
        fewer = tmp_path / "fewer"
        subprocess.run(["cp", "-r", str(tmp_path / "x"), str(fewer)], check=True)
        assert "resumed from" in alone(conf, fewer, 2, "optim.accumulation=2")
        found = losses(fewer)
        assert [row[:2] for row in found] == [row[:2] for row in unbroken]
        assert [row[2] for row in found] == pytest.approx([row[2] for row in unbroken], rel=1e-4)

        # Both come back: the curve is that of a run that never stopped.
        machines.link("up")
        back = machines.both(29613, arguments(conf, tmp_path / "x"))
        said = outputs(back)
    assert [node.returncode for node in back] == [0, 0], "".join(said)[-3000:]
    assert losses(tmp_path / "x") == unbroken
