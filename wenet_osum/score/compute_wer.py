"""The work of tools/compute-wer.py: WeNet's flags, its blocks per utterance and its last lines, for scripts that parse them.

Other than WeNet's: a missing hypothesis counts as deletions, unless ``--missing=skip``. The rate and N are the same on the same
input; the split into S, D and I may differ where alignments tie (see align.py).
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TextIO

from rapidfuzz.distance import Levenshtein

from wenet_osum.score.hypotheses import read_lines
from wenet_osum.score.wenet_text import Cutter, read_table

WORDS = {"DIGIT": "Number", "CJK": "Mandarin", "LATIN": "English", "HIRAGANA": "Japanese"}  # first word of a character's Unicode name → group
JOINERS = frozenset("&'@℃=.-_#+;")  # do not decide the group of their word
RULE = "=" * 75


def switch(text: str) -> bool:
    """1/0, true/false, yes/no. Raises ValueError (argparse names the flag) for anything else."""
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 or 0 (or true, false)")
    return known[text.lower()]


def level(text: str) -> int:
    """Verbosity: a number, or a switch."""
    return int(text) if text.isdecimal() else int(switch(text))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="compute-wer.py", description="Word or character error rate of key-text files.", allow_abbrev=False)
    parser.add_argument("ref", help="references, 'key text' a line")
    parser.add_argument("hyp", help="hypotheses, 'key text' a line")
    parser.add_argument("--char", "--tochar", type=switch, default=False, help="1: count characters (words of cased scripts stay words)")
    parser.add_argument("--v", type=level, default=1, help="0: last line only, 1: a block per utterance, 2: with keys in every line")
    parser.add_argument("--cs", type=switch, default=False, help="1: case counts")
    parser.add_argument("--rt", type=switch, default=True, help="0: count <tags> as tokens instead of removing them")
    parser.add_argument("--ig", metavar="FILE", help="words to leave out, one a line")
    parser.add_argument("--splitfile", metavar="FILE", help="'word part part …' a line: words to be cut before scoring")
    parser.add_argument("--cluster", metavar="FILE", help="groups of words, <Name> word … </Name>, to be counted by themselves")
    parser.add_argument("--maxw", type=int, default=sys.maxsize, help="most tokens in a printed line")
    parser.add_argument("--padding-symbol", choices=["space", "underline"], default="space", help="fills up the shorter of two tokens")
    parser.add_argument("--missing", choices=["delete", "skip"], default="delete", help="utterances without hypothesis: all deleted, or left out")
    return parser.parse_args(argv)


class Tally:
    """Outcomes by token."""

    def __init__(self) -> None:
        self.correct, self.substituted, self.deleted, self.inserted = Counter(), Counter(), Counter(), Counter()

    def line(self, words: Sequence[str] | None = None) -> str:
        """``x.xx % N= C= S= D= I=`` over all tokens or the given ones."""
        parts = (self.correct, self.substituted, self.deleted, self.inserted)
        c, s, d, i = (sum(p.values()) if words is None else sum(p[w] for w in words) for p in parts)
        return rate_line(c, s, d, i)

    def words(self) -> set[str]:
        """Every token seen."""
        return set().union(self.correct, self.substituted, self.deleted, self.inserted)


def rate_line(correct: int, substitutions: int, deletions: int, insertions: int) -> str:
    """A rate and its counts in WeNet's words; without reference tokens the rate is 0."""
    total = correct + substitutions + deletions
    rate = 100.0 * (substitutions + deletions + insertions) / total if total else 0.0
    return f"{rate:4.2f} % N={total} C={correct} S={substitutions} D={deletions} I={insertions}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        tables = [read_table(path) for path in (args.ref, args.hyp)]
        cut = make_cutter(args, [text for table, _ in tables for text in table.values()])
        groups = read_groups(args.cluster) if args.cluster else []
    except ValueError as error:
        print(f"compute-wer.py: {error}", file=sys.stderr)
        return 1
    (ref, odd), (hyp, also_odd) = tables
    for sentence in [*odd, *also_odd, *compare_keys(ref, hyp, args.missing)]:
        print(f"compute-wer.py: {sentence}", file=sys.stderr)
    tally = Tally()
    for key, text in ref.items():
        if key in hyp or args.missing == "delete":
            _score(key, cut(text), cut(hyp.get(key, "")), tally, args, sys.stdout)
    _close(tally, groups, args, sys.stdout)
    return 0


