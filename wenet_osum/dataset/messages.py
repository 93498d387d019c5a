"""The messages of a chat as the turns of an utterance (turns.py), and back.

A turn is words, then a recording, then an answer. So a recording before words, or two recordings in
a row, are two turns, of which only the last is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from wenet_osum import lookup, tasks
from wenet_osum.records import Utterance
from wenet_osum.tasks.base import Reading, Task
from wenet_osum.tasks.sttc import REPLY

USER, ASSISTANT = "user", "assistant"
# What an answer is that is nothing but free text.
FREE = REPLY.tag
Row = dict[str, Any]


class Message(NamedTuple):
    """What one side says: words, a recording, or both."""

    role: str  # USER or ASSISTANT
    text: str | None = None
    wav: str | None = None
    task: str | None = None  # of an assistant's: what its text is, a name or tags


def rows_of(
    messages: Iterable[Message],
    default: str = FREE,
    task_of: Callable[[str], Task] = tasks.parse,
) -> list[Row]:
    """Return the turns as rows; the last has no ``task`` where its answer is still to come.

    ``default`` is the task of answers that name none; one that cannot be read as its task's is a
    free one. ``task_of`` finds the task of a name, with the label sets that answers are written in:
    those of the toolkit, unless a model's template is asked. Raises ValueError for an unknown role
    or task, and for an answer to nothing.
    """
    rows: list[Row] = []
    asked: Row | None = None
    for message in messages:
        if message.role == USER:
            for said in _turns_said(asked, message):
                if said is not asked and asked is not None:
                    rows.append(asked)
                asked = said
        elif message.role == ASSISTANT:
            if asked is None or message.text is None:
                raise ValueError("an assistant's message must be text that answers a user's")
            name = message.task or default
            rows.append(asked | answer_row(message.text, name, task_of(name)))
            asked = None
        else:
            raise ValueError(lookup.unknown("role", message.role, [USER, ASSISTANT]))
    if asked is not None:
        rows.append(asked)
    return rows


def _turns_said(open_turn: Row | None, message: Message) -> Iterable[Row]:
    """Yield the turns that a user's message is said in, the open one first where it goes on."""
    turn = {"prompt": ""} if open_turn is None else open_turn
    if message.text:
        # Words come before the recording, and once.
        if turn.get("wav") or turn["prompt"]:
            turn = {"prompt": ""}
        turn["prompt"] = message.text
        yield turn
    if message.wav:
        if turn.get("wav"):
            turn = {"prompt": ""}
        turn["wav"] = message.wav
        yield turn


def answer_row(text: str, name: str, task: Task) -> Row:
    """Return an answer's text as the fields of its task, which the row calls ``name``."""
    if task.tags == FREE:
        return {"task": FREE, "reply": text}
    reading = task.read(text)
    if reading.unread:
        return {"task": FREE, "reply": text}
    return {"task": name, **_fields(task, reading)}


def _fields(task: Task, reading: Reading) -> Row:
    """Return what was read, by the names that a row has for it."""
    row: Row = {}
    for field in task.fields:
        row |= field.entries(reading)
    if row.get("words"):
        row["words"] = [[*word] for word in row["words"]]
    return row


def answer_text(turn: Utterance) -> str:
    """Write the answer of a turn. Raises ValueError where it lacks a field of its task."""
    task = tasks.parse(turn.task)
    if task.tags == FREE and turn.reply is not None:
        return turn.reply
    return task.write(turn)
