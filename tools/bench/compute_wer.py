#!/usr/bin/env python3
"""How fast tools/compute-wer.py is beside WeNet's of the same name, on the same files; checks that
N and the rate are the same.

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

OURS = Path(__file__).resolve().parents[1] / "compute-wer.py"
CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "speech",
    "model",
    "ok",
    "hello",
    "world",
    "it's",
    "a",
    "10%",
    "1.5",
    "x-ray",
    "<unk>",
    "<NOISE>",
]
MARKS = "，。！？、…·（）(),.!?「」ひカー "
CHANGED = 0.08  # share of tokens that are wrong
OVERALL = re.compile(r"^Overall -> +(\S+) % N=(\d+)", re.MULTILINE)
UTTERANCE = re.compile(r"^utt: (\S+)\nWER: +(\S+) % N=(\d+)", re.MULTILINE)


def write_texts(folder: Path, utterances: int) -> list[str]:
    """``folder/ref`` and ``folder/hyp``; returns their paths."""
    draws = random.Random(3)
    ref = []
    hyp = []
    for number in range(utterances):
        tokens = [_token(draws) for _ in range(draws.randint(4, 30))]
        heard = []
        for token in tokens:
            lot = draws.random() / CHANGED
            heard += (
                [token] if lot > 1 or 1 / 3 > lot > 1 / 6 else []
            )  # kept; the others are dropped or replaced
            heard += (
                [draws.choice(CHARACTERS)] if 1 / 6 < lot < 2 / 3 else []
            )  # put behind it or in its place
        ref.append(f"utt{number:05d} {''.join(tokens).strip()}\n")
        hyp.append(f"utt{number:05d} {''.join(heard).strip()}\n")
    draws.shuffle(hyp)
    for name, lines in (("ref", ref), ("hyp", hyp)):
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return [str(folder / "ref"), str(folder / "hyp")]


def _token(draws: random.Random) -> str:
    lot = draws.random()
    if lot < 0.65:
        return draws.choice(CHARACTERS)
    if lot < 0.95:
        return f" {draws.choice(WORDS)} "
    return draws.choice(MARKS)


def run(
    script: str | Path, flags: list[str], files: list[str]
) -> tuple[float, tuple[str, str], list[tuple[str, ...]]]:
    """CPU seconds, the overall rate and N it prints, and those of every utterance. Raises
    RuntimeError when it fails.
    """
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
    return spent, (found[1], found[2]), UTTERANCE.findall(done.stdout)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spread(values: list[float]) -> str:
    """Median with quartiles."""
    low, _, high = (
        quantiles(
            values,
            n=4,
            method="inclusive",
        )
        if len(values) > 1
        else values * 3
    )
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
    parser.add_argument(
        "--utterances",
        type=int,
        default=7000,
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=7,
    )
    args = parser.parse_args(argv)
    seconds: dict[str, list[float]] = {"this one": [], "WeNet's": []}
    results = {}
    blocks = {}
    with tempfile.TemporaryDirectory() as folder:
        files = write_texts(Path(folder), args.utterances)
        for turn in range(args.rounds):
            both = [("this one", OURS), ("WeNet's", args.wenet)]
            for name, script in both if turn % 2 else both[::-1]:
                spent, results[name], blocks[name] = run(script, ["--char=1", "--v=1"], files)
                seconds[name].append(spent)
    print(
        f"{args.utterances} utterances, --char=1 --v=1, {args.rounds} rounds in turn; median "
        "[quartiles]\n"
    )
    print("| | CPU s | rate, % | N |\n|---|---|---|---|")
    for name, spent in seconds.items():
        print(f"| {name} | {spread(spent)} | {' | '.join(results[name])} |")
    ratios = [theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)]
    differing = sum(a != b for a, b in zip(*blocks.values(), strict=True))
    same = results["this one"] == results["WeNet's"] and not differing
    print(
        f"\nWeNet's takes {spread(ratios)} times as long; rate and N are "
        f"{'the same' if same else 'NOT the same'}, ",
        end="",
    )
    print(f"and differ in {differing} of {len(blocks['this one'])} utterances")
    if same:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
