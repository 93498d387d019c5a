r"""Labels limited to their label set, while the transcript stays free.

An answer is followed field by field, over its decoded characters, so that it does not matter how
tokens lie. A label begins

- where the model opens an unescaped ``<`` in the transcript before it (in a transcript with times
  ``<`` and a digit is a time, so the character after ``<`` decides),
- at once, when nothing free stands before it (label-first tasks, the second of two labels),
- where the model ends the text, or a guard stops it: then the label is forced.

Where no label follows, a transcript has no tag at all: targets write ``<`` in it as ``\<``. A model
that opens one there, because it was taught other tasks too, takes the transcript to be over, and so
it is: the answer ends before the tag, and is marked as ``cut``. A reply begins with a tag and stays
free.

The probability of a label is the softmax over the label set of each label's log-probability as a
whole, given the answer so far.
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
    """Return what a token alone decodes to."""
    return template.decode([token])


@lru_cache(maxsize=1 << 16)
def is_plain(template: Template, token: int) -> bool:
    """Return whether a token opens no tag, escapes nothing and does not end the answer."""
    if token in template.end_ids:
        return False
    text = token_text(template, token)
    return "<" not in text and "\\" not in text


@dataclass
class Choice:
    """A label to be chosen.

    ``continuations`` has, for each label of the set, the token ids that would follow the answer so
    far. A label is ``forced`` when the model did not open a tag here.
    """

    field: Field
    continuations: dict[str, list[int]]
    forced: bool


class AnswerState:
    """The position of one answer in the fields of its task. ``free`` turns the limits off."""

    def __init__(self, template: Template, task: Task, free: bool = False) -> None:
        self.template, self.task = template, task
        self.free = free
        # The answer so far, without its end.
        self.ids: list[int] = []
        # The field that the answer is in.
        self.field_index = 0
        self.done = False
        # The last character is an unescaped "<", whose meaning the next one decides.
        self.opened = False
        # The last character is a backslash that escapes the next one.
        self.escaped = False
        # The model opened a tag that was not asked for, and the answer ended before it.
        self.cut = False

    def clone(self) -> AnswerState:
        """Return an independent copy, for beams."""
        other = copy.copy(self)
        other.ids = list(self.ids)
        return other

    # -- what comes next ----------------------------------------------------------------------

    @property
    def at_label(self) -> bool:
        """Return whether the next thing to say is a label out of a set."""
        if self.free or self.done:
            return False
        field = self.task.fields[self.field_index]
        return field.kind == "label"

    @property
    def stretch(self) -> tuple[Field, ...]:
        """Return the fields of the present stretch of free text.

        These are the fields up to the next label, or all that are left.
        """
        fields = self.task.fields[self.field_index :]
        if self.free:
            return fields
        for number, field in enumerate(fields):
            if field.kind == "label":
                return fields[:number]
        return fields

    def _label_follows(self) -> bool:
        """Return whether a label comes after the present stretch."""
        end = self.field_index + len(self.stretch)
        return not self.free and end < len(self.task.fields)

    # -- what is said -------------------------------------------------------------------------

    def step(self, token: int) -> Choice | None:
        """Take the token the model wants to say next, or return the label choice in its place."""
        if self.at_label:
            # Forced, unless the model has opened the tag or opens it with this token.
            text = self._text(token).lstrip()
            forced = not self.opened and not text.startswith("<")
            return self._choice("", forced)

        # Most tokens by far only make the text longer.
        if not self.opened and not self.escaped and is_plain(self.template, token):
            self.ids.append(token)
            return None

        if token in self.template.end_ids:
            return self.end()
        lead = None if self._tags_are_free() else self._before_tag(self._text(token))
        if lead is None:
            self._append(token)
            return None
        if self._label_follows():
            self.field_index += len(self.stretch)
            return self._choice(lead, forced=False)
        self._cut(lead)
        return None

    def _tags_are_free(self) -> bool:
        """Return whether tags may stand in the present stretch: the mark of a reply is one."""
        return self.free or self.stretch[-1].kind == "reply"

    def _cut(self, lead: str) -> None:
        """End the answer before a tag that was not asked for.

        ``lead`` is the text that the model said in the same token before it opened the tag.
        """
        # Half a character stays away: its other half will not come.
        rest = lead.replace("\ufffd", "")
        if self.opened:
            # In a transcript with times, the tag was opened by the token before.
            rest = self._text(self.ids.pop())[:-1]
        if rest:
            self.ids += self.template.encode(rest)
        self.opened = False
        self.done = self.cut = True

    def end(self) -> Choice | None:
        """End the present stretch of free text.

        A label that still has to come is forced, otherwise the answer is complete.
        """
        if not self._label_follows():
            self.done = True
            return None
        self.field_index += len(self.stretch)
        return self._choice("", forced=not self.opened)

    def take_label(self, choice: Choice, label: str) -> list[int]:
        """Write the chosen label; return its token ids, which the model has yet to be fed."""
        ids = choice.continuations[label]
        self.ids += ids
        self.opened = bool(self._follow(choice.field))
        self.escaped = False
        self.field_index += 1
        self.done = self.field_index == len(self.task.fields)
        return ids

    def _append(self, token: int) -> None:
        """Add a token of free text, and note what its last character means for the next."""
        self.ids.append(token)
        for char in self._text(token):
            escaped = self.escaped
            self.opened = char == "<" and not escaped
            self.escaped = char == "\\" and not escaped

    def _text(self, token: int) -> str:
        if token in self.template.end_ids:
            return ""
        return token_text(self.template, token)

    def _before_tag(self, text: str) -> str | None:
        """Return what a token's ``text`` says before it opens a label; None when it opens none."""
        # The token before ended with "<": what follows it now says whether that was a time.
        if self.opened and text and not text[0].isdigit():
            return ""

        timed = self.stretch[-1].metric == "timestamps"
        escaped = self.escaped
        for i, char in enumerate(text):
            following = text[i + 1 : i + 2]
            # In a transcript with times, "<" at the token's end stays open: the next one decides.
            may_be_time = timed and (not following or following.isdigit())
            if char == "<" and not escaped and not may_be_time:
                return text[:i]
            escaped = char == "\\" and not escaped
        return None

    # -- the token ids of labels --------------------------------------------------------------

    def _choice(self, lead: str, forced: bool) -> Choice:
        """Return the choice among the labels of the present field.

        ``lead`` is the text that the model said in the same token before it opened the tag.
        """
        field = self.task.fields[self.field_index]
        # Half a character stays away: its other half will not come.
        lead = lead.replace("\ufffd", "")
        continuations = {}
        for label, ids in self.template.label_ids(field).items():
            if self.template.target_tokenization == "whole":
                continuations[label] = self._joined_ids(lead, ids, field)
            else:
                continuations[label] = self._bordered_ids(lead, ids)
        return Choice(field, continuations, forced)

    def _bordered_ids(self, lead: str, ids: list[int]) -> list[int]:
        """Return the ids of a label that starts at a token border.

        After an opened ``<`` it is what is left of them.
        """
        template = self.template
        if not self.opened:
            before = template.encode(lead) if lead else []
            return [*before, *ids]
        if template.decode(ids[:1]) == "<":
            return ids[1:]
        rest = template.decode(ids)[1:]
        return template.encode(rest)

    def _joined_ids(self, lead: str, ids: list[int], field: Field) -> list[int]:
        """Return the ids of a label in an answer that was encoded as one string.

        A token may cross the tag's borders there, so the whole answer is encoded. Where its
        beginning is not token for token what the model said, only the rest is.
        """
        template = self.template
        tag = template.decode(ids)
        if self.opened:
            tag = tag[1:]
        rest = lead + tag + self._follow(field)

        so_far = template.decode(self.ids)
        whole = template.encode(so_far + rest)
        said = len(self.ids)
        if len(whole) > said and whole[:said] == self.ids:
            return whole[said:]
        return template.encode(rest)

    def _follow(self, field: Field) -> str:
        """Return the ``<`` of the next field, or an empty text.

        In answers that were encoded as one string it may share a token with this label's ``>``.
        """
        if self.template.target_tokenization != "whole":
            return ""
        fields = self.task.fields
        following = fields.index(field) + 1
        if following == len(fields):
            return ""
        after = fields[following]
        tagged = after.kind in ("label", "reply") or after.metric == "timestamps"
        return "<" if tagged else ""
