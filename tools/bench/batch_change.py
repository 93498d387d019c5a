#!/usr/bin/env python3
"""How many answers change with the batch, in float32 and in bfloat16: each utterance alone against
batches of sixteen and of five.

    python tools/bench/batch_change.py --task ser
    python tools/bench/batch_change.py --model exp/x/final --list data/test.list --task ser

In float32 no answer may change except at a tie (best two scores within 1e-4), and the command fails
when one does. bfloat16 has eight bits of mantissa: there a change is expected, and this measures
its rate. Without --model a small random model answers, whose choices are closer than a trained
model's; figures for a report need --model.
"""

from __future__ import annotations

import sys

import torch
from decode_speed import Clips, batched, load, parser, read_clips, single

from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.records import Hypothesis
from wenet_osum.score.align import count


def changed(alone: list[Hypothesis], together: list[Hypothesis]) -> tuple[int, int, int, float]:
    """Answers with another text, with another label, with either but no tie on the way, and
    characters changed, in % of all.
    """
    pairs = list(zip(alone, together, strict=True))
    texts = [a.text != b.text for a, b in pairs]
    labels = [a.labels != b.labels for a, b in pairs]
    untied = sum(
        (t or la) and "tie" not in a.flags + b.flags
        for (a, b), t, la in zip(pairs, texts, labels, strict=True)
    )
    edits = sum(sum(count(a.text, b.text)[1:]) for a, b in pairs)
    return sum(texts), sum(labels), untied, 100 * edits / max(1, sum(len(a.text) for a, _ in pairs))


def measure(recognizer: Recognizer, clips: Clips, name: str) -> int:
    """Print the rows of one number format; returns the answers that changed without a tie."""
    alone = single(recognizer, clips)
    worst = 0
    for size in (16, 5):
        recognizer.batch_size = size
        texts, labels, untied, characters = changed(alone, batched(recognizer, clips))
        share = 100 * texts / len(clips)
        print(
            f"| {name} | {size} | {texts} ({share:.2f} %) | {labels} | {untied} | {characters:.3f} "
            "% |"
        )
        worst = max(worst, untied)
    steps = recognizer.counts["steps"]
    print(
        f"| {name} | | ties: {recognizer.counts['ties']} of {steps} steps "
        f"({100 * recognizer.counts['ties'] / max(1, steps):.3f} %) | | | |"
    )
    return worst


def main(argv: list[str] | None = None) -> int:
    """Measure both formats; 1 when a float32 answer changes without a tie."""
    known = parser()
    known.description = __doc__
    args = known.parse_args(argv)
    torch.set_num_threads(args.threads)
    clips = read_clips(args)
    print(
        f"{len(clips)} utterances, task {args.task}\n\n| format | batch | other texts | other "
        "labels | without a tie | characters |"
    )
    print("|---|---|---|---|---|---|")
    faults = measure(load(args), clips, "float32")
    measure(load(args, torch.bfloat16), clips, "bfloat16")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
