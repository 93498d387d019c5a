#!/usr/bin/env python3
"""What CTC drafts save: greedy search without drafts, with them, and with drafts that are trusted.

    python tools/bench/ctc_draft.py --model exp/3_joint/final --list data/test.jsonl --threads 2
    python tools/bench/ctc_draft.py --model … --list … --trust 0.05 0.2

Every way answers the same utterances alone (batch 1), turn by turn in one run. Told are the CPU
seconds of all of it, and those after the prefill, which is what drafts can save; passes of the LLM;
the share of the proposed tokens that it agreed to; and word error, raw, with every utterance's own
text. Fails when a checked draft changes an answer in which no step was a tie.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from decode_speed import clips_of  # noqa: E402

from wenet_osum.decode import generate, prefix  # noqa: E402
from wenet_osum.decode.ctc_draft import AGREED, PROPOSED, TRUSTED  # noqa: E402
from wenet_osum.decode.options import DecodeOptions  # noqa: E402
from wenet_osum.decode.pipeline import Recognizer  # noqa: E402
from wenet_osum.models import build, cpu_kernels  # noqa: E402
from wenet_osum.records import Hypothesis, Utterance  # noqa: E402
from wenet_osum.score.strings import wer  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402

HEAD = [
    "| way | all, s | faster | after the prefill, s | faster | passes of the LLM | agreed to "
    "| trusted | WER, raw, % |",
    "|---|---|---|---|---|---|---|---|---|",
]
GREEDY = "greedy"
CHECKED = "CTC drafts, checked"


@dataclass
class Way:
    """One way to decode, and what it took."""

    options: DecodeOptions
    counts: Counter = field(default_factory=Counter)
    answers: list[Hypothesis] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    after_s: list[float] = field(default_factory=list)
    passes: int = 0


class Watch:
    """Times what comes after the prefill, and counts the passes of the LLM there."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.passes = 0
        self.inside = False
        self.greedy_search = generate.greedy_search
        self.forward = prefix.Prefixes._forward

    def __enter__(self) -> Watch:
        def greedy_search(*arguments: Any, **keywords: Any) -> None:
            begin = time.process_time()
            self.inside = True
            self.greedy_search(*arguments, **keywords)
            self.inside = False
            self.seconds += time.process_time() - begin

        def forward(prefixes: prefix.Prefixes, *arguments: Any, **keywords: Any) -> torch.Tensor:
            self.passes += self.inside
            return self.forward(prefixes, *arguments, **keywords)

        generate.greedy_search = greedy_search
        prefix.Prefixes._forward = forward
        return self

    def __exit__(self, *_: object) -> None:
        generate.greedy_search = self.greedy_search
        prefix.Prefixes._forward = self.forward


def decode(recognizer: Recognizer, clips: list[tuple[Utterance, np.ndarray]], way: Way) -> None:
    """Answer every clip alone, and note what it took."""
    recognizer.options = way.options
    recognizer.counts = way.counts = Counter()
    begin = time.process_time()
    with Watch() as watch:
        way.answers = [recognizer.decode([recognizer.load(*clip)])[0] for clip in clips]
    way.total_s.append(time.process_time() - begin)
    way.after_s.append(watch.seconds)
    way.passes = watch.passes


def row(name: str, way: Way, greedy: Way, texts: list[str]) -> str:
    """Return the table row of a way."""
    total = np.median(way.total_s)
    after = np.median(way.after_s)
    faster = np.median(greedy.total_s) / total
    faster_after = np.median(greedy.after_s) / max(after, 1e-9)
    proposed = way.counts[PROPOSED]
    agreed = ""
    if proposed:
        share = 100 * way.counts[AGREED] / proposed
        agreed = f"{share:.0f} % of {proposed}"
    error = wer(texts, [answer.transcript or "" for answer in way.answers])
    cells = [
        name,
        f"{total:.1f}",
        f"{faster:.2f} ×",
        f"{after:.1f}",
        f"{faster_after:.2f} ×",
        str(way.passes),
        agreed,
        str(way.counts[TRUSTED]),
        f"{error:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> int:
    """Run the command; 1 when a checked draft changed an answer."""
    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    cpu_kernels.keep_few()
    recognizer = load(args)
    clips = clips_of(args.list, args.utterances)
    ways = ways_of(args.trust)
    for turn in range(args.rounds):
        # Who begins changes from round to round.
        first = turn % len(ways)
        names = list(ways)
        for name in names[first:] + names[:first]:
            decode(recognizer, clips, ways[name])

    print(f"{len(clips)} utterances one by one, {args.threads} threads, ", end="")
    print(f"{args.rounds} rounds; medians of CPU seconds\n")
    print(*HEAD, sep="\n")
    texts = [recognizer.template.transcript_text(utterance) for utterance, _ in clips]
    for name, way in ways.items():
        print(row(name, way, ways[GREEDY], texts))
    changed = changed_keys(ways[GREEDY].answers, ways[CHECKED].answers)
    print(f"\nchecked drafts changed {len(changed)} answers without a tie {' '.join(changed[:5])}")
    return 1 if changed else 0


def load(args: argparse.Namespace) -> Recognizer:
    """Return the model as a recognizer of one utterance at a time."""
    model = build.load(args.model, torch.float32).eval()
    template = Template.load(args.model)
    if getattr(model, "lora", None) is not None:
        model.merge_lora()
    return Recognizer(
        model,
        template,
        DecodeOptions(),
        template.task(args.task),
        lang=args.lang,
        batch_size=1,
    )


def ways_of(trust: list[float]) -> dict[str, Way]:
    """Return the ways to decode: greedy, with checked drafts, and with drafts that are trusted."""
    ways = {
        GREEDY: Way(DecodeOptions()),
        CHECKED: Way(DecodeOptions(ctc_draft=True)),
    }
    for nats in trust:
        options = DecodeOptions(ctc_draft=True, trust_ctc=nats)
        ways[f"trusted below {nats:g} nats"] = Way(options)
    return ways


def changed_keys(greedy: list[Hypothesis], drafted: list[Hypothesis]) -> list[str]:
    """Return the keys of answers that differ and had no tie on the way."""
    keys = []
    for one, other in zip(greedy, drafted, strict=True):
        tied = "tie" in one.flags + other.flags
        if one.text != other.text and not tied:
            keys.append(one.key)
    return keys


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known.add_argument("--model", required=True, help="model folder, trained with the loss ctc")
    known.add_argument("--list", required=True, help="list to decode")
    known.add_argument("--task", default="asr", help="task name or tags")
    known.add_argument("--lang", default="en", help="language of the prompt")
    known.add_argument("--utterances", type=int, default=40, help="at most")
    known.add_argument(
        "--trust", type=float, nargs="*", default=[0.1, 0.3], help="values of trust_ctc"
    )
    known.add_argument("--rounds", type=int, default=3)
    known.add_argument("--threads", type=int, default=1, help="torch threads")
    return known


if __name__ == "__main__":
    sys.exit(main())
