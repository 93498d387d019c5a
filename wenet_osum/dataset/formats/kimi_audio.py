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
from wenet_osum.dataset.messages import ASSISTANT, USER, Message, answer_text, rows_of
from wenet_osum.records import Utterance

FORM = "Kimi-Audio's jsonl"
TYPES = ("text", "audio")
EDGES = ("start", "end")
UNDERSTANDING = "understanding"
# Fields that have a place on the line or in its messages, beside labels and those of the task.
KEPT = frozenset(("key", "wav", "task", "prompt", "turns", "lang", "speaker", "extra", "duration"))
SEGMENT = "segment: start and end stand beside content, which Kimi-Audio itself does not read"
Row = dict[str, Any]


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the conversations of a file; a line without ``key`` is named by its number."""
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            name = f"{Path(path).stem}-{number:06d}"
            try:
                yield _utterance(json.loads(line), name)
            except ValueError as error:
                note(dropped, name, "kimi_audio: " + reason_of(error))


def _utterance(line: Row, name: str) -> Utterance:
    """Read a line. Raises ValueError."""
    entries = line.get("conversation") if isinstance(line, dict) else None
    if not isinstance(entries, list) or not entries:
        got = str(line)[:80]
        raise ValueError(f"a line must be an object with a list 'conversation', got {got}")
    messages = [_message(entry, place) for place, entry in enumerate(entries)]
    *turns, last = rows_of(messages)
    for turn in (*turns, last):
        if "wav" in turn:
            turn |= _recording(entries[int(turn["wav"])])

    row = {key: value for key, value in line.items() if key not in ("conversation", "task_type")}
    return from_row({"key": name} | row | last | {"turns": turns})


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
    kind, role, content = entry.get("message_type"), entry["role"], entry["content"]
    if kind not in TYPES:
        raise ValueError(lookup.unknown("message_type", str(kind), [*TYPES]))
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
        fields = tasks.parse(utterance.task).fields
        held = KEPT.union(utterance.labels, (field.attribute for field in fields))
        if any(one.start is not None or one.end is not None for one in utterance.recordings()):
            lost[SEGMENT] += 1
            held |= {"start", "end"}
        count_lost(utterance, held, FORM, lost)
        yield json.dumps(row, ensure_ascii=False)


def _row(utterance: Utterance) -> Row:
    """Return the line of an utterance. Raises ValueError."""
    if not utterance.task:
        raise ValueError("utterance without task: nobody knows what it is to answer")
    entries = []
    for turn in (*(utterance.turns or ()), utterance):
        entries += _entries(turn)
    known = utterance.to_dict()
    on_line = {"key": utterance.key, "task_type": UNDERSTANDING, "conversation": entries}
    for name in ("lang", "speaker", *utterance.labels, "extra"):
        if name in known:
            on_line[name] = known[name]
    return on_line


def _entries(turn: Utterance) -> list[Row]:
    """Return the entries of a turn: words, recording, answer. Raises ValueError."""
    entries: list[Row] = []
    words = turn.prompt
    if words is None and turn.task:
        lang = "en" if turn.lang == "en" else "zh"
        words = tasks.parse(turn.task).prompts(lang)[0]
    if words:
        entries.append({"role": USER, "message_type": "text", "content": words})
    if turn.wav:
        entry = {"role": USER, "message_type": "audio", "content": turn.wav}
        for edge in EDGES:
            if getattr(turn, edge) is not None:
                entry[edge] = getattr(turn, edge)
        entries.append(entry)
    if turn.task:
        answer = {"role": ASSISTANT, "message_type": "text", "content": answer_text(turn)}
        task = tasks.parse(turn.task)
        if len(task.fields) > 1 or task.fields[0].kind != "reply":
            answer["task"] = task.tags
        entries.append(answer)
    return entries
