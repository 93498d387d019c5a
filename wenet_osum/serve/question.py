"""The record between a request's form and its answer."""

from __future__ import annotations

from dataclasses import dataclass

from wenet_osum.context import NOTHING, Context
from wenet_osum.tasks.base import Task


@dataclass(frozen=True)
class Question:
    """The options of a request."""

    task: Task
    # A name of FORMATS in writing.py.
    format: str
    # None: the server's own.
    temperature: float | None = None
    # As the client named it.
    language: str | None = None
    # Of times, in verbose_json; none: the server's choice.
    granularities: tuple[str, ...] = ()
    # Whether it is answered by events while it is decoded.
    stream: bool = False
    # Fields that were sent and have no meaning here.
    ignored: tuple[str, ...] = ()
    # What is known of the recording.
    context: Context = NOTHING
    # What the task is told of it, by name, such as the language of a translation.
    facts: tuple[tuple[str, str], ...] = ()
    # The model that answers, by the server's name for it.
    model: str = ""
