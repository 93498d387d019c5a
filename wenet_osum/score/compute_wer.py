"""Implement tools/compute-wer.py: WeNet's flags, its blocks per utterance and its last lines, for
scripts that parse them.

Unlike WeNet's: a missing hypothesis counts as deletions, unless ``--missing=skip``. The rate
and N are the same on the same input; the split into S, D and I may differ where alignments tie (see
align.py).
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TextIO

from rapidfuzz.distance import Levenshtein

from wenet_osum.score.hypotheses import read_lines
from wenet_osum.score.wenet_text import Cutter, read_table

# First word of a character's Unicode name → group.
WORDS = {"DIGIT": "Number", "CJK": "Mandarin", "LATIN": "English", "HIRAGANA": "Japanese"}
OTHER = "Other"
# Radicals, strokes and kana signs begin with the same word, but do not belong to the group.
LETTERS = (
    "DIGIT",
    "CJK UNIFIED IDEOGRAPH",
    "CJK COMPATIBILITY IDEOGRAPH",
    "LATIN CAPITAL LETTER",
    "LATIN SMALL LETTER",
    "HIRAGANA LETTER",
)
# Do not decide the group of their word.
JOINERS = frozenset("&'@℃=.-_#+;")
RULE = "=" * 75
SWITCHES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


# -- the command line -------------------------------------------------------------------------


def switch(text: str) -> bool:
    """Read 1/0, true/false or yes/no; for anything else argparse names the flag."""
    value = SWITCHES.get(text.lower())
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 or 0 (or true, false)")
    return value


def level(text: str) -> int:
    """Read a verbosity: a number, or a switch."""
    if text.isdecimal():
        return int(text)
    return int(switch(text))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="compute-wer.py",
        description="Word or character error rate of key-text files.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("ref", help="references, 'key text' per line")
    add("hyp", help="hypotheses, 'key text' per line")
    add(
        "--char",
        "--tochar",
        type=switch,
        default=False,
        help="1: count characters (words of cased scripts stay words)",
    )
    add(
        "--v",
        type=level,
        default=1,
        help="0: last line only, 1: a block per utterance, 2: with keys in every line",
    )
    add("--cs", type=switch, default=False, help="1: case counts")
    add(
        "--rt",
        type=switch,
        default=True,
        help="0: count <tags> as tokens instead of removing them",
    )
    add("--ig", metavar="FILE", help="words to leave out, one per line")
    add(
        "--splitfile",
        metavar="FILE",
        help="'word part part …' per line: words to be cut before scoring",
    )
    add(
        "--cluster",
        metavar="FILE",
        help="groups of words, <Name> word … </Name>, to be counted by themselves",
    )
    add("--maxw", type=int, default=sys.maxsize, help="most tokens in a printed line")
    add(
        "--padding-symbol",
        choices=["space", "underline"],
        default="space",
        help="fills up the shorter of two tokens",
    )
    add(
        "--missing",
        choices=["delete", "skip"],
        default="delete",
        help="utterances without hypothesis: all deleted, or left out",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        ref, odd = read_table(args.ref)
        hyp, also_odd = read_table(args.hyp)
        cut = make_cutter(args, [*ref.values(), *hyp.values()])
        groups = read_groups(args.cluster) if args.cluster else []
    except ValueError as error:
        _complain(str(error))
        return 1

    for sentence in [*odd, *also_odd, *compare_keys(ref, hyp, args.missing)]:
        _complain(sentence)
    tally = Tally()
    for key, text in ref.items():
        if key not in hyp and args.missing != "delete":
            continue
        answer = hyp.get(key, "")
        pairing = Pairing.of(cut(text), cut(answer))
        tally.add(pairing)
        if args.v:
            sys.stdout.write(_block(key, pairing, args))
    _close(tally, groups, args, sys.stdout)
    return 0


def _complain(sentence: str) -> None:
    print(f"compute-wer.py: {sentence}", file=sys.stderr)


def make_cutter(args: argparse.Namespace, texts: list[str]) -> Cutter:
    """Return the cutter that the flags ask for. Raises ValueError for unreadable word files."""
    ignored = []
    for line in read_lines(args.ig) if args.ig else []:
        word = line.strip()
        if word:
            ignored.append(word)

    # The first word of a line is cut into the others.
    parts = {}
    for line in read_lines(args.splitfile) if args.splitfile else []:
        words = line.split()
        if len(words) > 1:
            parts[words[0]] = words[1:]
    return Cutter(texts, args.char, args.cs, args.rt, ignored, parts)


def read_groups(path: str) -> list[tuple[str, list[str]]]:
    """Read the groups of a --cluster file. Raises ValueError for one that is not closed."""
    text = " ".join(read_lines(path))
    groups, name, words = [], "", []
    for token in text.split():
        opens = token.startswith("<") and token.endswith(">")
        if name and token == f"</{name}>":
            groups.append((name, words))
            name, words = "", []
        elif opens and not name:
            name = token[1:-1]
        else:
            words.append(token)
    if name:
        raise ValueError(
            f"{path}: group <{name}> is not closed; write </{name}> after its words"
        )
    return groups


def compare_keys(ref: dict[str, str], hyp: dict[str, str], missing: str) -> list[str]:
    """Return sentences about keys that stand in one file only."""
    found = []
    absent = [key for key in ref if key not in hyp]
    if absent:
        how = "counted as deletions" if missing == "delete" else "skipped"
        found.append(
            f"{len(absent)} of {len(ref)} references have no hypothesis, {how} "
            f"(first: {absent[0]})"
        )
    extra = [key for key in hyp if key not in ref]
    if extra:
        found.append(
            f"{len(extra)} hypotheses have no reference, left out (first: {extra[0]})"
        )
    return found


# -- one utterance ----------------------------------------------------------------------------


@dataclass
class Pairing:
    """The tokens of a reference and a hypothesis, aligned."""

    # Tokens by what became of them.
    correct: list[str] = field(default_factory=list)
    substituted: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    inserted: list[str] = field(default_factory=list)
    # Both sides token for token, "" for nothing.
    left: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, lab: list[str], rec: list[str]) -> Pairing:
        """Align the tokens of a reference and a hypothesis."""
        pairing = cls()
        for tag, first, last, begin, end in Levenshtein.opcodes(lab, rec):
            expected, answered = lab[first:last], rec[begin:end]
            if tag == "equal":
                pairing.correct += expected
            elif tag == "replace":
                pairing.substituted += expected
            elif tag == "delete":
                pairing.deleted += expected
            else:
                pairing.inserted += answered
            pairing.left += expected or [""] * len(answered)
            pairing.right += answered or [""] * len(expected)
        return pairing

    def rate(self) -> str:
        """Return its rate and counts in WeNet's words."""
        return rate_line(
            len(self.correct),
            len(self.substituted),
            len(self.deleted),
            len(self.inserted),
        )


