"""Text files of WeNet's kind (``key token token …``) cut into tokens the way its compute-wer.py does.

Per character (``--char=1``): letters without case (Chinese, kana, …) are a token each, anything else runs on to the next space.
Where WeNet cuts into words it should not, we do not: a ``<tag>`` is one token in any script, also with spaces where it is a label of a
task (``<throat clearing>``), letters with accents and alphabets beyond ASCII stay in their word, and the key is whatever stands before
the first space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.score.hypotheses import read_lines

SKIPPED = "!,?、。！，；？：「」︰『』《》"  # dropped where a token would start


def _spaced_labels() -> str:
    """Make the pattern of all labels that are written with spaces, or with ``_`` and ``-`` for them."""
    sets = [field.labels for name in tasks.names() for field in tasks.parse(name).label_fields]
    names = {name for labels in sets for name in labels.names}
    aliases = {text for labels in sets for found in labels.aliases.values() for text in found}
    parts = sorted({tuple(re.split(r"[\s_-]+", text)) for text in names | aliases})
    return "|".join(r"[ _-]+".join(map(re.escape, words)) for words in parts if len(words) > 1)


TAG = rf"<(?:[^<>\s]{{1,62}}|(?i:{_spaced_labels()}))>"


def read_table(path: str | Path) -> tuple[dict[str, str], list[str]]:
    """Text by key, and sentences about repeated lines. Raises ValueError for a missing file, bad UTF-8 or a key with two texts."""
    table: dict[str, str] = {}
    repeated = 0
    for number, line in enumerate(read_lines(path), 1):
        key, _, text = line.strip(" \t\r").replace("\t", " ").partition(" ")
        if not key:
            continue
        if key in table:
            repeated += 1
            if table[key] != text:
                raise ValueError(f"{path} line {number}: key {key!r} stands twice with different text; remove one of the lines")
        table[key] = text
    return table, [f"{path}: {repeated} lines repeated word for word, counted once"] if repeated else []


class Cutter:
    """Cuts texts into tokens. ``texts`` are all texts to come: the patterns are made for the characters they hold."""

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
        self.ignored = {word if case else word.upper() for word in ignored}
        self.split = {w if case else w.upper(): [p if case else p.upper() for p in parts] for w, parts in (split or {}).items()}
        self.pattern = _char_pattern(set("".join(texts))) if char else re.compile(rf"(?:{TAG}|\S)+")

    def __call__(self, text: str) -> list[str]:
        """The tokens that count."""
        found = self.pattern.findall(text if self.case else text.upper())
        if self.ignored:
            found = [t for t in found if t not in self.ignored]
        if self.remove_tags and "<" in text:
            found = [t for t in (re.sub(r"<[^>]*(?:>|$)", "", t) if "<" in t else t for t in found) if t]
        if self.split:
            found = [part for t in found for part in self.split.get(t, [t])]
        return found


def _char_pattern(characters: set[str]) -> re.Pattern:
    """The pattern of a token per character, its classes spelled out for the characters there are, in either case."""
    alphabet = {c for one in characters for c in one + one.upper()} | {chr(c) for c in range(33, 127)}
    kinds = {c: _kind(c) for c in alphabet}
    single, inner = (_class([c for c in alphabet if kinds[c] == kind and c != "<"]) for kind in ("single", "inner"))
    first = _class([c for c in alphabet if kinds[c] in ("inner", "first") and c not in SKIPPED and c != "<"])
    more = rf"(?:[{inner}]+|<(?!{TAG[1:]}))*"  # runs on, but not into a tag
    return re.compile(rf"{TAG}" + (f"|[{single}]" if single else "") + rf"|(?:[{first}]|<){more}")


def _class(characters: list[str]) -> str:
    return "".join(re.escape(c) for c in sorted(characters))


def _kind(c: str) -> str:
    """What a character is to the cutter: a token by itself, part of a word, only the start of one, or nothing."""
    category = unicodedata.category(c)
    if category in ("Zs", "Cn") or c in " \t\r\n":
        return "space"
    if category == "Lo":
        return "single"
    letter = category[0] in "LM" and unicodedata.east_asian_width(c) not in "WF"
    return "inner" if ord(c) < 128 or letter else "first"
