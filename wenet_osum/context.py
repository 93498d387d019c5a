"""What is known of a recording before it is heard: words that may occur, and what was said before.

A manifest holds both on the top level of its lines, ``hotwords`` and ``previous``. They lie in an
utterance's ``extra``, so every layout of a shard keeps them. A prompt tells them to the model
(text/slots.py).
"""

from __future__ import annotations

import dataclasses
import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from wenet_osum.records import Utterance

HOTWORDS, PREVIOUS = "hotwords", "previous"
SLOTS = (HOTWORDS, PREVIOUS)
# Characters of the text before that a prompt tells: its last ones, from the beginning of a word on.
LONGEST_PREVIOUS = 200
# Characters of a wrong value that a message shows.
SHOWN = 80
# What stands between words that are written in a line.
BETWEEN = re.compile(r"[,，、;；\n]")


class Context(NamedTuple):
    """What a prompt tells of a recording; what is empty is not told."""

    hotwords: tuple[str, ...] = ()
    previous: str = ""

    @property
    def told(self) -> list[str]:
        """Return the names of the slots that hold something."""
        found = []
        for name in SLOTS:
            if getattr(self, name):
                found.append(name)
        return found

    def over(self, other: Context) -> Context:
        """Return it with what ``other`` holds where it is empty."""
        return Context(
            self.hotwords or other.hotwords,
            self.previous or other.previous,
        )


NOTHING = Context()


def context_of(utterance: Utterance) -> Context:
    """Return what an utterance's manifest says.

    Raises ValueError for hotwords that are no list of texts, and for a text before that is none.
    """
    words = utterance.extra.get(HOTWORDS)
    previous = utterance.extra.get(PREVIOUS)
    hotwords: list[str] = []
    before = ""
    try:
        if words:
            hotwords = words_of(words)
        if previous:
            before = end_of(previous)
    except ValueError as error:
        raise ValueError(f"{utterance.key!r}: {error}") from None
    return Context(tuple(hotwords), before)


def with_context(utterance: Utterance, context: Context) -> Utterance:
    """Copy an utterance with ``context`` in the place of its own; what is empty takes it out."""
    extra = dict(utterance.extra)
    for name in SLOTS:
        extra.pop(name, None)
        value = getattr(context, name)
        if value:
            extra[name] = value
    return dataclasses.replace(utterance, extra=extra)


def words_of(given: Any) -> list[str]:
    """Return each of the given words once, in their order, with single spaces.

    They are a list of texts, or one text with commas or line breaks between them. Raises ValueError
    for anything else.
    """
    fault = f"hotwords must be a list of words, got {_short(given)}"
    listed = given
    if isinstance(given, str):
        listed = BETWEEN.split(given)
    if not isinstance(listed, (list, tuple)):
        raise ValueError(fault)
    words = {}
    for word in listed:
        if not isinstance(word, str):
            raise ValueError(fault)
        single = " ".join(word.split())
        if single:
            words[single] = None
    return [*words]


def _short(given: Any) -> str:
    """Show the beginning of a value."""
    text = str(given)
    return repr(text[:SHOWN])


def _is_file(path: Path) -> bool:
    """Tell whether there is such a file; what is too long for a name of one is none."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def words_given(text: str) -> list[str]:
    """Read words of a command line: ``Anna,Baker Street``, or the file that lists them.

    Raises ValueError for what looks like a file and is none.
    """
    path = Path(text)
    try:
        if _is_file(path):
            lines = path.read_text(encoding="utf-8")
            return words_of(lines)
    except (OSError, UnicodeDecodeError) as error:
        named = _short(text)
        raise ValueError(f"hotwords {named} cannot be read: {error}") from None
    if path.suffix == ".txt":
        named = _short(text)
        raise ValueError(f"hotwords {named}: there is no such file; check the path")
    return words_of(text)


def end_of(previous: Any) -> str:
    """Return the last ``LONGEST_PREVIOUS`` characters of a text, from the beginning of a word on.

    Raises ValueError for what is no text.
    """
    if not isinstance(previous, str):
        raise ValueError(f"previous must be a text, got {_short(previous)}")
    text = " ".join(previous.split())
    left_out = text[:-LONGEST_PREVIOUS]
    kept = text[-LONGEST_PREVIOUS:]
    first, space, rest = kept.partition(" ")
    # A word that the cut has gone through is left out; Chinese has no spaces to tell it by.
    is_cut = left_out and not left_out.endswith(" ")
    if is_cut and space and first.isascii():
        return rest
    return kept.strip()