def rate_line(correct: int, substitutions: int, deletions: int, insertions: int) -> str:
    """Return a rate and its counts in WeNet's words; without reference tokens the rate is 0."""
    total = correct + substitutions + deletions
    errors = substitutions + deletions + insertions
    rate = 100.0 * errors / total if total else 0.0
    return f"{rate:4.2f} % N={total} C={correct} S={substitutions} D={deletions} I={insertions}"


def _block(key: str, pairing: Pairing, args: argparse.Namespace) -> str:
    """Return what is printed of an utterance: its rate, and its tokens under one another."""
    left, right = pairing.left, pairing.right
    if left != right:
        fill = " " if args.padding_symbol == "space" else "_"
        left, right = _padded(left, right, fill)
    name = f"({key})" if args.v > 1 else ""
    text = f"\nutt: {key}\nWER: {pairing.rate()}\n"
    for begin in range(0, len(left), args.maxw):
        end = begin + args.maxw
        lab = " ".join(left[begin:end])
        rec = " ".join(right[begin:end])
        text += f"lab{name}: {lab} \nrec{name}: {rec} \n\n"
    return text


def _padded(left: list[str], right: list[str], fill: str) -> tuple[list[str], list[str]]:
    """Pad each token to the wider of its pair."""
    lab, rec = [], []
    for expected, answered in zip(left, right, strict=True):
        columns = width(expected), width(answered)
        widest = max(columns)
        lab.append(expected + fill * (widest - columns[0]))
        rec.append(answered + fill * (widest - columns[1]))
    return lab, rec


@cache
def width(token: str) -> int:
    """Return the columns that a token takes on a terminal."""
    if token.isascii():
        return len(token)
    wide = sum(unicodedata.east_asian_width(character) in "AFW" for character in token)
    return len(token) + wide


# -- all of them ------------------------------------------------------------------------------


class Tally:
    """Outcomes by token."""

    def __init__(self) -> None:
        self.correct: Counter[str] = Counter()
        self.substituted: Counter[str] = Counter()
        self.deleted: Counter[str] = Counter()
        self.inserted: Counter[str] = Counter()

    def add(self, pairing: Pairing) -> None:
        """Count an utterance."""
        self.correct.update(pairing.correct)
        self.substituted.update(pairing.substituted)
        self.deleted.update(pairing.deleted)
        self.inserted.update(pairing.inserted)

    def outcomes(self) -> tuple[Counter[str], ...]:
        """Return the counts in the order of ``rate_line``."""
        return self.correct, self.substituted, self.deleted, self.inserted

    def line(self, words: Sequence[str] | None = None) -> str:
        """Return ``x.xx % N= C= S= D= I=`` over all tokens or the given ones."""
        sums = []
        for outcome in self.outcomes():
            counted = outcome.values() if words is None else map(outcome.get, words)
            sums.append(sum(times for times in counted if times))
        return rate_line(*sums)

    def words(self) -> set[str]:
        """Return every token seen."""
        return set().union(*self.outcomes())


def _close(
    tally: Tally, groups: list[tuple[str, list[str]]], args: argparse.Namespace, out: TextIO
) -> None:
    """Write the last lines: overall, by script, by the user's groups."""
    if args.v:
        out.write(f"{RULE}\n\n")
    out.write(f"Overall -> {tally.line()}\n")
    if not args.v:
        out.write("\n")
        return

    scripts: dict[str, list[str]] = {}
    for word in sorted(tally.words()):
        scripts.setdefault(script(word), []).append(word)
    for name, words in [*scripts.items(), *groups]:
        out.write(f"{name} -> {tally.line(words)}\n")
    out.write(f"\n{RULE}\n")


def script(word: str) -> str:
    """Return the group of a token: English, Mandarin, Number, Japanese, or Other for anything else
    and mixtures."""
    names = {_group(character) for character in word if character not in JOINERS}
    return names.pop() if len(names) == 1 else OTHER


def _group(character: str) -> str:
    name = unicodedata.name(character, "?")
    if not name.startswith(LETTERS):
        return OTHER
    first, *_ = name.split()
    return WORDS.get(first, OTHER)
