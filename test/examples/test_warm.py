"""The server that spares recipes' commands their start-up does with a command what python does."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.fixture
def ask(warm_bin, tmp_path):
    def run(line: str, said: str = "") -> tuple[int, str, str]:
        env = os.environ | {"PATH": f"{warm_bin}:{os.environ['PATH']}", "MARK": "seen"}
        done = subprocess.run(["bash", "-c", line], input=said, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("import os, sys; print(sys.argv[1:], os.environ['MARK'], sys.stdin.read())", (0, "['a b', '--c'] seen said\n", "")),
        ("import os, sys; print(os.getcwd() == sys.path[0])", (0, "True\n", "")),
        ("import sys; sys.exit('error: no')", (1, "", "error: no\n")),
        ("raise SystemExit(3)", (3, "", "")),
        ("import os; print('left', flush=True); os._exit(85)", (85, "left\n", "")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", (137, "", "")),
    ],
)
def test_arguments_streams_and_exit_statuses_are_those_of_python(ask, tmp_path, body, expected):
    (tmp_path / "script.py").write_text(body)
    assert ask("python script.py 'a b' --c", "said") == expected


@pytest.mark.slow
def test_modules_run_as_main_and_commands_at_the_same_time(ask, tmp_path):
    wait = "import pathlib, sys, time\npathlib.Path(sys.argv[1]).touch()\nwhile not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)\n"
    (tmp_path / "wait.py").write_text(wait)
    assert ask("python wait.py a b & python wait.py b a; wait $!")[0] == 0
    status, shown, _ = ask("torchrun --standalone --nproc_per_node 1 -m wenet_osum.bin.train --help")
    assert status == 0 and shown.startswith("usage: wenet_osum train")
    status, _, fault = ask("python fault.py")
    assert status == 1 and "FileNotFoundError" in fault
