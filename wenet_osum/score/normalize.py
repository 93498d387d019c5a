"""Spelling rules applied to both sides before scoring, by name, and the cutting of text into scored
tokens.

A published number names its normalizer. ``none`` changes nothing but Unicode composition and runs
of spaces. Different rules for different languages are written ``en:whisper_en,zh:wenet_zh``; rules
joined by ``+`` are applied one after the other (``zh_numbers+basic``).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from wenet_osum import lookup
from wenet_osum.score import zh_numbers
from wenet_osum.tasks.base import CJK
from wenet_osum.tasks.lid import CODES, language_code

# Ends a word, though Unicode calls it a format character.
ZERO_WIDTH_SPACE = "\u200b"
# Language → its block: scripts that put no spaces between words, beside Chinese and Japanese.
SCRIPTS = {
    "th": "\u0e00-\u0e7f",
    "lo": "\u0e80-\u0eff",
    "my": "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f",
    "km": "\u1780-\u17ff",
}
KANA = "\u3040-\u30ff\u31f0-\u31ff"


def _marks(block: str) -> str:
    """Return the combining marks of a block that is written as in a character class."""
    found = ""
    for begin in range(0, len(block), 3):
        first, _, last = block[begin : begin + 3]
        for code in range(ord(first), ord(last) + 1):
            character = chr(code)
            if unicodedata.category(character) in ("Mn", "Mc"):
                found += character
    return found


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
# Code-switching: per character and word.
MIXED_LANGUAGES = {"zh-en", "en-zh", "mixed", "cs"}
APOSTROPHES = str.maketrans("’‘ʼ＇", "''''")
# Apostrophes that stand outside of words.
LONE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")
TAG = re.compile(r"<[^<>]*>")
SPACE_IN_HAN = re.compile(rf"(?<={HAN.pattern})\s+(?={HAN.pattern})")
# A symbol of ASCII beside letters and figures; points, commas and apostrophes stay in their word.
ASCII_SYMBOL = re.compile(r"([!-&(-+/:-@\[-`{-~])")
# Whisper's table of British and American spellings, beside its weights.
SPELLINGS = "normalizer.json"


def none(text: str) -> str:
    """Change nothing: case and punctuation count."""
    return text


def basic(text: str) -> str:
    """Normalize any language: full-width forms folded (NFKC), lower case, punctuation and symbols
    dropped.

    Apostrophes inside words stay. Format characters (soft hyphen, joiners, marks of direction)
    leave nothing; a zero width space is a space.
    """
    text = unicodedata.normalize("NFKC", text)
    text = text.lower().translate(APOSTROPHES)
    text = LONE_APOSTROPHE.sub(" ", text)
    return "".join(map(_plain, text))


def _plain(character: str) -> str:
    """Keep a letter, mark or number, drop a format character, make a space of whatever else."""
    if character == "'":
        return character
    category = unicodedata.category(character)
    if category == "Cf" and character != ZERO_WIDTH_SPACE:
        return ""
    return " " if category[0] in "PSC" else character


def whisper_en(text: str) -> str:
    """Normalize English as Whisper's own normalizer does (arXiv 2212.04356, appendix C), without
    its spellings.

    Lower case; brackets, fillers (uh, um, hmm) and punctuation dropped; contractions and titles
    written out; number words and amounts in figures ("twenty one" → "21"). British and American
    spellings stay apart: their table comes with the published models, ``whisper_en@FOLDER`` reads
    it.
    """
    normalize = _whisper_english("")
    return normalize(text)


@lru_cache(maxsize=4)
def _whisper_english(source: str) -> Callable[[str], str]:
    """Make Whisper's normalizer with the spellings in a Whisper's folder or hub name; "": without
    any.

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
        raise ValueError(
            f"normalizer whisper_en@{source}: no {SPELLINGS} there ({told}); "
            "give the folder or hub name of a published Whisper, or whisper_en alone"
        ) from None
    table = Path(path).read_text(encoding="utf-8")
    return EnglishTextNormalizer(json.loads(table))


def wenet_zh(text: str) -> str:
    """Normalize Chinese as recipes of WeNet's kind prepare it: full-width forms folded, upper case,
    tags, punctuation and inner spaces dropped."""
    text = unicodedata.normalize("NFKC", text)
    text = TAG.sub("", text).upper()
    text = text.translate(APOSTROPHES)
    text = "".join(map(_plain, text))
    return SPACE_IN_HAN.sub("", text)


