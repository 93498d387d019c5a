"""FSDP with accumulation: a process holds its share of the gradients between micro-batches, and
their sum is that of one process, which read the weights whole.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from wenet_osum import config, dist
from wenet_osum.models import build, trainable
from wenet_osum.records import Batch
from wenet_osum.train.estimate import Mean, batch_of

ROOT = Path(__file__).resolve().parents[2]
# Micro-batches of a step, of all processes.
MICRO_BATCHES = 4


def made(conf, weights_later: bool = False):
    """A model of which all trains, no dropout."""
    torch.manual_seed(3)
    model = build.build(conf.model, weights_later=weights_later)[0]
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    return model


def micro_batch(model, number: int) -> Batch:
    """Two utterances, others for each number."""
    torch.manual_seed(number)
    batch = batch_of(model, Mean(0.5 + 0.1 * number, 2, 3 + number), 2, "cpu")
    batch.answer_ids = torch.randint(3, 200, batch.answer_ids.shape)
    return batch


def gradients(model) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad
            found[name] = grad.full_tensor() if hasattr(grad, "full_tensor") else grad.clone()
    return found


def held(model) -> int:
    """Count the gradients that this process holds, in bytes: its share, and whole ones that wait to
    be exchanged.
    """
    size = 0
    for parameter in model.parameters():
        if parameter.grad is not None:
            size += parameter.grad.to_local().nbytes
    for module in model.modules():
        if isinstance(module, FSDPModule):
            for inner in module._get_fsdp_state()._fsdp_param_group.fsdp_params:
                waiting = inner.unsharded_accumulated_grad
                waiting = inner.unsharded_param.grad if waiting is None else waiting
                size += 0 if waiting is None else waiting.nbytes
    return size


def sharded_step(conf) -> dict:
    """Run this process's two micro-batches, and say what it held after the first."""
    world = dist.start(1)
    engine = dist.Engine(made(conf, weights_later=True), conf, world)
    model = engine.module
    losses = []
    for number in range(world.rank, MICRO_BATCHES, world.size):
        last = number + world.size >= MICRO_BATCHES
        with engine.accumulating(last=last):
            loss = engine.loss(micro_batch(model, number)).loss
            (loss * world.size).backward()
        losses.append(loss.item())
        if not last:
            first = held(model)
    trained = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    found = {"held": first, "trained": trained, "losses": losses, "gradients": gradients(model)}
    dist.stop()
    return found


def in_two_processes(conf, folder: Path) -> None:
    """Take the step in two forked processes; each writes what it found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    children = []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            os.environ |= address | {"RANK": str(rank), "WORLD_SIZE": "2"}
            torch.save(sharded_step(conf), folder / f"{rank}.pt")
            os._exit(0)
        children.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    sys.exit(max(statuses) > 0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")
def test_a_rank_holds_its_share_and_the_sum_is_that_of_one_process(tiny, tmp_path):
    tree = tiny.tree(engine="fsdp")
    tree["model"]["lora"] = None
    tree["model"]["adapter_conf"]["dropout"] = 0.0
    tree["train_parts"] = {"*": {}}
    conf = config.from_dict(tree)
    # Another process: none can be forked off from one in which a backward pass has run.
    command = [sys.executable, __file__, str(tiny.write("sharded.yaml", tree)), str(tmp_path)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]

    plain = made(conf)
    losses = []
    for number in range(MICRO_BATCHES):
        loss = plain(micro_batch(plain, number)).loss
        loss.backward()
        losses.append(loss.item())
    wanted = gradients(plain)

    # Rows of odd counts are padded, so one process holds a little more than the half.
    total = sum(rank["held"] for rank in ranks)
    assert total == 4 * sum(p.numel() for p in wanted.values())
    assert max(rank["held"] for rank in ranks) < 0.55 * total
    assert [*ranks[0]["losses"], *ranks[1]["losses"]] == pytest.approx(
        [losses[0], losses[2], losses[1], losses[3]], rel=1e-5
    )
    for rank in ranks:
        assert rank["gradients"].keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(rank["gradients"][name], gradient, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    in_two_processes(config.load(sys.argv[1], config.TrainConfig), Path(sys.argv[2]))
