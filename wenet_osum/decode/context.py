"""What each utterance is told before it is heard: what the run gives, else what its list says."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wenet_osum.context import NOTHING, Context, context_of, end_of, with_context, words_of
from wenet_osum.dataset.context import read
from wenet_osum.decode.modes import CTC_MODES
from wenet_osum.decode.options import DecodeOptions

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.text.template import Template


@dataclass(frozen=True)
class Telling:
    """What a run tells the model beside the task."""

    # in the place of what each utterance has
    given: Context = NOTHING
    # tell nothing, whatever an utterance has
    silent: bool = False

    def giving(self, hotwords: Sequence[str] | None, previous: str | None) -> Telling:
        """Return one that gives another context; None leaves what it has.

        Raises ValueError for what is no context.
        """
        words, before = self.given
        if hotwords is not None:
            words = tuple(words_of(hotwords))
        if previous is not None:
            before = end_of(previous)
        return dataclasses.replace(self, given=Context(words, before))

    def slots(self, template: Template, wording: str | None) -> list[str]:
        """Name what the model can be told with a wording; None: whatever its own prompt is."""
        return [] if self.silent else template.slots(wording or "")

    def check(self, template: Template, wording: str, options: DecodeOptions) -> None:
        """Raise ValueError where what is given would not reach a model asked with a wording."""
        told = self.given.told
        if told and options.mode in CTC_MODES:
            names = " and ".join(told)
            raise ValueError(f"mode {options.mode} reads no prompt; leave {names} out")
        able = template.slots(wording)
        for name in told:
            if name not in able:
                raise ValueError(
                    f"the model was not trained with {name}, and its prompt has no {{{name}}}; "
                    "give a prompt with a sentence for it, such as "
                    f"'Known: {{{name}}}. Write down what is said.'"
                )

    def told(
        self, utterance: Utterance, template: Template, wording: str, counts: Counter
    ) -> Utterance:
        """Return an utterance with what its prompt tells.

        What its list says and the model cannot be told is counted. Raises Drop for a context of
        the list that cannot be read.
        """
        if self.silent:
            return with_context(utterance, NOTHING)
        context = self.given.over(read(utterance))
        if not context.told:
            return utterance
        able = template.slots(wording)
        for name in context.told:
            if name not in able:
                counts[f"{name} not told: the model was not trained with it"] += 1
        return with_context(utterance, context)


def of_later_piece(utterance: Utterance) -> Utterance:
    """Return an utterance as it stands before a later piece of it: other text was said before."""
    words = context_of(utterance).hotwords
    return with_context(utterance, Context(words))
