"""Slots of a prompt: ``{hotwords}`` and ``{previous}``.

A wording may hold them anywhere: ``Words that may occur: {hotwords}. Write down what is said.``
The whole sentence of a slot is left out where there is nothing to put in, so that an empty slot
leaves no trace. A model that was trained with a slot is told it also by wordings without one, in a
sentence before them.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from wenet_osum.context import HOTWORDS, NOTHING, PREVIOUS, SLOTS, Context

SLOT = re.compile(r"\{(hotwords|previous)\}")
# A sentence with the white space behind it. A point inside a number or an address ends none.
SENTENCE = re.compile(r".*?(?:[。！？\n]+|[.!?]+(?=\s|$)|$)\s*", re.DOTALL)
HAN = re.compile(r"[\u3400-\u9fff]")
# Language of a wording → the sentence of each slot that it has not itself.
SENTENCES = {
    "zh": {PREVIOUS: "上文是：“{previous}”。", HOTWORDS: "可能出现的词：{hotwords}。"},
    "en": {
        PREVIOUS: 'Before this, it was said: "{previous}". ',
        HOTWORDS: "These words may occur: {hotwords}. ",
    },
}
BETWEEN_WORDS = {"zh": "、", "en": ", "}


def slots_in(wording: str) -> set[str]:
    """Return the names of the slots that a wording holds."""
    return set(SLOT.findall(wording))


def fill(wording: str, context: Context = NOTHING, known: Collection[str] = ()) -> str:
    """Put a context into a wording.

    ``known`` are the slots that the model was trained with: they get a sentence of their own where
    the wording has none. A wording without slots stays as it is where nothing is told.
    """
    given = wording
    lang = "zh" if HAN.search(wording) else "en"
    own = slots_in(wording)
    told = context.told
    # What was said before comes first, as it did.
    for name in (HOTWORDS, PREVIOUS):
        if name in known and name in told and name not in own:
            wording = SENTENCES[lang][name] + wording

    empty = own.difference(told)
    if empty:
        wording = _without(wording, empty)
    values = {
        HOTWORDS: BETWEEN_WORDS[lang].join(context.hotwords),
        PREVIOUS: context.previous,
    }
    filled = SLOT.sub(lambda slot: values[slot[1]], wording)
    # A sentence that stood last, or that stands alone, leaves a space behind.
    return filled if filled == given else filled.rstrip()


def _without(wording: str, slots: set[str]) -> str:
    """Leave out the sentences of some slots."""
    kept = []
    for sentence in SENTENCE.findall(wording):
        if not slots & slots_in(sentence):
            kept.append(sentence)
    return "".join(kept)


def check(wording: str) -> None:
    """Raise ValueError for a wording that says nothing where nothing is told."""
    if slots_in(wording) and not fill(wording):
        slots = " and ".join(f"{{{name}}}" for name in SLOTS)
        raise ValueError(
            f"prompt {wording[:80]!r} says nothing without a context; "
            f"keep {slots} in sentences of their own, which are left out when empty"
        )
