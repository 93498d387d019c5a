"""A recipe's commands without their start-up: a server that has the toolkit loaded runs each in a
fork of its own.

    python warm.py SOCKET    says "ready" and serves until it is terminated

A recipe has some thirty commands that load torch and transformers for seconds to work for tenths of
a second. ``bin_folder`` makes a folder for the front of PATH whose ``python`` and ``torchrun`` hand
their arguments, folder, environment and streams to the server. Every command runs in a process of
its own, with its own exit status, as it would without; what is not seen this way is torchrun
itself, which other tests run.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
request = json.dumps({{"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)
sys.exit(int(server.recv(4) or b"1"))
"""


def bin_folder(folder: Path, address: str) -> None:
    """``python`` and ``torchrun`` that ask the server at ``address``."""
    folder.mkdir()
    (folder / "client.py").write_text(CLIENT.format(socket=address), encoding="utf-8")
    for name in ("python", "torchrun"):
        (folder / name).write_text(
            f'#!/usr/bin/env bash\nexec "{sys.executable}" -S -E "{folder}/client.py" {name} '
            '"$@"\n',
            encoding="utf-8",
        )
        (folder / name).chmod(0o755)


def words_of(argv: list[str]) -> list[str]:
    """The words after python; of torchrun's those after its own options, for one process needs no
    launcher.
    """
    program, *words = argv
    if program == "torchrun":
        assert words[:3] == ["--standalone", "--nproc_per_node", "1"], (
            f"one process alone can do without torchrun, got {words[:3]}"
        )
        words = words[3:]
    return words


def run(words: list[str]) -> int:
    """What ``python WORDS…`` does, and its exit status."""
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            sys.modules.pop(words[1], None)  # else runpy warns that it is loaded already
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve_one(connection: socket.socket) -> None:
    """Take what the client sends, run it with the client's streams, folder and environment, and
    answer with the exit status.
    """
    head, streams, *_ = socket.recv_fds(connection, 8, 3)
    size, data = int.from_bytes(head, "big"), b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        become(request, streams)
    for stream in streams:
        os.close(stream)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(str(code if code >= 0 else 128 - code).encode())


def become(request: dict, streams: list[int]) -> NoReturn:
    """The command itself. It may leave by os._exit or die: who waits for it tells the client."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ |= request["env"]
    status = run(words_of(request["argv"]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve(address: str) -> None:
    """Load, then run what is asked, each in a fork."""
    import torch
    from transformers import Qwen2ForCausalLM, WhisperForConditionalGeneration  # noqa: F401  # loaded once, for all forks

    import wenet_osum.bin.recognize
    import wenet_osum.bin.score
    import wenet_osum.bin.train  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            serve_one(connection)
            os._exit(0)
        connection.close()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    serve(sys.argv[1])
