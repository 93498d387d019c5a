"""Read hypothesis files: JSON lines of ``recognize``, or ``key text`` lines of any tool."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from wenet_osum.records import Hypothesis
from wenet_osum.tasks import Task

NAMES = ("hyp.jsonl", "hypotheses.jsonl", "result.jsonl", "text", "hyp", "hyp.txt")  # looked for in a folder, after those named like the task
SLACK = 1e-6  # of probabilities at 0 and 1
READ = {"transcript", "words", "labels", "reply", "unread", "error"}  # a row with none of these says its answer in ``text`` alone


def find_file(path: str | Path, task: Task) -> Path:
    """The hypothesis file at ``path``: itself, or in a folder the one named like the task, of a usual name, or the only one.

    Raises ValueError when there is none or several could be meant.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"hypotheses {path} do not exist; run the decoding stage, or check the path")
    for name in (f"{task.name}.jsonl", f"{task.name}/hyp.jsonl", *NAMES, f"{task.name}.txt", task.name):
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("*.jsonl"))
    if len(found) == 1:
        return found[0]
    what = f"several ({', '.join(f.name for f in found)})" if found else "none"
    raise ValueError(f"folder {path} should hold one hypothesis file, found {what}; name the file")


def read_hypotheses(path: str | Path, task: Task) -> tuple[dict[str, Hypothesis], list[str]]:
    """Hypotheses by key, and sentences about what was odd.

    The first line tells which kind of file it is. A line that says the same again is counted once. Raises ValueError for an empty file, text
    that is not UTF-8, broken JSON, values of a wrong type and a key with two different answers.
    """
    path = find_file(path, task)
    found: dict[str, Hypothesis] = {}
    repeated = 0
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    parse = _parse_json if lines and lines[0][1].lstrip().startswith("{") else _parse_text
    for number, line in lines:
        hypothesis = parse(line, f"{path} line {number}", task)
        known = found.setdefault(hypothesis.key, hypothesis)
        if known is not hypothesis:
            repeated += 1
            if known != hypothesis:
                raise ValueError(f"{path} line {number}: key {hypothesis.key!r} has two different answers; decode into a fresh folder")
    if not found:
        raise ValueError(f"{path} holds no hypothesis; the decoding did not run or wrote elsewhere")
    return found, [f"{path}: {repeated} line{'s' * (repeated > 1)} repeated word for word, counted once"] if repeated else []


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 text, without their ends and a byte order mark. Raises ValueError that names the first bad line."""
    try:
        data = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        bad = data[error.start : error.start + 4]
        raise ValueError(f"{path} line {number} is not UTF-8 (bytes {bad!r}); convert the file, e.g. iconv -f gb18030 -t utf-8") from None
    return [line.removesuffix("\r") for line in text.split("\n")]


def _parse_text(line: str, where: str, task: Task) -> Hypothesis:
    key, _, text = line.strip().replace("\t", " ", 1).partition(" ")
    return _as_read(key, text.strip(), task)


def _as_read(key: str, text: str, task: Task) -> Hypothesis:
    read = task.read(text)
    return Hypothesis(key, task.tags, text, read.transcript, read.words, read.labels, {}, read.reply, read.unread)


def _parse_json(line: str, where: str, task: Task) -> Hypothesis:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("it is no JSON object, as the first line is")
        if not isinstance(row.get("key"), str) or not isinstance(row.get("text", ""), str):
            raise ValueError(f"a row needs a text 'key', got {row.get('key')!r}")
        for name, value in row.items():
            _check(name, value)
        if not READ & row.keys() and "text" in row:
            return _as_read(row["key"], row["text"].strip(), task)
        return Hypothesis.from_dict({"task": "", "text": "", **row})
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{where} is not a hypothesis: {error}; rows read {{key, task, text, …}}") from None


def _text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _shares(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(p) and -SLACK <= p <= 1 + SLACK for p in value.values())


RULES = {  # column → what its values must be
    **dict.fromkeys(("task", "transcript", "reply", "error"), (_text, "a text")),
    **dict.fromkeys(("labels", "unread"), (_texts, "{field: text}")),
    "probs": (lambda value: isinstance(value, dict) and all(map(_shares, value.values())), "{field: {label: 0 to 1}}"),
    "flags": (lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value), "[text, …]"),
    "duration": (lambda value: value is None or _number(value), "seconds"),
}


def _check(name: str, value: Any) -> None:
    """Raise ValueError for a value that a Hypothesis cannot hold; columns it does not have may hold anything."""
    if name in RULES and not RULES[name][0](value):
        raise ValueError(f"{name} must be {RULES[name][1]}, got {str(value)[:60]}")
