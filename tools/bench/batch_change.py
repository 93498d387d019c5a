#!/usr/bin/env python3
"""How many answers change with the batch, in float32 and in bfloat16.

    python tools/bench/batch_change.py --task ser
    python tools/bench/batch_change.py --model exp/x/final --list data/test.list --task ser

Each utterance alone is held against batches of sixteen and of five. In float32 no answer may change
except at a tie (best two scores within 1e-4), and the command fails when one does. bfloat16 has
eight bits of mantissa: there a change is expected, and this measures its rate. Without --model a
small random model answers, whose choices are closer than a trained model's; figures for a report
need --model.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from decode_speed import Clips, batched, load, parser, read_clips, single

from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.records import Hypothesis
from wenet_osum.score.align import count


class Changes(NamedTuple):
    """What differs between two runs over the same utterances."""

    texts: int  # answers with another text
    labels: int  # answers with another label
    untied: int  # answers with either and no tie on the way
    characters: float  # %, changed of all


def changed(alone: list[Hypothesis], together: list[Hypothesis]) -> Changes:
    """Count what differs between the answers of two runs."""
    texts = 0
    labels = 0
    untied = 0
    edits = 0
    for one, other in zip(alone, together, strict=True):
        another_text = one.text != other.text
        another_label = one.labels != other.labels
        tied = "tie" in one.flags + other.flags
        texts += another_text
        labels += another_label
        untied += (another_text or another_label) and not tied
        _, *wrong = count(one.text, other.text)
        edits += sum(wrong)
    characters = sum(len(answer.text) for answer in alone)
    return Changes(
        texts,
        labels,
        untied,
        100 * edits / max(1, characters),
    )


def measure(recognizer: Recognizer, clips: Clips, name: str) -> int:
    """Print the rows of one number format; returns the answers that changed without a tie."""
    alone = single(recognizer, clips)
    worst = 0
    for size in (16, 5):
        recognizer.batch_size = size
        found = changed(alone, batched(recognizer, clips))
        share = 100 * found.texts / len(clips)
        cells = [
            f"{found.texts} ({share:.2f} %)",
            str(found.labels),
            str(found.untied),
            f"{found.characters:.3f} %",
        ]
        print(f"| {name} | {size} | {' | '.join(cells)} |")
        worst = max(worst, found.untied)
    steps = recognizer.counts["steps"]
    ties = recognizer.counts["ties"]
    share = 100 * ties / max(1, steps)
    print(f"| {name} | | ties: {ties} of {steps} steps ({share:.3f} %) | | | |")
    return worst


def main(argv: list[str] | None = None) -> int:
    """Measure both formats; 1 when a float32 answer changes without a tie."""
    known = parser()
    known.description = __doc__
    args = known.parse_args(argv)
    torch.set_num_threads(args.threads)
    clips = read_clips(args)
    print(f"{len(clips)} utterances, task {args.task}\n")
    print("| format | batch | other texts | other labels | without a tie | characters |")
    print("|---|---|---|---|---|---|")
    faults = measure(load(args), clips, "float32")
    measure(load(args, torch.bfloat16), clips, "bfloat16")
    if faults:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
