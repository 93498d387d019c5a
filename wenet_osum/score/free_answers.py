"""Find the label in an answer of free text, by the rules that evaluation toolkits use.

``RULES`` has them by name. Each takes the answer, spelling → label for all labels, and letter →
spelling for the options that were offered; it returns the label, or None where the answer names
none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Table = dict[str, str]
Rule = Callable[[str, Table, Table], str | None]
# An option letter alone, or before its text: (B), B. or B: joy.
LETTER = re.compile(r"[\s*\"'(\[]*([A-Za-z])(?:[)\].:,*\"']|\s*$)")
# A capital letter that ends a sentence: The answer is (B).
CLOSING_LETTER = re.compile(r".*[\s*\"'(\[]([A-Z])[)\].*\"']*\s*$", re.DOTALL)


def begins(answer: str, spellings: Table, options: Table) -> str | None:
    """Return the label that an answer begins with, the longest of several; case does not matter.

    A label of several words is also known written as one, as the whole answer.
    """
    answer = answer.strip().lower()
    longest_first = sorted(spellings, key=len, reverse=True)
    for spelling in longest_first:
        name = spelling.strip().lower()
        joined = name.replace(" ", "")
        if answer.startswith(name) or answer == joined:
            return spellings[spelling]
    return None


def letter(answer: str, spellings: Table, options: Table) -> str | None:
    """Return the option whose capital letter is the first character of an answer, or its last but
    one: "B. joy" and "The answer is B."."""
    answer = answer.strip()
    # A text of one character has no last but one.
    for place in (answer[:1], answer[-2:-1]):
        if place in options:
            spelling = options[place]
            return spellings[spelling]
    return None


def named(answer: str, spellings: Table, options: Table) -> str | None:
    """Return the option whose letter stands first or last, else the one label whose words occur.

    None where several occur: of an answer that names two, nobody knows which it means.
    """
    for form in (LETTER, CLOSING_LETTER):
        found = form.match(answer)
        option = found[1].upper() if found else ""
        if option in options:
            spelling = options[option]
            return spellings[spelling]

    occurring = {}
    said = _words(answer)
    for spelling, label in spellings.items():
        words = _words(spelling)
        is_said = f" {words} " in f" {said} "
        if words and is_said:
            occurring[words] = label
    # One inside a longer one that occurs as well is not meant itself: park in car park.
    labels = set()
    for words, label in occurring.items():
        around = [other for other in occurring if words in other]
        if around == [words]:
            labels.add(label)
    return labels.pop() if len(labels) == 1 else None


def _words(text: str) -> str:
    """Return a text's words in lower case, a space between them."""
    spaced = re.sub(r"[\W_]+", " ", text.lower())
    return spaced.strip()


RULES: dict[str, Rule] = {"begins": begins, "letter": letter, "named": named}
