"""Tars made on macOS, which writes a file of attributes in front of each file that has some."""

from __future__ import annotations

import io
import tarfile
from collections import Counter

import numpy as np

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.shard import Handles, load_list, read_utterance, write_list

WAV = write_wav(np.zeros(1600, np.float32))


def load(path, members):
    """Make a tar of the members: {key: transcript} as it is read, and the faults."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    write_list(f"{path}.list", [path])
    dropped, handles = Counter(), Handles()
    found = {}
    for index in load_list(f"{path}.list", dropped):
        for row, key in enumerate(index.keys):
            utterance, _ = read_utterance(index, row, handles)
            found[str(key)] = utterance.txt
    return found, dropped


def test_attributes_between_members_are_passed_over(tmp_path):
    double = b"\x00\x05\x16\x07\x00\x02\x00\x00" + bytes(120)
    members = []
    for name, content in [("a.wav", WAV), ("a.txt", b"x"), ("b.wav", WAV), ("b.txt", b"y")]:
        members += [(f"clips/._{name}", double), (f"clips/{name}", content)]
    found, dropped = load(tmp_path / "a.tar", members)
    assert found == {"clips/a": "x", "clips/b": "y"} and not dropped


def test_a_name_alone_says_nothing(tmp_path):
    found, dropped = load(tmp_path / "b.tar", [("._a.wav", WAV), ("._a.txt", b"x")])
    assert found == {"._a": "x"} and not dropped
