"""Answers that begin with a given text (the option ``prefix_text``).

The text is encoded as targets of training are and stands before the first token that is searched
for, as if the model had said it: greedy search, sampling, beams, joint decoding and CTC drafts go
on behind it. Whoever hears a recording while it comes in (incremental.py) keeps so to what was
said.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from wenet_osum.dataset.drop import Drop
from wenet_osum.decode.constrain import AnswerState

if TYPE_CHECKING:
    from wenet_osum.decode.options import DecodeOptions
    from wenet_osum.decode.row import Row
    from wenet_osum.tasks.base import Task
    from wenet_osum.text.template import Template

# Characters of the text that a message shows.
SHOWN = 60


def refusal(task: Task, template: Template, options: DecodeOptions) -> str | None:
    """Return why answers to a task cannot begin with the options' text; None if they can."""
    text = options.prefix_text
    if not text:
        return None
    shown = text[:SHOWN]
    told = f"prefix_text {shown!r}"
    state = AnswerState(template, task, options.free)
    if state.at_label:
        return f"{told}: task {task.tags} begins with a label, which is chosen out of its set"
    for token in template.beginning_ids(text):
        if state.step(token) is not None or state.done:
            advice = "give the beginning of the transcript alone, and write \\< for <"
            return f"{told}: its tag ends the transcript of {task.tags}; {advice}"
    return None


def begin(rows: list[Row], template: Template, options: DecodeOptions) -> None:
    """Let the answers of ``rows`` begin with the options' text.

    Raises Drop where a task or the decoder's length does not allow it.
    """
    ids = template.beginning_ids(options.prefix_text)
    for row in rows:
        why = refusal(row.answer_state.task, template, options)
        if why:
            raise Drop("prefix_text", why)
        size = len(ids)
        if row.room is not None and size >= row.room:
            detail = f"{size} tokens, there is room for {row.room}"
            raise Drop("prefix_text too long", detail)
        row.begin_with(ids)


def without(options: DecodeOptions) -> DecodeOptions:
    """Return the options for what comes behind the beginning of a recording."""
    return dataclasses.replace(options, prefix_text=None)
