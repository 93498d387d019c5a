"""Result files that survive a kill: answers are appended to part files as they come, and merged in the order of the list.

``hyp.jsonl`` holds a Hypothesis a line, ``text`` is WeNet's ``key text``. While a run is under way each process appends to
``part.<rank>.jsonl``; a run that starts again skips what the parts hold, whatever the number of processes then and now.
Whoever calls these functions holds the folder's lock (lock.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from wenet_osum.records import Hypothesis

SETTINGS, HYPOTHESES, TEXT = "settings.json", "hyp.jsonl", "text"
READ_WHOLE, BLOCKS, BLOCK = 1 << 20, 64, 4096  # bytes of a file that is read whole; of a larger one that many blocks of that size
LOADED = {".safetensors", ".bin", ".json", ".model", ".txt", ".yaml"}  # suffixes of what a model is loaded from
WHITE = re.compile(r"\s")  # what ends a key in files of WeNet's and Kaldi's kind
NOT_LOADED = "trainer"  # the folder of a checkpoint that only resuming reads


class Writer:
    """The part file of one process. Use as a context; ``add`` flushes, so that a kill loses no finished batch."""

    def __init__(self, folder: str | Path, rank: int = 0) -> None:
        self._file = open(Path(folder) / f"part.{rank}.jsonl", "ab")  # noqa: SIM115

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, answers: Iterable[tuple[int, Hypothesis]]) -> None:
        """Append answers with their places in the list."""
        lines = [json.dumps([index, answer.to_dict()], ensure_ascii=False) + "\n" for index, answer in answers]
        self._file.write("".join(lines).encode("utf-8", "backslashreplace"))
        self._file.flush()


def open_run(folder: str | Path, settings: dict[str, Any], told: dict[str, Any] | None = None) -> bool:
    """Make the folder ready for this run; True when it is complete already. Call it in one process only.

    ``settings`` decide the answers; ``told`` is kept beside them for whoever reads the answers.
    A torn last line of a part is cut off. Raises ValueError when the folder holds results made with
    other settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, told = folder / SETTINGS, told or {}
    complete = (folder / HYPOTHESES).exists()  # it appears when a merge has ended, whatever parts are left
    begun = complete or any(part.stat().st_size for part in _parts(folder))
    if begun and _read_settings(path, [*told]) != settings:
        why = _difference(path, settings, [*told])
        raise ValueError(f"{folder} holds results of another run ({why}); give another --out, or delete the folder")
    _replace(path, json.dumps(settings | told, ensure_ascii=False, indent=1, sort_keys=True))
    for part in _parts(folder):
        part.unlink() if complete else _cut_torn_line(part)
    return complete


def fingerprint(model: str | Path) -> str:
    """What tells a model folder from the one of the same name that was trained anew; a hub name is its own.

    Large files are sampled: every weight moves in training, so a few blocks of them tell, and 15 GB need not be read for it.
    """
    folder, digest = Path(model), hashlib.sha256()
    if not folder.is_dir():
        return str(model)
    for path in sorted(p for p in folder.rglob("*") if p.suffix in LOADED and NOT_LOADED not in p.relative_to(folder).parts and p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}\n".encode())
        with open(path, "rb") as file:
            for number in range(BLOCKS if size > READ_WHOLE else 1):
                file.seek(number * (size - BLOCK) // (BLOCKS - 1) if size > READ_WHOLE else 0)
                digest.update(file.read(BLOCK if size > READ_WHOLE else READ_WHOLE))
    return digest.hexdigest()[:16]


def _read_settings(path: Path, without: list[str]) -> dict[str, Any] | None:
    """Read the settings of an earlier run; None when they cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None
    return {k: v for k, v in found.items() if k not in without} if isinstance(found, dict) else None


def _difference(path: Path, settings: dict[str, Any], without: list[str]) -> str:
    old = _read_settings(path, without)
    if old is None:
        return f"{path.name} cannot be read"
    names = [name for name in {**old, **settings} if old.get(name) != settings.get(name)]
    return ", ".join(f"{name}: {old.get(name)!r} there, {settings.get(name)!r} now" for name in names)


def _cut_torn_line(path: Path) -> None:
    with open(path, "r+b") as file:
        good = 0
        for line in file:
            if not line.endswith(b"\n") or not _is_row(line):
                break
            good += len(line)
        file.truncate(good)


def _is_row(line: bytes) -> bool:
    try:
        index, answer = json.loads(line)
        return isinstance(index, int) and isinstance(answer, dict)
    except ValueError:
        return False


def finished(folder: str | Path) -> set[int]:
    """Places in the list that have an answer already."""
    return {index for index, _, _ in _rows(folder)}


def _parts(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).glob("part.*.jsonl"))


def _rows(folder: str | Path) -> Iterator[tuple[int, Path, int]]:
    """(place, part, byte offset) of every answer."""
    for part in _parts(folder):
        with open(part, "rb") as file:
            at = 0
            for line in file:
                yield int(line[1 : line.index(b",")]), part, at
                at += len(line)


def merge(folder: str | Path, keys: Sequence[str]) -> None:
    """Write the result files in the order of the list, then remove the parts.

    Call it in one process only. ``keys`` are those of the list, whose places the answers name. Raises ValueError, and leaves all
    files as they are, when a place has no answer, and when there are more answers already.
    """
    folder = Path(folder)
    where = {index: (part, at) for index, part, at in _rows(folder)}
    _check_whole(folder, where.keys(), len(keys))
    names = text_names(keys)
    files = {part: open(part, "rb") for part in _parts(folder)}  # noqa: SIM115
    temporary = [folder / f"{name}.tmp" for name in (TEXT, HYPOTHESES)]
    how = {"mode": "w", "encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    with open(temporary[0], **how) as text, open(temporary[1], **how) as rows:
        for index in range(len(keys)):
            part, at = where[index]
            files[part].seek(at)
            answer = Hypothesis.from_dict(json.loads(files[part].readline())[1])
            rows.write(answer.to_json() + "\n")
            text.write(f"{names[index]} {' '.join(answer.text.split())}".rstrip() + "\n")
    for file in files.values():
        file.close()
    for path, name in zip(temporary, (TEXT, HYPOTHESES), strict=True):
        os.replace(path, folder / name)
    for part in files:
        part.unlink()


def _check_whole(folder: Path, indices: Iterable[int], jobs: int) -> None:
    """Raise ValueError when answers are missing, or fewer than an earlier run has left."""
    found = set(indices)
    if found != set(range(jobs)):
        right = len(found & set(range(jobs)))
        other = f" and {len(found) - right} of another list" if len(found) > right else ""
        again = "they stay in their part files, start the same command again"
        raise ValueError(f"{folder} has answers to {right} of {jobs} utterances{other}; {again}")
    path = folder / HYPOTHESES
    before = path.read_bytes().count(b"\n") if path.exists() else 0
    if before > jobs:
        left = "it stays as it is, give another --out"
        raise ValueError(f"{path} has {before} lines, this run {jobs}; {left}")


def text_names(keys: Sequence[str]) -> list[str]:
    """Name each key in ``text``, where white space ends a key: it becomes ``_``.

    A name that another key has already gets a number, so that two keys never become one.
    """
    taken = {key for key in keys if not WHITE.search(key)}
    return [key if key in taken else _free_name(WHITE.sub("_", key), taken) for key in keys]


def _free_name(name: str, taken: set[str]) -> str:
    numbered, number = name, 1
    while numbered in taken:
        number += 1
        numbered = f"{name}_{number}"
    taken.add(numbered)
    return numbered


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
