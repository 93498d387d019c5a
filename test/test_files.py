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


# Files that write in place, each with the reason why a kill cannot leave half a file that is used.
IN_PLACE = {
    "wenet_osum/corpus/espeak.py": "a temporary folder of this process",
    "wenet_osum/dataset/pack.py": "renamed when the shard is whole",
    "wenet_osum/dataset/states.py": "renamed when the part is whole",
    "wenet_osum/dataset/manifest.py": "paths that ``replaced`` gave, all renamed together",
    "wenet_osum/hub/export.py": "a temporary folder, renamed when it is whole",
    "wenet_osum/hub/gguf_files.py": "a part of a folder that is renamed when it is whole",
    "wenet_osum/decode/write.py": "renamed when all answers are there",
    "wenet_osum/models/convert.py": "a temporary folder, renamed when it is whole",
    "wenet_osum/models/convert_whisper.py": "renamed when it is whole",
    "wenet_osum/models/lora.py": "a part of a model folder that is renamed when it is whole",
    "wenet_osum/models/whisper.py": "a part of a model folder that is renamed when it is whole",
    "wenet_osum/train/average.py": "a temporary folder, renamed when it is whole",
    "wenet_osum/train/checkpoint.py": "a temporary folder; DONE is written last",
    "examples/asrx/local/cells.py": "a lock, whose content is not read",
}
WRITES = {"write_text", "write_bytes", "savez", "save_file"}


def plain_writes(path: Path) -> list[int]:
    """Return the lines that write a file in place; a block of ``replaced`` does not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    safe = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and "replaced(" in "".join(ast.unparse(i) for i in node.items):
            safe |= {id(inside) for inside in ast.walk(node)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in safe]
    return [node.lineno for node in calls if writes_in_place(node)]


def writes_in_place(call: ast.Call) -> bool:
    """Tell whether a call opens a file for writing, or is a method that writes one."""
    if isinstance(call.func, ast.Name) and call.func.id == "open":
        given = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "mode")]
        return any(isinstance(mode, ast.Constant) and mode.value[0] in "wx" for mode in given)
    if isinstance(call.func, ast.Name):
        return call.func.id == "save_file"
    return getattr(call.func, "attr", "") in WRITES or ast.unparse(call.func) == "torch.save"


def test_results_are_written_whole_everywhere():
    # A kill between the first and the last byte must leave the old file.
    found = {}
    patterns = ("wenet_osum/**/*.py", "tools/*.py", "examples/*/local/*.py")
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        lines = plain_writes(path)
        if lines and name != "wenet_osum/files.py":
            found[name] = lines
    more = {name: lines for name, lines in found.items() if name not in IN_PLACE}
    assert not more, f"use wenet_osum.files: {more}"
    assert set(IN_PLACE) <= set(found), f"no longer there, so no longer allowed: {set(IN_PLACE) - set(found)}"


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
    assert set(found) >= RENAME_THEMSELVES, "no longer there, so no longer allowed"
