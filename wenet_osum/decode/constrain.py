r"""Labels limited to their label set, while the transcript stays free.

An answer is followed field by field, over its decoded characters, so that it does not matter how tokens lie. A label begins

- where the model opens an unescaped ``<`` in the transcript before it (in a transcript with times ``<`` and a digit is a
  time, so the character after ``<`` decides),
- at once, when nothing free stands before it (label-first tasks, the second of two labels),
- where the model ends the text, or a guard stops it: then the label is forced.

Its probability is the softmax over the label set of each label's log-probability as a whole, given the answer so far.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from wenet_osum.tasks.base import Field, Task

if TYPE_CHECKING:
    from wenet_osum.text.template import Template


@lru_cache(maxsize=1 << 16)
def token_text(template: Template, token: int) -> str:
    """What a token alone decodes to."""
    return template.decode([token])


@dataclass
class Choice:
    """A label to be chosen: the token ids that would follow the answer so far, for each label of the set."""

    field: Field
    continuations: dict[str, list[int]]
    forced: bool  # the model did not open a tag here


class AnswerState:
    """Where one answer stands among the fields of its task. ``free`` turns the limits off."""

    def __init__(self, template: Template, task: Task, free: bool = False) -> None:
        self.template, self.task, self.free = template, task, free
        self.ids: list[int] = []  # the answer so far, without its end
        self.field_index = 0  # the field the answer is in
        self.done = False
        self.opened = False  # the last character is an unescaped "<" whose meaning the next one tells
        self.escaped = False  # the last character is a backslash that escapes the next one

    def clone(self) -> AnswerState:
        """An independent copy, for beams."""
        other = copy.copy(self)
        other.ids = list(self.ids)
        return other

    @property
    def at_label(self) -> bool:
        """Whether the next thing to say is a label out of a set."""
        return not self.free and not self.done and self.task.fields[self.field_index].kind == "label"

    @property
    def stretch(self) -> tuple[Field, ...]:
        """The fields of the present stretch of free text: up to the next label, or all that are left."""
        fields = self.task.fields[self.field_index :]
        labels = [i for i, f in enumerate(fields) if f.kind == "label"]
        return fields if self.free or not labels else fields[: labels[0]]

    def step(self, token: int) -> Choice | None:
        """Take the token the model wants to say next, or answer with the label choice that takes its place."""
        if self.at_label:
            return self._choice("", forced=not self.opened and not self._text(token).lstrip().startswith("<"))
        if token in self.template.end_ids:
            return self.end()
        lead = self._before_tag(self._text(token)) if self._label_follows() else None
        if lead is not None:
            self.field_index += len(self.stretch)
            return self._choice(lead, forced=False)
        self._append(token)
        return None

    def end(self) -> Choice | None:
        """End the present stretch of free text: a label that still has to come is forced, otherwise the answer is complete."""
        if not self._label_follows():
            self.done = True
            return None
        self.field_index += len(self.stretch)
        return self._choice("", forced=not self.opened)

    def take_label(self, choice: Choice, label: str) -> list[int]:
        """Write the chosen label; return its token ids, which the model has yet to be fed."""
        ids = choice.continuations[label]
        self.ids += ids
        self.opened, self.escaped = bool(self._follow(choice.field)), False
        self.field_index += 1
        self.done = self.field_index == len(self.task.fields)
        return ids

    def _label_follows(self) -> bool:
        end = self.field_index + len(self.stretch)
        return not self.free and end < len(self.task.fields)

    def _text(self, token: int) -> str:
        return "" if token in self.template.end_ids else token_text(self.template, token)

    def _before_tag(self, text: str) -> str | None:
        """What the token says before it opens a label; None when it opens none."""
        timed = self.stretch[-1].metric == "timestamps"
        if self.opened and text and not text[0].isdigit():
            return ""
        escaped = self.escaped
        for i, char in enumerate(text):
            after = text[i + 1 : i + 2]
            if char == "<" and not escaped and not (timed and (not after or after.isdigit())):
                return text[:i]
            escaped = char == "\\" and not escaped
        return None

    def _append(self, token: int) -> None:
        self.ids.append(token)
        text = self._text(token)
        for char in text:
            self.opened = char == "<" and not self.escaped
            self.escaped = char == "\\" and not self.escaped

    def _choice(self, lead: str, forced: bool) -> Choice:
        field = self.task.fields[self.field_index]
        lead = lead.replace("\ufffd", "")  # half a character: its other half will not come
        written = self.template.label_ids(field)
        build = self._joined_ids if self.template.target_tokenization == "whole" else self._bordered_ids
        return Choice(field, {label: build(lead, ids, field) for label, ids in written.items()}, forced)

    def _bordered_ids(self, lead: str, ids: list[int], field: Field) -> list[int]:
        """Ids of a label that starts at a token border; after an opened ``<``, what is left of them."""
        if self.opened:
            opening = self.template.decode(ids[:1]) == "<"
            return ids[1:] if opening else self.template.encode(self.template.decode(ids)[1:])
        return [*(self.template.encode(lead) if lead else []), *ids]

    def _joined_ids(self, lead: str, ids: list[int], field: Field) -> list[int]:
        """Ids of a label in an answer that was encoded as one string, where a token may cross the tag's borders.

        The whole answer is encoded; where its beginning is not token for token what the model said, only the rest is.
        """
        rest = lead + self.template.decode(ids)[self.opened :] + self._follow(field)
        whole = self.template.encode(self.template.decode(self.ids) + rest)
        said = len(self.ids)
        return whole[said:] if whole[:said] == self.ids and len(whole) > said else self.template.encode(rest)

    def _follow(self, field: Field) -> str:
        """The ``<`` of the next field, which may share a token with this label's ``>`` in string-joined answers."""
        rest = self.task.fields[self.task.fields.index(field) + 1 :]
        tagged = rest and (rest[0].kind in ("label", "reply") or rest[0].metric == "timestamps")
        return "<" if tagged and self.template.target_tokenization == "whole" else ""
