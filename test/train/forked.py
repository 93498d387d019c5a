"""Training with several processes that share one start-up: a test's torchrun, which can also let
one of them die.

    python forked.py PROCESSES DEATHS ARGUMENTS…    DEATHS is "-", or MOMENT:STEP:RANK: kill -9 of that process before that step ("step"), or while
                                                    its checkpoint is written ("dcp": in the middle
                                                    of the trainer's state, "publish": before the
                                                    rename)

Several starts of the same command are joined by commas: "step:2:0,-" dies once and is started
again. When one process dies or fails, the others are killed as well. Each start prints its largest
exit status, 137 after a death; that of the last is the script's own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

from wenet_osum.bin.train import main
from wenet_osum.train import checkpoint, loop


def arm(moment: str, step: int) -> None:
    """Let this process die at the moment."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "step":
        original = loop.take_step

        def take_step(run, batches):
            if run.state.step + 1 == step:
                die()
            original(run, batches)

        loop.take_step = take_step
        return
    place, name = (checkpoint, "publish") if moment == "publish" else (checkpoint.dcp, "save")
    before = getattr(place, name)

    def save(*args, **kwargs):
        where = str(args[0] if moment == "publish" else kwargs["checkpoint_id"])
        if f"{step:08d}" in where and "final" not in where:
            if moment == "dcp":  # something is there, not all
                Path(where).mkdir(exist_ok=True)
                (Path(where) / "half").write_bytes(b"\0" * 100)
            die()
        return before(*args, **kwargs)

    setattr(place, name, save)


def run(processes: int, death: str, arguments: list[str]) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "WORLD_SIZE": str(processes),
        }
    children = {}
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            moment, *where = death.split(":")
            if where and int(where[1]) == rank:
                arm(moment, int(where[0]))
            status = main(arguments)
            sys.stdout.flush()
            os._exit(status)
        children[pid] = rank
    print("processes", *children, flush=True)
    worst = 0
    while children:
        pid, status = os.wait()
        children.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        worst = max(worst, 128 - code if code < 0 else code)
        if code not in (0, 85):
            for other in children:
                os.kill(other, signal.SIGKILL)
    return worst


if __name__ == "__main__":
    for life in sys.argv[2].split(","):
        status = run(int(sys.argv[1]), life, sys.argv[3:])
        # a process that was killed can leave half a line behind
        print("\nended with", status, flush=True)
    sys.exit(status)
