"""Spelling rules applied to both sides before scoring, by name, and the cutting of text into scored tokens.

A published number names its normalizer. ``none`` changes nothing but Unicode composition and runs of spaces. Different rules
for different languages are written ``en:whisper_en,zh:wenet_zh``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from wenet_osum import lookup
from wenet_osum.tasks.base import CJK

ZERO_WIDTH_SPACE = "\u200b"  # ends a word, though Unicode calls it a format character
# Language → its block: scripts that put no spaces between words, beside Chinese and Japanese.
SCRIPTS = {
    "th": "\u0e00-\u0e7f",
    "lo": "\u0e80-\u0eff",
    "my": "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f",
    "km": "\u1780-\u17ff",
}
KANA = "\u3040-\u30ff\u31f0-\u31ff"


def _marks(block: str) -> str:
    """The combining marks of a block written as in a character class."""
    ends = [block[i : i + 3] for i in range(0, len(block), 3)]
    found = [chr(c) for first, _, last in ends for c in range(ord(first), ord(last) + 1)]
    return "".join(c for c in found if unicodedata.category(c) in ("Mn", "Mc"))


SPACELESS = "".join(SCRIPTS.values())
MARKS = "".join(map(_marks, SCRIPTS.values()))
# Burmese virama and Khmer coeng: the letter after one is written below the letter before.
STACKERS = "\u1039\u17d2"
# A letter with its vowel signs, tones and the letters stacked below it, as it stands on paper.
CLUSTER = rf"[{SPACELESS}](?:[{STACKERS}][{SPACELESS}]|[{MARKS}])*"
# A character of Chinese or Japanese, or a word.
MIXED = re.compile(rf"{CJK.pattern}|(?:(?!{CJK.pattern})\S)+")
# What is counted in scoring: a character, a cluster, or a word of any other script.
OTHERS = rf"(?:(?!{CJK.pattern})[^\s{ZERO_WIDTH_SPACE}{SPACELESS}])+"
COUNTED = re.compile(f"{CJK.pattern}|{CLUSTER}|{OTHERS}")
HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# Scored per character, foreign words in them per word.
CHARACTER_LANGUAGES = {"zh", "yue", "nan", "wuu", "hak", "ja", *SCRIPTS}
MIXED_LANGUAGES = {"zh-en", "en-zh", "mixed", "cs"}  # code-switching: per character and word
APOSTROPHES = str.maketrans("’‘ʼ＇", "''''")
SPELLINGS = "normalizer.json"  # Whisper's table of British and American spellings, beside its weights


def none(text: str) -> str:
    """Nothing is changed: case and punctuation count."""
    return text


def basic(text: str) -> str:
    """Any language: full-width forms folded (NFKC), lower case, punctuation and symbols dropped.

    Apostrophes inside words stay. Format characters (soft hyphen, joiners, marks of direction) leave
    nothing; a zero width space is a space.
    """
    text = unicodedata.normalize("NFKC", text).lower().translate(APOSTROPHES)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    return "".join(map(_plain, text))


def _plain(c: str) -> str:
    """Keep a letter, mark or number, drop a format character, make a space of whatever else."""
    category = unicodedata.category(c)
    if category == "Cf" and c != ZERO_WIDTH_SPACE:
        return ""
    return c if c == "'" or category[0] not in "PSC" else " "


def whisper_en(text: str) -> str:
    """English as Whisper's own normalizer writes it (arXiv 2212.04356, appendix C), without its spellings.

    Lower case; brackets, fillers (uh, um, hmm) and punctuation dropped; contractions and titles written
    out; number words and amounts in figures ("twenty one" → "21"). British and American spellings stay
    apart: their table comes with the published models, ``whisper_en@FOLDER`` reads it.
    """
    return _whisper_english("")(text)


@lru_cache(maxsize=4)
def _whisper_english(source: str) -> Callable[[str], str]:
    """Make Whisper's normalizer with the spellings in a Whisper's folder or hub name; "": without any.

    Raises ValueError where there is no such table.
    """
    # Imported here: it takes seconds, and only scores of English speech need it.
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
    from transformers.utils import cached_file

    if not source:
        return EnglishTextNormalizer({})
    try:
        path = cached_file(source, SPELLINGS)
    except OSError as error:
        told = " ".join(str(error).split())
        rule = "give the folder or hub name of a published Whisper, or whisper_en alone"
        raise ValueError(f"normalizer whisper_en@{source}: no {SPELLINGS} there ({told}); {rule}") from None
    return EnglishTextNormalizer(json.loads(Path(path).read_text(encoding="utf-8")))


def wenet_zh(text: str) -> str:
    """Chinese as recipes of WeNet's kind prepare it: full-width forms folded, upper case, tags, punctuation and inner spaces dropped."""
    text = re.sub(r"<[^<>]*>", "", unicodedata.normalize("NFKC", text)).upper().translate(APOSTROPHES)
    text = "".join(map(_plain, text))
    return re.sub(rf"(?<={HAN.pattern})\s+(?={HAN.pattern})", "", text)


