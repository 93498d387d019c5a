"""tools/bench/served_rtfx.py: every recording is sent once per number of clients, to any server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.records import Utterance

from ..examples.conftest import load_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    return load_file(ROOT / "tools/bench/served_rtfx.py")


@pytest.fixture
def recordings(tmp_path):
    """A list of three recordings of a second."""
    rows = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        noise = np.random.default_rng(number).normal(0, 0.1, 16000)
        path.write_bytes(write_wav(noise.astype(np.float32)))
        rows.append(Utterance(f"u{number}", str(path), txt="a", duration=1.0))
    write_manifest(tmp_path / "test.jsonl", rows)
    return str(tmp_path / "test.jsonl")


def test_a_row_for_each_number_of_clients(tool, recordings, serving, capsys):
    with serving() as (url, service):
        assert tool.main(["--url", url, "--list", recordings, "--clients", "1", "3"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [(row[0], row[1], row[4]) for row in cells] == [("1", "3", "0"), ("3", "3", "0")]
    assert all(float(row[2]) > 0 for row in cells)


def test_what_is_not_answered_is_counted(tool, recordings, capsys):
    assert tool.main(["--url", "http://127.0.0.1:9", "--list", recordings, "--clients", "2"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 3 |")
    assert tool.main(["--url", "http://127.0.0.1:9", "--list", recordings + ".no"]) == 1