def split_symbols(text: str) -> str:
    """Make each ASCII symbol a token of its own: "$20" counts as two, as in BLEU's tokenization."""
    return ASCII_SYMBOL.sub(r" \1 ", text)


NORMALIZERS = {
    "none": none,
    "basic": basic,
    "whisper_en": whisper_en,
    "wenet_zh": wenet_zh,
    "zh_numbers": zh_numbers.spoken,
    "split_symbols": split_symbols,
}
# A plus sign between two names; one in the path of a Whisper is none.
CHAIN = re.compile(rf"\+(?=(?:{'|'.join(NORMALIZERS)})(?:[@+]|$))")


def get(names: str, lang: str | None = None) -> Callable[[str], str]:
    """Return the normalizer called ``names``, or its part for a language in
    ``en:whisper_en,zh:wenet_zh`` (``none`` for languages not named).

    ``whisper_en@FOLDER`` takes the spellings of a published Whisper, ``whisper_en+basic`` does the
    one and then the other. Raises ValueError for an unknown name.
    """
    table = {}
    if ":" in names:
        for part in names.split(","):
            language, colon, name = part.strip().partition(":")
            if not colon:
                raise ValueError(
                    f"normalizer {names!r}: {part.strip()!r} names no language; "
                    "write each part as LANGUAGE:NAME, e.g. en:whisper_en,zh:wenet_zh"
                )
            table[language] = name
    for chain in table.values() if table else [names]:
        for name in CHAIN.split(chain):
            _check_name(name)

    chosen = table.get(lang or "", "none") if table else names
    steps = [_step(name) for name in CHAIN.split(chosen)]
    if len(steps) == 1:
        return steps[0]

    def all_steps(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return all_steps


def _step(name: str) -> Callable[[str], str]:
    """Return the normalizer of one checked name."""
    known, _, source = name.partition("@")
    if source:
        return _whisper_english(source)
    return NORMALIZERS[known]


def _check_name(name: str) -> None:
    known, at, source = name.partition("@")
    if known not in NORMALIZERS:
        message = lookup.unknown("normalizer", known, [*NORMALIZERS])
        raise ValueError(message)
    if at and (known != "whisper_en" or not source):
        raise ValueError(
            f"normalizer {name!r}: only whisper_en@FOLDER takes the folder of a Whisper"
        )


def language(lang: str | None, text: str) -> str:
    """Return the language that a transcript is scored as: what the list says, else guessed from the
    script.

    Guesses are zh, ja, th, lo, my, km, mixed, en and und.
    """
    if lang:
        code = language_code(lang)
        if code in MIXED_LANGUAGES:
            return code
        first, _, _ = code.partition("-")
        return CODES.get(first, first)
    if re.search(f"[{KANA}]", text):
        return "ja"
    if HAN.search(text):
        return "mixed" if re.search(r"[A-Za-z]", text) else "zh"
    spaceless = re.search(f"[{SPACELESS}]", text)
    if spaceless:
        return _language_of(spaceless[0])
    letters = filter(str.isalpha, text)
    return "en" if all(map(str.isascii, letters)) else "und"


def _language_of(character: str) -> str:
    """Return the language whose script has a character of ``SPACELESS``."""
    for lang, block in SCRIPTS.items():
        if re.match(f"[{block}]", character):
            return lang
    raise AssertionError(f"{character!r} is in no block of SCRIPTS")


def tokens(text: str, lang: str) -> list[str]:
    """Cut a text into scored units: words between spaces; in ``CHARACTER_LANGUAGES`` and mixed text
    characters.

    There words of other scripts stay words. A Thai, Lao, Burmese or Khmer character is a letter
    with its marks (``CLUSTER``).
    """
    text = unicodedata.normalize("NFC", text)
    if lang in CHARACTER_LANGUAGES | MIXED_LANGUAGES:
        return COUNTED.findall(text)
    return text.split()


def prepare(text: str, lang: str, normalizer: str) -> list[str]:
    """Normalize and cut."""
    normalize = get(normalizer, lang)
    return tokens(normalize(text), lang)


def fold(word: str) -> str:
    """Return a word without case and punctuation, for pairing; a word that is nothing but
    punctuation stays."""
    plain = basic(word).split()
    return "".join(plain) or word


def answer_tokens(text: str) -> list[str]:
    """Return the tokens of a reply or of any text in any language: lower case, no punctuation,
    characters and words."""
    plain = basic(text)
    return COUNTED.findall(plain)
