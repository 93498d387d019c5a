"""Result files that survive a kill: appended as answers come, merged in the order of the list.

``hyp.jsonl`` holds one Hypothesis per line, ``text`` is WeNet's ``key text``. While a run is under
way each process appends to ``part.<rank>.jsonl``; a run that starts again skips what the parts
hold, whatever the number of processes then and now. Whoever calls these functions holds the
folder's lock (lock.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from wenet_osum.files import write_text
from wenet_osum.records import Hypothesis

SETTINGS, HYPOTHESES, TEXT = "settings.json", "hyp.jsonl", "text"
# The size in bytes up to which a file is read whole for the fingerprint of its model …
READ_WHOLE = 1 << 20
# … the number of blocks that are read of a larger one, and their size in bytes.
BLOCKS, BLOCK = 64, 4096
# Suffixes of the files that a model is loaded from.
LOADED = {".safetensors", ".bin", ".json", ".model", ".txt", ".yaml"}
# The folder of a checkpoint that only resuming reads.
NOT_LOADED = "trainer"
# What ends a key in files of WeNet's and Kaldi's kind.
WHITE = re.compile(r"\s")


class Writer:
    """The part file of one process. Use as a context.

    ``add`` flushes, so that a kill loses no finished batch.
    """

    def __init__(self, folder: str | Path, rank: int = 0) -> None:
        # Appended to: an earlier start may have left answers there.
        path = Path(folder) / f"part.{rank}.jsonl"
        self._file = open(path, "ab")  # noqa: SIM115

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, answers: Iterable[tuple[int, Hypothesis]]) -> None:
        """Append answers with their indices in the list."""
        lines = []
        for index, answer in answers:
            row = [index, answer.to_dict()]
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        text = "".join(lines)
        self._file.write(text.encode("utf-8", "backslashreplace"))
        self._file.flush()


def open_run(
    folder: str | Path, settings: dict[str, Any], told: dict[str, Any] | None = None
) -> bool:
    """Make the folder ready for this run; return whether it is complete already.

    Call it in one process only. ``settings`` decide the answers; ``told`` is kept beside them for
    whoever reads the answers. A torn last line of a part is cut off. Raises ValueError when the
    folder holds results made with other settings.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    # The merged file appears when a merge has ended, whatever parts are left beside it.
    complete = (folder / HYPOTHESES).exists()
    begun = complete
    for part in _parts(folder):
        if part.stat().st_size:
            begun = True
    hold_settings(folder / SETTINGS, settings, begun, told)
    for part in _parts(folder):
        if complete:
            part.unlink()
        else:
            _cut_torn_line(part)
    return complete


def hold_settings(
    path: Path, settings: dict[str, Any], begun: bool, told: dict[str, Any] | None = None
) -> None:
    """Keep the settings of a run, and what is ``told`` beside them, in the file ``path``.

    Raises ValueError where results have ``begun`` and were made with other settings.
    """
    told = told or {}
    if begun and _read_settings(path, list(told)) != settings:
        why = _difference(path, settings, list(told))
        advice = "give another --out, or delete the folder"
        raise ValueError(f"{path.parent} holds results of another run ({why}); {advice}")
    written = settings | told
    text = json.dumps(written, ensure_ascii=False, indent=1, sort_keys=True)
    write_text(path, text)


def fingerprint(model: str | Path) -> str:
    """Return what tells a model folder from one of the same name that was trained anew.

    The name of a model on a hub is its own fingerprint. Large files are sampled: every weight
    moves in training, so a few blocks of them suffice, and 15 GB need not be read.
    """
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix not in LOADED or NOT_LOADED in name.parts or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        for block in _sampled(path, size):
            digest.update(block)
    return digest.hexdigest()[:16]


def _sampled(path: Path, size: int) -> Iterator[bytes]:
    """Yield a file whole, or evenly spread blocks of a large one, its first and last among them."""
    with open(path, "rb") as file:
        if size <= READ_WHOLE:
            yield file.read()
            return
        for number in range(BLOCKS):
            offset = number * (size - BLOCK) // (BLOCKS - 1)
            file.seek(offset)
            yield file.read(BLOCK)


