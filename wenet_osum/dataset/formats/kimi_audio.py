"""Kimi-Audio's jsonl for fine-tuning: a conversation a line.

    {"task_type": "understanding", "conversation": [
        {"role": "user", "message_type": "text", "content": "What is said?"},
        {"role": "user", "message_type": "audio", "content": "a.wav"},
        {"role": "assistant", "message_type": "text", "content": "It rains."}]}

An assistant's text is a reply (task ``<S2TCHAT>``). One with an entry ``task`` beside its
``content``, as ``write`` leaves it, is what that task writes; Kimi-Audio's own code passes over
such entries, and over ``key``, labels and what else stands on the line. Speech of an assistant has
no place here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wenet_osum import lookup, tasks
from wenet_osum.dataset.drop import note
from wenet_osum.dataset.formats._fields import count_lost
from wenet_osum.dataset.manifest import from_row, reason_of, write_lines
from wenet_osum.dataset.messages import ASSISTANT, FREE, USER, Message, answer_text, rows_of
from wenet_osum.dataset.scan import located
from wenet_osum.records import Utterance

FORM = "Kimi-Audio's jsonl"
TYPES = ("text", "audio")
EDGES = ("start", "end")
UNDERSTANDING = "understanding"
ON_LINE = ("conversation", "task_type")
# Fields that have a place on the line or in its messages, beside labels and those of the task.
KEPT = frozenset(("key", "wav", "task", "prompt", "turns", "lang", "speaker", "extra", "duration"))
SEGMENT = "segment: start and end stand beside content, which Kimi-Audio itself does not read"
Row = dict[str, Any]


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the conversations of a file; a line without ``key`` is named by its number.

    Relative paths count from where the run was started, or else from the file's folder.
    """
    rows = _read(path, dropped)
    return located(rows, path)


def _read(path: str, dropped: Counter) -> Iterator[Utterance]:
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            stem = Path(path).stem
            name = f"{stem}-{number:06d}"
            try:
                row = json.loads(line)
                yield _utterance(row, name)
            except ValueError as error:
                reason = reason_of(error)
                note(dropped, name, f"kimi_audio: {reason}")


def _utterance(line: Row, name: str) -> Utterance:
    """Read a line. Raises ValueError."""
    entries = None
    if isinstance(line, dict):
        entries = line.get("conversation")
    if not isinstance(entries, list) or not entries:
        got = str(line)[:80]
        raise ValueError(f"a line must be an object with a list 'conversation', got {got}")
    messages = []
    for place, entry in enumerate(entries):
        messages.append(_message(entry, place))
    *turns, last = rows_of(messages)
    for turn in (*turns, last):
        if "wav" in turn:
            place = int(turn["wav"])
            turn |= _recording(entries[place])

    # What else stands on the line is the utterance's, as in a manifest.
    row = {"key": name}
    for key, value in line.items():
        if key not in ON_LINE:
            row[key] = value
    row |= last
    row["turns"] = turns
    return from_row(row)


def _recording(entry: Row) -> Row:
    """Return the recording of an entry, and its segment where it has one."""
    found = {"wav": entry["content"]}
    for edge in EDGES:
        if edge in entry:
            found[edge] = entry[edge]
    return found


def _message(entry: Row, place: int) -> Message:
    """Read an entry; a recording goes by its place for now. Raises ValueError."""
    rule = "an entry must hold role, message_type and a text as content"
    fits = isinstance(entry, dict) and isinstance(entry.get("content"), str)
    if not fits or "role" not in entry:
        got = str(entry)[:80]
        raise ValueError(f"{rule}, got {got}")
    kind = entry.get("message_type")
    role = entry["role"]
    content = entry["content"]
    if kind not in TYPES:
        fault = lookup.unknown("message_type", str(kind), [*TYPES])
        raise ValueError(fault)
    if kind == "text":
        return Message(role, text=content, task=entry.get("task"))
    if role == ASSISTANT:
        raise ValueError("an assistant's message must be text, got audio")
    return Message(role, wav=str(place))


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write conversations; utterances without a task, or its fields, are counted and left out."""
    return write_lines(path, _lines(utterances, lost))


def _lines(utterances: Iterable[Utterance], lost: Counter) -> Iterator[str]:
    for utterance in utterances:
        try:
            row = _row(utterance)
        except ValueError as error:
            lost[reason_of(error)] += 1
            continue
        task = tasks.parse(utterance.task)
        held = {*KEPT, *utterance.labels, *EDGES}
        held.update(field.attribute for field in task.fields)
        count_lost(utterance, frozenset(held), FORM, lost)
        if any(map(_is_segment, utterance.recordings())):
            lost[SEGMENT] += 1
        yield json.dumps(row, ensure_ascii=False)


def _row(utterance: Utterance) -> Row:
    """Return the line of an utterance. Raises ValueError."""
    if not utterance.task:
        raise ValueError("utterance without task: nobody knows what it is to answer")
    entries = []
    earlier = utterance.turns or ()
    for turn in (*earlier, utterance):
        entries += _entries(turn)

    known = utterance.to_dict()
    on_line = {
        "key": utterance.key,
        "task_type": UNDERSTANDING,
        "conversation": entries,
    }
    for name in ("lang", "speaker", *utterance.labels, "extra"):
        if name in known:
            on_line[name] = known[name]
    return on_line


def _entries(turn: Utterance) -> list[Row]:
    """Return the entries of a turn: words, recording, answer. Raises ValueError."""
    entries: list[Row] = []
    words = _words(turn)
    if words:
        entries.append(_entry(USER, "text", words))
    if turn.wav:
        heard = _entry(USER, "audio", turn.wav)
        for edge in EDGES:
            value = getattr(turn, edge)
            if value is not None:
                heard[edge] = value
        entries.append(heard)
    if turn.task:
        entries.append(_answer(turn))
    return entries


def _words(turn: Utterance) -> str | None:
    """Return the user's words: where there are none of its own, the prompt of the turn's task."""
    if turn.prompt is not None or not turn.task:
        return turn.prompt
    task = tasks.parse(turn.task)
    lang = "en" if turn.lang == "en" else "zh"
    prompts = task.prompts(lang)
    return prompts[0]


def _answer(turn: Utterance) -> Row:
    """Return the entry of a turn's answer, with its task unless it is free text."""
    text = answer_text(turn)
    entry = _entry(ASSISTANT, "text", text)
    task = tasks.parse(turn.task)
    if task.tags != FREE:
        entry["task"] = turn.task
    return entry


def _entry(role: str, kind: str, content: str) -> Row:
    return {
        "role": role,
        "message_type": kind,
        "content": content,
    }


def _is_segment(turn: Utterance) -> bool:
    """Tell whether a turn's recording is a part of its file."""
    edges = (turn.start, turn.end)
    return edges != (None, None)
