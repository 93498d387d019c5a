#!/usr/bin/env python3
"""What a step of decoding costs beside the model: CPU µs a row and step.

    python tools/bench/decode_step.py
    python tools/bench/decode_step.py --batches 1 8 64 256 --vocabulary 151936

Greedy search runs over made-up logits, drawn before, so that only the program is timed: which token
is the likeliest, what it means for the answer, whether the answer runs in a loop or is too long,
and the bookkeeping of the batch. Tokens are drawn by Zipf's law, as words come. The other way looks
at each character of each token and counts every length of a loop anew. Both give the same answers.

With the vocabulary of a small tokenizer the cost of finding the likeliest token, which is the
device's, is next to nothing; --vocabulary fills it up to the size of an LLM's.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from side_by_side import spread, timed  # noqa: E402

from wenet_osum.decode import constrain  # noqa: E402
from wenet_osum.decode.greedy import greedy_search  # noqa: E402
from wenet_osum.decode.options import DecodeOptions  # noqa: E402
from wenet_osum.decode.row import Row  # noqa: E402
from wenet_osum.decode.stops import LONGEST_UNIT, LOOP_TIMES, LOOP_TOKENS, LoopGuard  # noqa: E402
from wenet_osum.small.train_tokenizer import train_tokenizer  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402

# Tokens of each answer.
TOKENS = 100
PLAIN = "each character, each length"
HEAD = [
    "| batch | vocabulary | way | µs a row and step, median (quartiles) | times ours | to reach |",
    "|---|---|---|---|---|---|",
]


class EveryUnit(LoopGuard):
    """Looks for loops by a count for every length of a unit."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = [0] * (LONGEST_UNIT + 1)

    def add(self, token: int) -> bool:
        """Take the next token; return whether the text is in a loop now."""
        self.ids.append(token)
        looped = False
        longest = min(len(self.ids) - 1, LONGEST_UNIT)
        for unit in range(1, longest + 1):
            if self.ids[-1 - unit] == token:
                self.counts[unit] += 1
            else:
                self.counts[unit] = 0
            filled = self.counts[unit] + unit
            needed = max(LOOP_TOKENS, LOOP_TIMES * unit)
            if filled >= needed:
                looped = True
        return looped


class Drawn:
    """Prefixes whose logits (B, V) were drawn before: ``steps`` of them."""

    def __init__(self, steps: list[Tensor]) -> None:
        self.steps = steps
        self.place = 0
        self.logits = steps[0]

    def feed(self, tokens: list[int]) -> None:
        """Go on to the next step."""
        following = self.place + 1
        self.place = following % len(self.steps)
        self.logits = self.steps[self.place]

    def keep(self, rows: list[int]) -> None:
        """All rows end at once."""
        raise AssertionError("a row has left")


def drawn(template: Template, batch: int, vocabulary: int) -> list[Tensor]:
    """Draw logits whose likeliest tokens come as often as words do."""
    draws = np.random.default_rng(0)
    every = range(len(template.tokenizer))
    words = torch.tensor([token for token in every if is_word(template, token)])
    ranks = draws.zipf(1.2, (TOKENS, batch))
    places = torch.tensor(ranks) % len(words)
    rows = torch.arange(batch)
    steps = []
    for said in words[places]:
        logits = torch.zeros(batch, vocabulary)
        logits[rows, said] = 1.0
        steps.append(logits)
    return steps


def is_word(template: Template, token: int) -> bool:
    """Tell whether a token neither opens a tag nor ends the text."""
    if token in template.end_ids:
        return False
    text = constrain.token_text(template, token)
    return bool(text.strip()) and "<" not in text


def search(template: Template, steps: list[Tensor], guard: type[LoopGuard]) -> list[list[int]]:
    """Answer a batch; return the tokens."""
    task = template.task("asr")
    batch = len(steps[0])
    rows = []
    for number in range(batch):
        state = constrain.AnswerState(template, task)
        row = Row(
            key=str(number),
            answer_state=state,
            audio_s=30.0,
            max_tokens=TOKENS,
            guard=guard(),
        )
        rows.append(row)
    prefixes = Drawn(steps)
    options = DecodeOptions()
    counts = Counter()
    with torch.inference_mode():
        greedy_search(prefixes, rows, options, counts)
    return [row.answer_state.ids for row in rows]


def each_character(template: Template, steps: list[Tensor]) -> list[list[int]]:
    """Answer a batch, no token being plain."""
    with patch.object(constrain, "is_plain", lambda template, token: False):
        return search(template, steps, EveryUnit)


def measured(
    template: Template, steps: list[Tensor], rounds: int
) -> tuple[list[float], list[float]]:
    """Return the CPU µs of a row and step by round, ours and the other way's.

    Raises AssertionError when their answers differ.
    """
    ours = partial(search, template, steps, LoopGuard)
    theirs = partial(each_character, template, steps)
    answers = ours()
    others = theirs()
    assert others == answers, "the two ways answer differently"
    assert all(len(ids) == TOKENS for ids in answers)

    batch = len(steps[0])
    to_us = 1e6 / (TOKENS * batch)
    ours_us, theirs_us = [], []
    for _ in range(rounds):
        seconds = timed(ours)
        ours_us.append(to_us * seconds)
        seconds = timed(theirs)
        theirs_us.append(to_us * seconds)
    return ours_us, theirs_us


def small_template() -> Template:
    """Make a template whose tokenizer has learned the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    tokenizer = train_tokenizer(lines, vocab_size=1000)
    return Template(tokenizer)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--vocabulary", type=int, default=0, help="logits of a row, at least")
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print one table."""
    args = arguments(argv)
    torch.set_num_threads(1)
    template = small_template()
    vocabulary = max(args.vocabulary, len(template.tokenizer))
    print(*HEAD, sep="\n")
    for batch in args.batches:
        steps = drawn(template, batch, vocabulary)
        ours, theirs = measured(template, steps, args.rounds)

        ratios = np.divide(theirs, ours)
        slower = spread(ratios, ".2f")
        spent = spread(ours, ".1f")
        print(f"| {batch} | {vocabulary} | ours | {spent} | 1 | ≤ 10 |")
        spent = spread(theirs, ".1f")
        print(f"| {batch} | {vocabulary} | {PLAIN} | {spent} | {slower} | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
