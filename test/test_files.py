"""Files appear whole or not at all, by the one helper there is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from wenet_osum.files import replaced, write_bytes, write_text

ROOT = Path(__file__).resolve().parents[1]
# These rename what they have written over a long time themselves: folders, shards, and states.
RENAME_THEMSELVES = {
    "dataset/pack.py",
    "dataset/states.py",
    "decode/write.py",
    "models/convert.py",
    "models/convert_whisper.py",
    "train/average.py",
    "train/checkpoint.py",
}


def test_text_and_bytes_take_the_place_of_what_was_there(tmp_path):
    path = tmp_path / "new/folder/a.txt"
    write_text(path, "one\n")
    write_text(path, "二\n")
    write_bytes(path.with_name("b"), b"\x00")
    assert path.read_bytes() == "二\n".encode() and path.with_name("b").read_bytes() == b"\x00"
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.txt", "b"], "no temporary file is left"


def test_a_fault_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replaced(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old" and temporary.parent == tmp_path
        raise ZeroDivisionError
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def temporary_names(path: Path) -> list[int]:
    """Return the lines of a file that make a temporary name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.lineno for node in texts if node.value.endswith(".tmp")]


def test_nobody_else_makes_temporary_names():
    found = {}
    for path in sorted((ROOT / "wenet_osum").rglob("*.py")):
        name = path.relative_to(ROOT / "wenet_osum").as_posix()
        if name != "files.py" and temporary_names(path):
            found[name] = temporary_names(path)
    assert set(found) <= RENAME_THEMSELVES, f"use wenet_osum.files: {found}"
    assert RENAME_THEMSELVES <= set(found), "no longer there, so no longer allowed"
