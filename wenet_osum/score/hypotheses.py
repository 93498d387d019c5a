"""Read hypothesis files: JSON lines of ``recognize``, or ``key text`` lines of any tool."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wenet_osum.records import Hypothesis
from wenet_osum.tasks import Task

# Names looked for in a folder after those named like the task.
NAMES = ("hyp.jsonl", "hypotheses.jsonl", "result.jsonl", "text", "hyp", "hyp.txt")
# How far a probability may lie outside 0 to 1.
SLACK = 1e-6
# Columns of answers taken apart; a row with none of these has its answer in ``text`` alone.
READ = {"transcript", "words", "labels", "reply", "texts", "unread", "error"}


def find_file(path: str | Path, task: Task) -> Path:
    """Find the hypothesis file at ``path``: itself, or one in the folder.

    In a folder it is the one named like the task, one of a usual name, or the only one. Raises
    ValueError when there is none or several could be meant.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(
            f"hypotheses {path} do not exist; run the decoding stage, or check the path"
        )

    own = (f"{task.name}.jsonl", f"{task.name}/hyp.jsonl")
    for name in (*own, *NAMES, f"{task.name}.txt", task.name):
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("*.jsonl"))
    if len(found) == 1:
        return found[0]

    what = "none"
    if found:
        names = ", ".join(file.name for file in found)
        what = f"several ({names})"
    raise ValueError(f"folder {path} should hold one hypothesis file, found {what}; name the file")


def read_hypotheses(path: str | Path, task: Task) -> tuple[dict[str, Hypothesis], list[str]]:
    """Read hypotheses by key, and sentences about what was odd.

    The first line shows which kind of file it is. A line that says the same again is counted once.

    Raises ValueError for an empty file, text that is not UTF-8, broken JSON, values of a wrong type
    and a key with two different answers.
    """
    path = find_file(path, task)
    lines = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            lines.append((number, line))
    is_json = bool(lines) and lines[0][1].lstrip().startswith("{")
    parse = _parse_json if is_json else _parse_text

    found: dict[str, Hypothesis] = {}
    repeated = 0
    for number, line in lines:
        where = f"{path} line {number}"
        hypothesis = parse(line, where, task)
        known = found.setdefault(hypothesis.key, hypothesis)
        if known is hypothesis:
            continue
        repeated += 1
        if known != hypothesis:
            raise ValueError(
                f"{where}: key {hypothesis.key!r} has two different answers; "
                "decode into a fresh folder"
            )

    if not found:
        raise ValueError(f"{path} holds no hypothesis; the decoding did not run or wrote elsewhere")
    if not repeated:
        return found, []
    plural = "s" if repeated > 1 else ""
    odd = f"{path}: {repeated} line{plural} repeated word for word, counted once"
    return found, [odd]


def read_lines(path: str | Path) -> list[str]:
    """Read the lines of a UTF-8 text, without their ends and a byte order mark.

    Raises ValueError that names the first bad line.
    """
    try:
        data = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        bad = data[error.start : error.start + 4]
        raise ValueError(
            f"{path} line {number} is not UTF-8 (bytes {bad!r}); "
            "convert the file, e.g. iconv -f gb18030 -t utf-8"
        ) from None
    return [line.removesuffix("\r") for line in text.split("\n")]


def _parse_text(line: str, where: str, task: Task) -> Hypothesis:
    """Read a line ``key text``."""
    spaced = line.strip().replace("\t", " ", 1)
    key, _, text = spaced.partition(" ")
    return _as_read(key, text.strip(), task)


def _as_read(key: str, text: str, task: Task) -> Hypothesis:
    """Make a hypothesis of a raw answer, taken apart as the task says."""
    read = task.read(text)
    return Hypothesis(
        key=key,
        task=task.tags,
        text=text,
        transcript=read.transcript,
        words=read.words,
        labels=read.labels,
        reply=read.reply,
        texts=read.texts,
        unread=read.unread,
    )


def _parse_json(line: str, where: str, task: Task) -> Hypothesis:
    """Read a JSON line of ``recognize``. Raises ValueError for one that is no hypothesis."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("it is no JSON object, as the first line is")
        key, text = row.get("key"), row.get("text", "")
        if not isinstance(key, str) or not isinstance(text, str):
            raise ValueError(f"a row needs a text 'key', got {key!r}")
        for name, value in row.items():
            _check(name, value)

        # A raw answer is still to be taken apart.
        if READ.isdisjoint(row) and "text" in row:
            return _as_read(key, text.strip(), task)
        read = Hypothesis.from_dict({"task": "", "text": "", **row})
        for word in read.words or []:
            if not (math.isfinite(word.start) and math.isfinite(word.end)):
                raise ValueError(f"the times of {word.text!r} must be finite")
        return read
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{where} is not a hypothesis: {error}; rows read {{key, task, text, …}}"
        ) from None


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_seconds(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_probability(value: Any) -> bool:
    return _is_number(value) and -SLACK <= value <= 1 + SLACK


def _is_list_of_texts(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(item, str) for item in value)


def _is_table(value: Any, is_entry: Callable[[Any], bool]) -> bool:
    """Tell whether a value is a mapping whose entries are all of a kind."""
    if not isinstance(value, dict):
        return False
    return all(map(is_entry, value.values()))


def _is_table_of_texts(value: Any) -> bool:
    return _is_table(value, lambda entry: isinstance(entry, str))


def _is_table_of_probabilities(value: Any) -> bool:
    return _is_table(value, lambda labels: _is_table(labels, _is_probability))


# Column → what its values must be.
RULES = {
    **dict.fromkeys(("task", "transcript", "reply", "error"), (_is_text, "a text")),
    **dict.fromkeys(("labels", "texts", "unread"), (_is_table_of_texts, "{field: text}")),
    "probs": (_is_table_of_probabilities, "{field: {label: 0 to 1}}"),
    "flags": (_is_list_of_texts, "[text, …]"),
    "duration": (_is_seconds, "seconds"),
}


def _check(name: str, value: Any) -> None:
    """Raise ValueError for a value that a Hypothesis cannot hold.

    Columns it does not have may hold anything.
    """
    if name not in RULES:
        return
    is_right, expected = RULES[name]
    if not is_right(value):
        got = str(value)[:60]
        raise ValueError(f"{name} must be {expected}, got {got}")
