"""A recipe's run.sh with commands that share one start-up: ``python`` and ``torchrun`` of its PATH are forks of a process that has torch loaded already.

    python smoke.py COMMAND…    runs it, with stand-ins for both first in PATH; its exit status is the command's

A recipe is about twenty commands, and nearly all of their time would go into imports. Each still is a process of its own, with its own arguments, folder
and environment. torchrun is one process here: what several do is test/train's business.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as ask:
    ask.connect({place!r})
    message = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(ask, [len(message).to_bytes(4, "big")], [0, 1, 2])
    ask.sendall(message)
    sys.exit(int(ask.recv(4) or b"1"))
"""


def serve(door: socket.socket) -> None:
    """Answer one stand-in after the other with the exit status of its command."""
    parent = os.getppid()
    import torchaudio  # noqa: F401
    import transformers

    import wenet_osum.decode.pipeline
    import wenet_osum.train.loop  # noqa: F401

    transformers.Qwen2ForCausalLM, transformers.WhisperForConditionalGeneration  # noqa: B018  # transformers loads a model when it is named
    door.settimeout(5)
    while os.getppid() == parent:  # else the test was killed, and nobody will ask any more
        try:
            ask, _ = door.accept()
        except TimeoutError:
            continue
        with ask:
            head, files, _, _ = socket.recv_fds(ask, 4, 3)
            size, message = int.from_bytes(head, "big"), b""
            while len(message) < size:
                message += ask.recv(size - len(message))
            child = os.fork()
            if not child:
                door.close()
                become(files, *json.loads(message))
            for file in files:
                os.close(file)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            ask.sendall(str(status if status >= 0 else 128 - status).encode())


def become(files: list[int], name: str, argv: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the command, in this fork; does not come back."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if name == "torchrun":
        argv = argv[argv.index("-m") :]
    status = 1
    try:
        if argv[0] == "-m":
            sys.argv = argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = argv
            sys.path[0] = str(Path(argv[0]).resolve().parent)
            runpy.run_path(argv[0], run_name="__main__")
        status = 0
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        if isinstance(leave.code, str):
            print(leave.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main(command: list[str]) -> int:
    """Run the command beside its server."""
    folder = tempfile.mkdtemp()  # no TemporaryDirectory: forks that leave in an orderly way would take it with them
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place := f"{folder}/door")
        door.listen()
        for name in ("python", "torchrun"):
            stand_in = Path(folder, name)
            stand_in.write_text(STAND_IN.format(python=sys.executable, place=place, name=name), encoding="utf-8")
            stand_in.chmod(0o755)
        server = os.fork()
        if not server:
            try:
                serve(door)
            finally:
                os._exit(1)
        try:
            return subprocess.run(command, check=False, env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}).returncode
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
