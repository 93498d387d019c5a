"""Some of the processes of a training run, as a launcher starts them on one machine.

    python node.py FIRST COUNT WORLD MASTER PORT ARGUMENTS…    ranks FIRST to FIRST + COUNT - 1

With NODE_ADDRESS in the environment they listen at that address alone. They share one start-up. When one fails, the others of this machine are killed, as torchrun does.
The exit status is the largest.
"""

from __future__ import annotations

import os
import signal
import sys

from torch.distributed import ProcessGroupGloo, distributed_c10d

from wenet_osum.bin.train import main
from wenet_osum.train import loop

assert loop.train, "loaded here once for all processes, before they part"


class GlooHere(ProcessGroupGloo):
    """The group of gloo, whose processes listen at NODE_ADDRESS."""

    def __init__(self, store, rank, size, timeout):
        options = ProcessGroupGloo._Options()
        options._timeout = timeout
        options._devices = [ProcessGroupGloo.create_device(hostname=os.environ["NODE_ADDRESS"])]
        super().__init__(store, rank, size, options)


def run(first: int, count: int, world: str, master: str, port: str, arguments: list[str]) -> int:
    os.environ |= {"MASTER_ADDR": master, "MASTER_PORT": port, "WORLD_SIZE": world}
    children = set()
    for local in range(count):
        pid = os.fork()
        if pid == 0:
            os.environ |= {"RANK": str(first + local), "LOCAL_RANK": str(local)}
            status = main(arguments)
            sys.stdout.flush()
            os._exit(status)
        children.add(pid)
    worst = 0
    while children:
        pid, status = os.wait()
        children.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        worst = max(worst, 128 - code if code < 0 else code)
        if code:
            for other in children:
                os.kill(other, signal.SIGKILL)
    return worst


if __name__ == "__main__":
    if "NODE_ADDRESS" in os.environ:
        distributed_c10d.ProcessGroupGloo = GlooHere
    first, count, world, master, port, *rest = sys.argv[1:]
    sys.exit(run(int(first), int(count), world, master, port, rest))
