"""Which words of a text that is heard again and again are settled.

Local agreement (Liu et al., 2020, "Low-Latency Sequence-to-Sequence Speech Recognition and
Translation by Partial Hypothesis Selection"; LocalAgreement-2 of Macháček et al., 2023, arXiv
2307.14743): the words that two hypotheses in a row begin with are settled, the others are held
back. A word is what stands between spaces, or one Chinese or Japanese character.
"""

from __future__ import annotations

from collections.abc import Callable

from wenet_osum.decode.overlap import TOKEN
from wenet_osum.tasks.base import join_words

# What stands for bytes that are no whole character.
HALF = "\ufffd"
# (a beginning of a text, the text) → whether it ends at a border of the text's tokens.
Border = Callable[[str, str], bool]


def word_ends(text: str) -> list[int]:
    """Return the character behind each word of a text."""
    words = TOKEN.finditer(text)
    return [word.end() for word in words]


def agreed(before: str, now: str, border: Border | None = None) -> str:
    """Return the beginning of ``now`` whose words ``before`` begins with too.

    With ``border`` it ends where a token does, so that the model can go on behind it as in
    training.
    """
    words = TOKEN.findall(before)
    end = 0
    settled = [0]
    for number, word in enumerate(TOKEN.finditer(now)):
        if words[number : number + 1] != [word[0]]:
            break
        # The rest of the character is still to come.
        rest = now[word.end() :]
        if word[0].endswith(HALF) and not rest.strip():
            break
        end = word.end()
        settled.append(end)

    while border and end and not border(now[:end], now):
        settled.pop()
        end = settled[-1]
    return now[:end]


def kept_to(beginning: str, text: str) -> str:
    """Return ``text`` behind ``beginning``, which stays whatever the text makes of it.

    Where the text begins otherwise, its words take the places behind as many of the beginning.
    """
    if text.startswith(beginning):
        return text
    said = len(word_ends(beginning))
    ends = word_ends(text)
    if said >= len(ends):
        return beginning
    rest = text[ends[said - 1] :] if said else text
    return join_words([beginning, rest.strip()])


def without_last_word(text: str) -> str:
    """Return a text up to the end of its last word but one."""
    ends = word_ends(text)
    if len(ends) < 2:
        return ""
    kept = ends[-2]
    return text[:kept]