def make_cutter(args: argparse.Namespace, texts: list[str]) -> Cutter:
    """The cutter the flags ask for. Raises ValueError for unreadable word files."""
    ignored = [line.strip() for line in read_lines(args.ig) if line.strip()] if args.ig else []
    rows = [line.split() for line in read_lines(args.splitfile)] if args.splitfile else []
    return Cutter(texts, args.char, args.cs, args.rt, ignored, {row[0]: row[1:] for row in rows if len(row) > 1})


def compare_keys(ref: dict[str, str], hyp: dict[str, str], missing: str) -> list[str]:
    """Sentences about keys that stand in one file only."""
    found = []
    absent, extra = [k for k in ref if k not in hyp], [k for k in hyp if k not in ref]
    if absent:
        how = "counted as deletions" if missing == "delete" else "skipped"
        found.append(f"{len(absent)} of {len(ref)} references have no hypothesis, {how} (first: {absent[0]})")
    if extra:
        found.append(f"{len(extra)} hypotheses have no reference, left out (first: {extra[0]})")
    return found


def _score(key: str, lab: list[str], rec: list[str], tally: Tally, args: argparse.Namespace, out: TextIO) -> None:
    """Align one utterance, count it, and print its block."""
    correct, substituted, deleted, inserted = [], [], [], []
    left, right = [], []  # aligned tokens, "" for nothing
    for tag, i1, i2, j1, j2 in Levenshtein.opcodes(lab, rec):
        a, b = lab[i1:i2], rec[j1:j2]
        if tag == "equal":
            correct += a
        elif tag == "replace":
            substituted += a
        elif tag == "delete":
            deleted += a
        else:
            inserted += b
        left += a or [""] * len(b)
        right += b or [""] * len(a)
    tally.correct.update(correct)
    if len(correct) < len(left):
        tally.substituted.update(substituted)
        tally.deleted.update(deleted)
        tally.inserted.update(inserted)
    if args.v:
        rate = rate_line(len(correct), len(substituted), len(deleted), len(inserted))
        out.write(f"\nutt: {key}\nWER: {rate}\n{_lines(key, left, right, args)}")


def _lines(key: str, left: list[str], right: list[str], args: argparse.Namespace) -> str:
    """The aligned tokens under one another, each padded to the wider of its pair."""
    fill = " " if args.padding_symbol == "space" else "_"
    name = f"({key})" if args.v > 1 else ""
    if left != right:
        widths = [(width(a), width(b)) for a, b in zip(left, right, strict=True)]
        left = [a + fill * (w - v) for a, (v, w) in zip(left, widths, strict=True)]
        right = [b + fill * (v - w) for b, (v, w) in zip(right, widths, strict=True)]
    lines = ""
    for begin in range(0, len(left), args.maxw):
        lab, rec = (" ".join(side[begin : begin + args.maxw]) for side in (left, right))
        lines += f"lab{name}: {lab} \nrec{name}: {rec} \n\n"
    return lines


@cache
def width(token: str) -> int:
    """Columns a token takes on a terminal."""
    return len(token) if token.isascii() else sum(2 if unicodedata.east_asian_width(c) in "AFW" else 1 for c in token)


def _close(tally: Tally, groups: list[tuple[str, list[str]]], args: argparse.Namespace, out: TextIO) -> None:
    """The last lines: overall, by script, by the user's groups."""
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
    """The group of a token: English, Mandarin, Number, Japanese, or Other for anything else and mixtures."""
    names = {WORDS.get(unicodedata.name(c, "?").split()[0], "Other") if _counts(c) else "Other" for c in word if c not in JOINERS}
    return names.pop() if len(names) == 1 else "Other"


def _counts(c: str) -> bool:
    """Radicals, strokes and kana signs share the first word of their name with letters that count, but are none."""
    name = unicodedata.name(c, "?")
    starts = ("DIGIT", "CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "LATIN CAPITAL LETTER", "LATIN SMALL LETTER", "HIRAGANA LETTER")
    return name.startswith(starts)


def read_groups(path: str) -> list[tuple[str, list[str]]]:
    """Groups of a --cluster file. Raises ValueError for one that is not closed."""
    groups, name, words = [], "", []
    for token in " ".join(read_lines(path)).split():
        if name and token == f"</{name}>":
            groups.append((name, words))
            name, words = "", []
        elif not name and token.startswith("<") and token.endswith(">"):
            name = token[1:-1]
        else:
            words.append(token)
    if name:
        raise ValueError(f"{path}: group <{name}> is not closed; write </{name}> after its words")
    return groups
