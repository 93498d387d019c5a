"""Shards behind addresses and programs are read like files; what fails says so, and a manifest runs nothing."""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.shard import Handles, load_list, pack, read_utterance, write_list
from wenet_osum.records import Utterance

WAV = write_wav((np.arange(3200) % 100 / 200).astype(np.float32))


def utterance(folder, key, **fields):
    (folder / "sound.wav").write_bytes(WAV)
    return Utterance(key, str(folder / "sound.wav"), **fields)


def load(path):
    """Key → (utterance, audio bytes), and what was left out."""
    dropped, handles = Counter(), Handles()
    return {str(i.keys[row]): read_utterance(i, row, handles) for i in load_list(path, dropped) for row in range(len(i))}, dropped


@pytest.mark.parametrize("arguments", ["{first} {last}", ""])
def test_shards_printed_by_a_program(tmp_path, arguments):
    """A program that prints a stretch is asked for each utterance; one that prints all is run once a node."""
    report = pack([utterance(tmp_path, "你", txt="x"), utterance(tmp_path, "b")], tmp_path / "s", log=print)
    (tmp_path / "show.py").write_text(
        "import sys\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(' '.join(sys.argv[2:]) + '|')\n"
        "first, last = (sys.argv[2:] + ['', ''])[:2]\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "sys.stdout.buffer.write(data[int(first or 0) : int(last) + 1 if last else None])\n"
    )
    quoted = arguments.replace("{last}", "'{last}'")
    write_list(tmp_path / "l", [f"pipe:{sys.executable} '{tmp_path}/show.py' {report.paths[0]} {quoted}"])
    for again in (False, True):  # the second time the index is there
        (tmp_path / "calls").write_text("")
        found, dropped = load(tmp_path / "l")
        assert list(found) == ["你", "b"] and found["b"][1] == WAV and not dropped
        calls = (tmp_path / "calls").read_text().split("|")[:-1]
        assert len(calls) == (0 if again else 1) + (2 if arguments else 0), calls
    whole = Path(report.paths[0]).stat().st_size
    assert all(int(call.split()[1]) - int(call.split()[0]) < 0.7 * whole for call in calls if arguments), "a stretch, not the shard"


@pytest.mark.parametrize(("line", "words"), [("pipe:false", "exit status 1"), ("pipe:/none/x", "cannot be run"), ("pipe:echo '", "cannot be run")])
def test_programs_that_fail_are_named(tmp_path, line, words):
    write_list(tmp_path / "l", [line])
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "l")


def test_a_manifest_cannot_run_programs(tmp_path):
    """Manifests come with data from others."""
    (tmp_path / "l").write_text(json.dumps({"key": "a", "wav": f"pipe:touch {tmp_path}/ran", "txt": "x", "duration": 1.0}) + "\n")
    with contextlib.suppress(ValueError):
        load(tmp_path / "l")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("with_index", [True, False])
def test_shards_behind_an_address(tmp_path, with_index):
    report = pack([utterance(tmp_path, "你", txt="x"), utterance(tmp_path, "b")], tmp_path / "s", log=print)
    if not with_index:
        Path(report.paths[0] + ".index.npz").unlink()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "s"))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        write_list(tmp_path / "l", [f"http://127.0.0.1:{server.server_port}/shards_000000000.tar"])
        found, dropped = load(tmp_path / "l")
        assert list(found) == ["你", "b"] and found["b"][1] == WAV and not dropped
        write_list(tmp_path / "l", [f"http://127.0.0.1:{server.server_port}/none.tar"])
        with pytest.raises(ValueError, match="404"):
            load(tmp_path / "l")
    finally:
        server.shutdown()
        server.server_close()
