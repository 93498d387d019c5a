"""tools/bench/in_pieces.py: a piece that is done is not run again, whatever ended the call before."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORK = """
import os, time
from pathlib import Path

def note(options):
    with open(options["seen"], "a") as file:
        file.write(options["word"])
    print("a word in the log")
    return {"rows": [options["word"]]}

def fail(options):
    note(options)
    raise ValueError("no luck")

def die(options):
    os._exit(3)

def hang(options):
    Path(options["pid"]).write_text(str(os.getpid()))
    time.sleep(600)
"""
CALL = """
import sys
from pathlib import Path
import in_pieces
folder = Path(sys.argv[1])
options = {"seen": str(folder / "seen"), "word": "a", "pid": str(folder / "pid")}
first = in_pieces.Piece("first", "made_work.note", options)
second = in_pieces.Piece("second", "made_work.hang", options)
sys.exit(in_pieces.run_pieces([first, second], folder, 600))
"""


@pytest.fixture
def pieces(tmp_path, monkeypatch):
    """The module, beside one with work to do."""
    (tmp_path / "made_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(ROOT / "tools/bench"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module("in_pieces")


@pytest.fixture
def make(pieces, tmp_path):
    """Makes a piece that does what is named."""

    def piece(name: str, work: str = "note", limit_s: float = 60.0):
        options = {"seen": str(tmp_path / "seen"), "word": name, "pid": str(tmp_path / "pid")}
        return pieces.Piece(name, f"made_work.{work}", options, limit_s)

    return piece


def test_what_is_done_is_not_run_again_and_a_fault_is_tried_last(pieces, make, tmp_path, capsys):
    before = [make("a"), make("b", "fail")]
    assert pieces.run_pieces(before, tmp_path, 600) == pieces.FAILED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/2] a: done in") and lines[0].endswith("next: b (at most 60 s)")
    assert "[2/2] b: failed after" in lines[1] and "ValueError: no luck" in lines[1]
    assert "a word in the log" in (tmp_path / "b.log").read_text()

    assert pieces.run_pieces([*before, make("c")], tmp_path, 600) == pieces.FAILED
    assert (tmp_path / "seen").read_text() == "abcb"
    assert json.loads((tmp_path / "c.json").read_text())["rows"] == ["c"]
    assert pieces.run_pieces([make("a"), make("c")], tmp_path, 600) == pieces.DONE


def test_a_piece_begins_only_where_its_limit_fits_into_the_call(pieces, make, tmp_path, capsys):
    asked = [make("a", limit_s=100), make("b", limit_s=100)]
    assert pieces.run_pieces(asked, tmp_path, 60) == pieces.AGAIN
    assert "left: b; call again" in capsys.readouterr().out
    assert pieces.run_pieces(asked, tmp_path, 60) == pieces.DONE
    assert (tmp_path / "seen").read_text() == "ab"


@pytest.mark.parametrize(
    ("work", "why"), [("die", "exit status 3"), ("hang", "longer than 1 s and was ended")]
)
def test_a_process_that_dies_or_hangs_is_a_fault(pieces, make, tmp_path, work, why):
    assert why in pieces.in_own_process(make("a", work), tmp_path, 1.0)["error"]


def test_a_call_that_is_killed_leaves_nothing_running_and_what_it_had_done(pieces, make, tmp_path):
    paths = f"{ROOT}:{ROOT / 'tools/bench'}:{tmp_path}"
    environment = os.environ | {"PYTHONPATH": paths}
    call = subprocess.Popen([sys.executable, "-c", CALL, str(tmp_path)], env=environment)
    pid = int(when_there(tmp_path / "pid"))
    call.send_signal(signal.SIGKILL)
    call.wait()
    while is_alive(pid):
        time.sleep(0.01)
    asked = [make("first"), make("second")]
    assert pieces.run_pieces(asked, tmp_path, 600) == pieces.DONE
    assert (tmp_path / "seen").read_text() == "asecond"


def when_there(path: Path) -> str:
    """Wait for a file with something in it; pytest's timeout bounds the waiting."""
    while not path.exists() or not path.read_text():
        time.sleep(0.01)
    return path.read_text()


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that is dead and not waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