def _read_settings(path: Path, without: list[str]) -> dict[str, Any] | None:
    """Read the settings of an earlier run; None when they cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None
    if not isinstance(found, dict):
        return None
    for name in without:
        found.pop(name, None)
    return found


def _difference(path: Path, settings: dict[str, Any], without: list[str]) -> str:
    """Name the settings that differ from those in the file."""
    old = _read_settings(path, without)
    if old is None:
        return f"{path.name} cannot be read"
    differences = []
    for name in {**old, **settings}:
        there, now = old.get(name), settings.get(name)
        if there != now:
            differences.append(f"{name}: {there!r} there, {now!r} now")
    return ", ".join(differences)


def _cut_torn_line(path: Path) -> None:
    """Cut a part file off behind its last whole line."""
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
    except ValueError:
        return False
    return isinstance(index, int) and isinstance(answer, dict)


def finished(folder: str | Path) -> set[int]:
    """Return the indices in the list that have an answer already."""
    return {row.index for row in _rows(folder)}


def _parts(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).glob("part.*.jsonl"))


class _Row(NamedTuple):
    """The place of an answer: its index in the list, the part file, and its byte offset."""

    index: int
    part: Path
    offset: int


def _rows(folder: str | Path) -> Iterator[_Row]:
    """Yield every answer that the parts hold."""
    for part in _parts(folder):
        offset = 0
        with open(part, "rb") as file:
            for line in file:
                # A line is [index, {…}]; the index alone is read.
                index = int(line[1 : line.index(b",")])
                yield _Row(index, part, offset)
                offset += len(line)


def merge(folder: str | Path, keys: Sequence[str]) -> None:
    """Write the result files in the order of the list, then remove the parts.

    Call it in one process only. ``keys`` are those of the list, whose indices the answers name.
    Raises ValueError, and leaves all files as they are, when an index has no answer, and when there
    are more answers already.
    """
    folder = Path(folder)
    rows = {row.index: row for row in _rows(folder)}
    _check_whole(folder, rows.keys(), len(keys))
    parts = _parts(folder)
    text_path = folder / f"{TEXT}.tmp"
    answers_path = folder / f"{HYPOTHESES}.tmp"
    with _created(text_path) as text, _created(answers_path) as answers:
        names = text_names(keys)
        in_order = (rows[index] for index in range(len(keys)))
        for name, answer in zip(names, _read_answers(parts, in_order), strict=True):
            answers.write(answer.to_json() + "\n")
            words = " ".join(answer.text.split())
            line = f"{name} {words}".rstrip()
            text.write(line + "\n")

    # hyp.jsonl comes last: that it is there says that the run is complete.
    text_path.replace(folder / TEXT)
    answers_path.replace(folder / HYPOTHESES)
    for part in parts:
        part.unlink()


def all_failed(folder: str | Path) -> bool:
    """Tell whether a complete run has nothing but faults. An empty list has none."""
    failed = False
    with open(Path(folder) / HYPOTHESES, encoding="utf-8", errors="replace") as answers:
        for line in answers:
            failed = bool(json.loads(line).get("error"))
            if not failed:
                break
    return failed


def _read_answers(parts: list[Path], rows: Iterable[_Row]) -> Iterator[Hypothesis]:
    """Yield the answers of ``rows``, all of whose parts stay open meanwhile."""
    with ExitStack() as stack:
        files = {}
        for part in parts:
            files[part] = stack.enter_context(open(part, "rb"))
        for row in rows:
            file = files[row.part]
            file.seek(row.offset)
            _, found = json.loads(file.readline())
            yield Hypothesis.from_dict(found)


def _created(path: Path) -> TextIO:
    """Open a text file for writing; half a surrogate pair is written as its escape."""
    return open(path, "w", encoding="utf-8", errors="backslashreplace", newline="\n")


def _check_whole(folder: Path, indices: Iterable[int], jobs: int) -> None:
    """Raise ValueError when answers are missing, or fewer than an earlier run has left."""
    found, asked = set(indices), set(range(jobs))
    if found != asked:
        right = len(found & asked)
        foreign = len(found) - right
        other = f" and {foreign} of another list" if foreign else ""
        again = "they stay in their part files, start the same command again"
        raise ValueError(f"{folder} has answers to {right} of {jobs} utterances{other}; {again}")

    path = folder / HYPOTHESES
    before = 0
    if path.exists():
        before = path.read_bytes().count(b"\n")
    if before > jobs:
        left = "it stays as it is, give another --out"
        raise ValueError(f"{path} has {before} lines, this run {jobs}; {left}")


def text_names(keys: Sequence[str]) -> list[str]:
    """Return the name of each key in ``text``, where white space ends a key: it becomes ``_``.

    A name that another key has already gets a number, so that two keys never become one.
    """
    taken = {key for key in keys if not WHITE.search(key)}
    names = []
    for key in keys:
        if WHITE.search(key):
            key = _free_name(WHITE.sub("_", key), taken)
        names.append(key)
    return names


def _free_name(name: str, taken: set[str]) -> str:
    numbered, number = name, 1
    while numbered in taken:
        number += 1
        numbered = f"{name}_{number}"
    taken.add(numbered)
    return numbered
