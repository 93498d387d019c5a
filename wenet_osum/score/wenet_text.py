"""Text files of WeNet's kind (``key token token …``), cut into tokens as its compute-wer.py does.

Per character (``--char=1``): letters without case (Chinese, kana, …) are a token each, anything
else runs on to the next space. Where WeNet cuts into words it should not, we do not: a ``<tag>`` is
one token in any script, also with spaces where it is a label of a task (``<throat clearing>``),
letters with accents and alphabets beyond ASCII stay in their word, and the key is whatever stands
before the first space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.score.hypotheses import read_lines

# Dropped where a token would start.
SKIPPED = "!,?、。！，；？：「」︰『』《》"
# A tag inside a token, or the beginning of one.
INNER_TAG = re.compile(r"<[^>]*(?:>|$)")


def _spaced_labels() -> str:
    """Make the pattern of all labels that are written with spaces, or ``_`` and ``-`` for them."""
    spellings: set[str] = set()
    for name in tasks.names():
        for field in tasks.parse(name).label_fields:
            spellings.update(field.labels.names)
            for aliases in field.labels.aliases.values():
                spellings.update(aliases)

    split = {tuple(re.split(r"[\s_-]+", text)) for text in spellings}
    patterns = []
    for words in sorted(split):
        if len(words) > 1:
            pattern = r"[ _-]+".join(map(re.escape, words))
            patterns.append(pattern)
    return "|".join(patterns)


TAG = rf"<(?:[^<>\s]{{1,62}}|(?i:{_spaced_labels()}))>"


def read_table(path: str | Path) -> tuple[dict[str, str], list[str]]:
    """Read text by key, and sentences about repeated lines.

    Raises ValueError for a missing file, bad UTF-8 or a key with two texts.
    """
    table: dict[str, str] = {}
    repeated = 0
    for number, line in enumerate(read_lines(path), 1):
        spaced = line.strip(" \t\r").replace("\t", " ")
        key, _, text = spaced.partition(" ")
        if not key:
            continue
        if key in table:
            repeated += 1
            if table[key] != text:
                raise ValueError(
                    f"{path} line {number}: key {key!r} stands twice with different text; "
                    "remove one of the lines"
                )
        table[key] = text

    odd = []
    if repeated:
        odd.append(f"{path}: {repeated} lines repeated word for word, counted once")
    return table, odd


class Cutter:
    """Cuts texts into tokens.

    ``texts`` are all texts to come: the patterns are made for the characters they hold.
    """

    def __init__(
        self,
        texts: Iterable[str],
        char: bool = False,
        case: bool = False,
        remove_tags: bool = True,
        ignored: Iterable[str] = (),
        split: dict[str, list[str]] | None = None,
    ) -> None:
        self.case, self.remove_tags = case, remove_tags
        self.ignored = {self._cased(word) for word in ignored}
        self.split: dict[str, list[str]] = {}
        for word, parts in (split or {}).items():
            self.split[self._cased(word)] = [self._cased(part) for part in parts]
        if char:
            characters = set("".join(texts))
            self.pattern = _char_pattern(characters)
        else:
            self.pattern = re.compile(rf"(?:{TAG}|\S)+")

    def _cased(self, text: str) -> str:
        """Return the text as it is compared: in upper case, unless case counts."""
        return text if self.case else text.upper()

    def __call__(self, text: str) -> list[str]:
        """Return the tokens that count."""
        cased = self._cased(text)
        kept = []
        for token in self.pattern.findall(cased):
            if token in self.ignored:
                continue
            # Without its tags, a token may be nothing at all.
            if self.remove_tags:
                token = INNER_TAG.sub("", token)
            if not token:
                continue
            parts = self.split.get(token)
            if parts is None:
                kept.append(token)
            else:
                kept += parts
        return kept


def _char_pattern(characters: set[str]) -> re.Pattern:
    """Make the pattern of a token per character.

    Its classes are spelled out for the characters there are, in either case.
    """
    alphabet = {chr(code) for code in range(33, 127)}
    for character in characters:
        alphabet.update(character, character.upper())
    alphabet.discard("<")

    single = _class(alphabet, "single")
    inner = _class(alphabet, "inner")
    may_begin = alphabet.difference(SKIPPED)
    first = _class(may_begin, "inner", "first")

    # A word runs on, but not into a tag.
    more = rf"(?:[{inner}]+|<(?!{TAG[1:]}))*"
    word = rf"(?:[{first}]|<){more}"
    if single:
        return re.compile(rf"{TAG}|[{single}]|{word}")
    return re.compile(rf"{TAG}|{word}")


def _class(characters: set[str], *kinds: str) -> str:
    """Write the characters of some kinds as they stand in a character class."""
    chosen = [c for c in sorted(characters) if _kind(c) in kinds]
    return "".join(map(re.escape, chosen))


def _kind(c: str) -> str:
    """Say what a character is to the cutter.

    It is a token by itself (single), part of a word (inner), only the start of one (first), or
    nothing (space).
    """
    category = unicodedata.category(c)
    if category in ("Zs", "Cn") or c in " \t\r\n":
        return "space"
    if category == "Lo":
        return "single"
    letter = category[0] in "LM" and unicodedata.east_asian_width(c) not in "WF"
    return "inner" if ord(c) < 128 or letter else "first"
