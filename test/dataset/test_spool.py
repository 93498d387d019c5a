"""Programs that print whole shards: run again where they fail, and once for all processes of a node."""

from __future__ import annotations

import os
import sys
import time

import pytest

from wenet_osum.config import (
    ConfigError,
    StoreConfig,
    from_dict,
)
from wenet_osum.dataset import spool
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.shard import Handles

from .store_servers import DATA, QUICK, own_spool, proxy, servers

__all__ = ["own_spool", "proxy", "servers"]


def program(folder, code):
    """A line of a list, whose program counts its runs in ``runs`` and then does as ``code`` says."""
    (folder / "data").write_bytes(DATA)
    (folder / "runs").write_text("")
    start = f"echo x >> {folder}/runs; n=$(wc -l < {folder}/runs); "
    (folder / "p.sh").write_text(start + code.replace("DATA", str(folder / "data")))
    return f"pipe:sh {folder}/p.sh"


def runs(folder):
    return len((folder / "runs").read_text().split())


def test_a_program_that_fails_is_run_again(tmp_path, own_spool):
    line = program(tmp_path, "head -c 9 DATA; [ $n -lt 3 ] && exit 7; tail -c +10 DATA")
    assert Handles(conf=QUICK).read(line, 0, 5000) == DATA and runs(tmp_path) == 3
    # what the first run printed is no part of the second
    line = program(tmp_path, "[ $n -lt 2 ] && cat DATA && exit 7; tail -c +$(($1 + 1)) DATA | head -c $(($2 - $1 + 1))") + " {first} {last}"
    assert Handles(conf=QUICK).read(line, 30, 50) == DATA[30:80] and runs(tmp_path) == 2
    line = program(tmp_path, "echo gone >&2; exit 4") + " another"
    with pytest.raises(Drop, match="^store pipe:sh: exit status 4, gone"):
        Handles(conf=QUICK).read(line, 30, 50)
    assert runs(tmp_path) == 3


def test_a_program_that_hangs_is_ended(tmp_path, monkeypatch):
    line = program(tmp_path, "[ $n -lt 2 ] && exec sleep 60; cat DATA") + " {first} {last}"
    conf = StoreConfig(wait_s=0.004, timeout_s=2)
    assert Handles(conf=conf).read(line, 0, 5000) == DATA and runs(tmp_path) >= 2


def test_processes_of_a_node_share_what_a_program_prints(tmp_path, own_spool):
    line = program(tmp_path, "sleep 0.1; cat DATA")
    Handles().hold([line])
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            same = Handles(conf=QUICK).read(line, 7, 100) == DATA[7:107]
            os._exit(0 if same else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert runs(tmp_path) == 1


SCRIPT = """
import os, sys
from wenet_osum.dataset import spool
os.close(spool.spooled("a shard", lambda out: out.write(b"x" * 9), 100))
print("ready", flush=True)
if sys.stdin.readline().strip() == "die":
    os.kill(os.getpid(), 9)
"""


def holder(folder):
    import subprocess

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], env={**os.environ, "TMPDIR": str(folder)}, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def test_nothing_is_left_in_the_temporary_folder(tmp_path, own_spool):
    """The last process removes the folder; after one that was killed, the next to begin does."""
    first, second = holder(own_spool), holder(own_spool)
    first.communicate("end\n")
    assert list(own_spool.glob("*/*.shard")), "the second is at work"
    second.communicate("die\n")
    left = list(own_spool.glob("*/*.shard"))
    assert len(left) == 1
    spool.hold()
    assert not list(own_spool.glob("*/*.shard"))
    os.close(spool.spooled("a", lambda out: out.write(b"x"), 100))
    third = holder(own_spool)
    third.communicate("end\n")
    assert len(list(own_spool.glob("*/*.shard"))) == 2, "this process is at work"


def test_the_last_to_leave_removes_the_folder(own_spool):
    holder(own_spool).communicate("end\n")
    assert not list(own_spool.iterdir())


def test_the_spool_keeps_to_its_limit(tmp_path, own_spool):
    """The least recently used goes first; the one asked for stays, and who reads it may read on."""
    def write(out):
        out.write(b"x" * 40)

    names = []
    for name in ("a", "b", "a", "c"):
        descriptor = spool.spooled(name, write, 100)
        names.append(descriptor)
        time.sleep(0.01)
    a, b, _, c = names
    assert [spool.is_removed(one) for one in (a, b, c)] == [False, True, False]
    assert os.pread(b, 40, 0) == b"x" * 40
    large = spool.spooled("large", lambda out: out.write(b"x" * 400), 100)
    assert not spool.is_removed(large) and len(list(own_spool.glob("*/*.shard"))) == 1
    for descriptor in {*names, large}:
        os.close(descriptor)


def test_descriptors_of_what_was_removed_are_closed(tmp_path, own_spool):
    reads = Handles(conf=StoreConfig(**{**vars(QUICK), "spool_gb": 6e-6}))
    line = program(tmp_path, "cat DATA")
    for number in range(3):
        assert reads.read(f"{line} {number}", 0, 9) == DATA[:9]
    assert len(reads._open) == 2, "one removed while it was open, and the newest"


def test_settings_that_cannot_be(tmp_path):
    tree = {"model": {"kind": "whisper", "whisper": "w"}, "train_parts": {"*": {}}, "max_steps": 1}
    tree["store"] = {"tries": 0, "connections": 0, "wait_s": 0.0, "timeout_s": -1.0, "spool_gb": 0.0, "max_faults": 5.0}
    with pytest.raises(ConfigError) as fault:
        from_dict(tree)
    assert all(f"store.{name} " in str(fault.value) for name in tree["store"])
