"""Whether, and how often, a word or a part of a context is spoken in a text.

Case and punctuation do not matter. A word of a script with spaces counts as a whole, so that "art"
is not in "start"; Chinese characters count wherever they follow one another. A word may be several:
"Baker Street".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from wenet_osum.context import context_of
from wenet_osum.score.metric_sums import Options, Pair
from wenet_osum.score.normalize import answer_tokens, get, language
from wenet_osum.tasks import Field


class Texts(NamedTuple):
    """Both sides of an utterance as tokens."""

    reference: list[str]
    hypothesis: list[str]
    # makes such tokens of what the model was told
    tokens: Callable[[str], list[str]]


def told(pairs: list[Pair], slot: str) -> list[Pair]:
    """Return the pairs whose reference has a context of this kind, such as ``hotwords``."""
    found = []
    for pair in pairs:
        context = context_of(pair.reference)
        if slot in context.told:
            found.append(pair)
    return found


def both_sides(field: Field, pair: Pair, options: Options) -> Texts:
    """Return what is spoken and what is answered as tokens, after the normalizer, which a context
    has to go through as well: "Mr." may be "mister" on both sides."""
    reference = field.spoken(pair.reference)
    hypothesis = ""
    if pair.answered:
        hypothesis = pair.hypothesis.transcript or ""
    lang = language(pair.reference.lang, reference)
    normalize = get(options.normalizer, lang)

    def tokens(text: str) -> list[str]:
        normal = normalize(text)
        return answer_tokens(normal)

    return Texts(tokens(reference), tokens(hypothesis), tokens)


def occurrences(word: Sequence[str], text: Sequence[str]) -> int:
    """Count the places of a word in a text that do not overlap; both as ``answer_tokens``."""
    size = len(word)
    wanted = list(word)
    found = place = 0
    while size and place + size <= len(text):
        if list(text[place : place + size]) == wanted:
            found += 1
            place += size
        else:
            place += 1
    return found


def is_spoken(word: str, text: str) -> bool:
    """Tell whether a word stands in a text."""
    return occurrences(answer_tokens(word), answer_tokens(text)) > 0


def runs(tokens: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Return the different runs of ``size`` tokens."""
    found = set()
    for begin in range(len(tokens) - size + 1):
        run = tuple(tokens[begin : begin + size])
        found.add(run)
    return found