NORMALIZERS = {f.__name__: f for f in (none, basic, whisper_en, wenet_zh)}


def get(names: str, lang: str | None = None) -> Callable[[str], str]:
    """The normalizer called ``names``, or its part for a language in ``en:whisper_en,zh:wenet_zh`` (``none`` for languages not named).

    ``whisper_en@FOLDER`` takes the spellings of a published Whisper. Raises ValueError for an unknown name.
    """
    table = dict(part.strip().split(":", 1) for part in names.split(",")) if ":" in names else {}
    for name in table.values() if table else [names]:
        _check_name(name)
    name = table.get(lang or "", "none") if table else names
    known, _, source = name.partition("@")
    return _whisper_english(source) if source else NORMALIZERS[known]


def _check_name(name: str) -> None:
    known, at, source = name.partition("@")
    if known not in NORMALIZERS:
        raise ValueError(lookup.unknown("normalizer", known, [*NORMALIZERS]))
    if at and (known != whisper_en.__name__ or not source):
        raise ValueError(f"normalizer {name!r}: only whisper_en@FOLDER takes the folder of a Whisper")


def language(lang: str | None, text: str) -> str:
    """The language a transcript is scored as: what the list says, else guessed from the script.

    Guesses are zh, ja, th, lo, my, km, mixed, en and und.
    """
    if lang:
        lang = lang.strip().lower().replace("_", "-")
        return lang if lang in MIXED_LANGUAGES else lang.split("-")[0]
    if re.search(f"[{KANA}]", text):
        return "ja"
    if HAN.search(text):
        return "mixed" if re.search(r"[A-Za-z]", text) else "zh"
    spaceless = re.search(f"[{SPACELESS}]", text)
    if spaceless:
        return next(lang for lang, block in SCRIPTS.items() if re.match(f"[{block}]", spaceless[0]))
    return "en" if text.isascii() else "und"


def tokens(text: str, lang: str) -> list[str]:
    """Scored units: words between spaces; in ``CHARACTER_LANGUAGES`` and mixed text characters.

    There words of other scripts stay words. A Thai, Lao, Burmese or Khmer character is a letter with its marks (``CLUSTER``).
    """
    text = unicodedata.normalize("NFC", text)
    return COUNTED.findall(text) if lang in CHARACTER_LANGUAGES | MIXED_LANGUAGES else text.split()


def prepare(text: str, lang: str, normalizer: str) -> list[str]:
    """Normalize and cut."""
    return tokens(get(normalizer, lang)(text), lang)


def fold(word: str) -> str:
    """A word without case and punctuation, for pairing; a word that is nothing but punctuation stays."""
    return "".join(basic(word).split()) or word


def answer_tokens(text: str) -> list[str]:
    """Tokens of a reply or of any text in any language: lower case, no punctuation, characters and words."""
    return COUNTED.findall(basic(text))
