#!/usr/bin/env python3
"""How fast tools/compute-wer.py is beside WeNet's of the same name, on the same files.

    python tools/bench/compute_wer.py --wenet wenet/tools/compute-wer.py

Writes references and hypotheses of mixed Chinese and English with punctuation, numbers, tags and
kana, and with substitutions, deletions and insertions, then runs both commands in turn as processes
of their own, the interpreter's start included. Prints one table (medians and quartiles of CPU time,
which a busy machine disturbs little); fails when a rate or N differs, overall or in one utterance.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

OURS = Path(__file__).resolve().parents[1] / "compute-wer.py"
CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
WORDS = "the cat sat on mat speech model ok hello world it's a 10% 1.5 x-ray <unk> <NOISE>".split()
MARKS = "，。！？、…·（）(),.!?「」ひカー "
CHANGED = 0.08  # share of tokens that are wrong
OVERALL = re.compile(r"^Overall -> +(\S+) % N=(\d+)", re.MULTILINE)
UTTERANCE = re.compile(r"^utt: (\S+)\nWER: +(\S+) % N=(\d+)", re.MULTILINE)


class Told(NamedTuple):
    """What one run of a command took and said."""

    seconds: float  # CPU
    overall: tuple[str, str]  # rate, N
    utterances: list[tuple[str, ...]]  # key, rate, N


def write_texts(folder: Path, utterances: int) -> list[str]:
    """Write ``folder/ref`` and ``folder/hyp``; returns their paths."""
    draws = random.Random(3)
    references = []
    hypotheses = []
    for number in range(utterances):
        size = draws.randint(4, 30)
        tokens = [_token(draws) for _ in range(size)]
        heard = _heard(tokens, draws)
        said = "".join(tokens).strip()
        written = "".join(heard).strip()
        references.append(f"utt{number:05d} {said}\n")
        hypotheses.append(f"utt{number:05d} {written}\n")

    # The tool has to find each line's partner.
    draws.shuffle(hypotheses)
    paths = []
    for name, lines in (("ref", references), ("hyp", hypotheses)):
        path = folder / name
        path.write_text("".join(lines), encoding="utf-8")
        paths.append(str(path))
    return paths


def _heard(tokens: list[str], draws: random.Random) -> list[str]:
    """Return the tokens with errors: a third each dropped or replaced, a sixth put in."""
    heard = []
    for token in tokens:
        # Above 1 a token is right; below, its place tells the kind of the error.
        lot = draws.random() / CHANGED
        kept = lot > 1 or 1 / 3 > lot > 1 / 6
        if kept:
            heard.append(token)
        # Behind a token that is kept, or in the place of one that is not.
        if 1 / 6 < lot < 2 / 3:
            heard.append(draws.choice(CHARACTERS))
    return heard


def _token(draws: random.Random) -> str:
    """Draw a character, an English word or a mark."""
    lot = draws.random()
    if lot < 0.65:
        return draws.choice(CHARACTERS)
    if lot < 0.95:
        return f" {draws.choice(WORDS)} "
    return draws.choice(MARKS)


def run(script: str | Path, flags: list[str], files: list[str]) -> Told:
    """Run a command and read what it prints. Raises RuntimeError when it fails."""
    begin = _children_cpu()
    done = subprocess.run(
        [sys.executable, str(script), *flags, *files],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    spent = _children_cpu() - begin
    found = OVERALL.search(done.stdout)
    if done.returncode or not found:
        raise RuntimeError(f"{script} failed: {done.stderr[-300:]}")
    overall = (found[1], found[2])
    return Told(spent, overall, UTTERANCE.findall(done.stdout))


def _children_cpu() -> float:
    """Return the CPU seconds of all processes that were started and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spread(values: list[float]) -> str:
    """Write the median with quartiles."""
    low = high = values[0]
    if len(values) > 1:
        low, _, high = quantiles(values, n=4, method="inclusive")
    return f"{median(values):.2f} [{low:.2f}, {high:.2f}]"


def main(argv: list[str] | None = None) -> int:
    """Time both in turn; 1 when they disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--wenet",
        required=True,
        help="WeNet's tools/compute-wer.py",
    )
    parser.add_argument("--utterances", type=int, default=7000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(argv)
    scripts = {"this one": OURS, "WeNet's": args.wenet}
    told: dict[str, list[Told]] = {name: [] for name in scripts}
    with tempfile.TemporaryDirectory() as folder:
        files = write_texts(Path(folder), args.utterances)
        for turn in range(args.rounds):
            # Who begins changes from round to round.
            names = list(scripts) if turn % 2 else list(reversed(scripts))
            for name in names:
                told[name].append(run(scripts[name], ["--char=1", "--v=1"], files))
    print(
        f"{args.utterances} utterances, --char=1 --v=1, {args.rounds} rounds in turn; median "
        "[quartiles]\n"
    )
    return report(told["this one"], told["WeNet's"])


def report(ours: list[Told], theirs: list[Told]) -> int:
    """Print the table and where the two differ; 1 when they do."""
    print("| | CPU s | rate, % | N |")
    print("|---|---|---|---|")
    for name, runs in (("this one", ours), ("WeNet's", theirs)):
        seconds = [one.seconds for one in runs]
        rate, words = runs[-1].overall
        print(f"| {name} | {spread(seconds)} | {rate} | {words} |")

    # A ratio is taken within its round.
    ratios = []
    for one, other in zip(ours, theirs, strict=True):
        ratios.append(other.seconds / one.seconds)

    one = ours[-1]
    other = theirs[-1]
    pairs = zip(
        one.utterances,
        other.utterances,
        strict=True,
    )
    differing = sum(first != second for first, second in pairs)
    same = one.overall == other.overall and not differing
    verdict = "the same" if same else "NOT the same"
    print(
        f"\nWeNet's takes {spread(ratios)} times as long; rate and N are {verdict}, "
        f"and differ in {differing} of {len(one.utterances)} utterances"
    )
    if same:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
