#!/usr/bin/env python3
"""Greedy decoding with the sizes of a conf and made-up weights: seconds of audio a second (RTFx).

    python tools/bench/decode_rate.py --size 7b --batches 1 8 64 256
    python tools/bench/decode_rate.py --tiny

A batch is so many utterances of --seconds, from log-mel features in the memory of the host to text.
Answers have --tokens_per_second tokens for each second of speech, whatever the weights would say:
the end of text is never the likeliest, and repetition is watched as always but ends nothing. Other
ways are transformers' generate on the same speech, asked for as many tokens, and ours with a static
cache, whose steps are CUDA graphs on a GPU. The lengths of all answers are checked, in float32 also
the tokens. Ways take turns; wall clock around a synchronized device, on a CPU (--tiny) CPU seconds.
RTFx as in the Open ASR Leaderboard: audio ÷ time.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from phase_rate import OURS, read, seconds_of  # noqa: E402
from side_by_side import spread  # noqa: E402
from transformers import PreTrainedConfig  # noqa: E402

from wenet_osum import config  # noqa: E402
from wenet_osum.decode import static_prefix  # noqa: E402
from wenet_osum.decode.generate import answer, finish, in_eval_mode, make_rows  # noqa: E402
from wenet_osum.decode.options import DecodeOptions  # noqa: E402
from wenet_osum.decode.prefix import LLMPrompts, Prefixes  # noqa: E402
from wenet_osum.decode.static_prefix import StaticPrefixes  # noqa: E402
from wenet_osum.decode.stops import LoopGuard  # noqa: E402
from wenet_osum.models.layout import Question  # noqa: E402
from wenet_osum.models.osum import OsumModel  # noqa: E402
from wenet_osum.records import Batch  # noqa: E402
from wenet_osum.train.dry_run import any_template, materialize  # noqa: E402
from wenet_osum.train.estimate import Mean, batch_of, meta_model  # noqa: E402
from wenet_osum.train.rehearse import peak_gib, reset_peak  # noqa: E402

STATIC = OURS + ", static cache"
THEIRS = "transformers' generate, the same speech"
BATCHES = [1, 8, 64, 256]
HEAD = [
    "| model | batch | way | RTFx | tokens per second | times ours | peak GiB |",
    "|---|---|---|---|---|---|---|",
]


class Watching(LoopGuard):
    """Looks for loops as always, and ends no answer."""

    def add(self, token: int) -> bool:
        """Take the next token; say that there is no loop."""
        super().add(token)
        return False


@dataclass
class Decoded:
    """What a way took for a batch."""

    way: str
    # Utterances.
    batch: int
    # Seconds of the whole batch, by round.
    seconds: list[float]
    # Tokens of each answer.
    tokens: int
    peak_gib: float = 0.0
    # Why there are no seconds.
    error: str = ""


class Speaker:
    """A model of a conf's sizes with random weights, that never ends by itself."""

    def __init__(
        self,
        conf: config.TrainConfig,
        sizes: tuple[PreTrainedConfig, PreTrainedConfig],
        device: torch.device,
    ) -> None:
        torch.manual_seed(0)
        self.template = any_template()
        self.device = device
        half = conf.dtype == "bfloat16"
        dtype = torch.bfloat16 if half else torch.float32
        empty = meta_model(conf.model, *sizes)
        empty.to(dtype)
        model = materialize(empty)
        self.model: OsumModel = model.eval().to(device)
        # The logit of the end is 0, and of so many random ones the largest is above that.
        with torch.no_grad():
            head = self.model.get_output_embeddings()
            head.weight[self.template.end_id] = 0

    def batch(self, mean: Mean, count: int) -> Batch:
        """Make ``count`` mean utterances, as they come from the data processes."""
        torch.manual_seed(1)
        batch = batch_of(self.model, mean, count, "cpu")
        batch.keys = [str(number) for number in range(count)]
        batch.tasks = ["asr"] * count
        return batch

    def ours(self, batch: Batch, tokens: int, static: bool = False) -> list[list[int]]:
        """Answer a batch as recognize does; returns the tokens of each answer.

        ``static``: as with --static_cache.
        """
        options = DecodeOptions(max_tokens=tokens)
        tasks = [self.template.task(name) for name in batch.tasks]
        counts: Counter = Counter()
        rows = make_rows(self.template, batch, tasks, options)
        for row in rows:
            row.guard = Watching()
        with in_eval_mode(self.model):
            moved = batch.to(self.device)
            question = Question.of(moved)
            speech = self.model.padded_speech(question.features, question.feature_lengths)
            embeds, mask = self.model.prompts_with(*speech, question)
            kind = StaticPrefixes if static else Prefixes
            prompts = LLMPrompts(self.model.llm, embeds, mask, kind)
            answer(prompts, rows, options, counts)
        finish(rows, self.template, counts)
        return [row.answer_state.ids for row in rows]

    @torch.inference_mode()
    def theirs(self, batch: Batch, tokens: int) -> list[list[int]]:
        """Answer a batch by transformers' generate."""
        batch = batch.to(self.device)
        found: Tensor = self.model.generate(
            batch.features,
            batch.feature_lengths,
            batch.prompt_ids,
            batch.prompt_lengths,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            eos_token_id=self.template.end_id,
            pad_token_id=self.template.end_id,
        )
        tokenizer = self.template.tokenizer
        texts = tokenizer.batch_decode(found)
        assert len(texts) == len(batch.keys), "an utterance has no text"
        return found.tolist()


def race(speaker: Speaker, mean: Mean, count: int, rounds: int) -> list[Decoded]:
    """Measure all ways on ``count`` utterances in turns, ours first."""
    batch = speaker.batch(mean, count)
    tokens = mean.answer_tokens
    ways: dict[str, Callable[[], list[list[int]]]] = {
        OURS: lambda: speaker.ours(batch, tokens),
        THEIRS: lambda: speaker.theirs(batch, tokens),
        STATIC: lambda: speaker.ours(batch, tokens, static=True),
    }
    found = {}
    said = {}
    for way, run in ways.items():
        found[way] = Decoded(way, count, [], tokens)
        reset_peak()
        try:
            said[way] = run()
        except torch.OutOfMemoryError:
            found[way].error = "out of memory"
        found[way].peak_gib = peak_gib()
        if found[way].error:
            free()
    check(said, tokens, speaker)
    for _ in range(rounds):
        for way, run in ways.items():
            if not found[way].error:
                found[way].seconds.append(seconds_of(run, speaker.device))
    free()
    return list(found.values())


def check(said: dict[str, list[list[int]]], tokens: int, speaker: Speaker) -> None:
    """All answers are as long as was asked for, and in float32 all ways say the same."""
    for way, answers in said.items():
        lengths = {len(ids) for ids in answers}
        found = sorted(lengths)
        assert found == [tokens], f"{way}: answers of {found} tokens, not {tokens}"
    parameters = speaker.model.parameters()
    weights = next(parameters)
    exact = weights.dtype == torch.float32
    if exact:
        every = iter(said.values())
        first = next(every, None)
        for way, answers in said.items():
            same = answers == first
            assert same, f"{way} says other tokens than the first way"


def free() -> None:
    """Let go of what a batch has left."""
    static_prefix.rooms.clear()
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def row(model: str, one: Decoded, ours: Decoded, seconds: float) -> str:
    """Write the table row of a way, whose utterances have so many seconds of audio.

    Its ratio to ours is taken within a round.
    """
    if one.error or ours.error:
        why = one.error or "ours " + ours.error
        return f"| {model} | {one.batch} | {one.way} | {why} | | | {one.peak_gib:.1f} |"
    took = np.array(one.seconds)
    audio = one.batch * seconds
    tokens = one.batch * one.tokens
    ratio = np.divide(took, ours.seconds)
    cells = [
        model,
        str(one.batch),
        one.way,
        spread(audio / took, ".4g"),
        spread(tokens / took, ".4g"),
        spread(ratio, ".2f"),
        f"{one.peak_gib:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def mean_of(seconds: float, tokens_per_second: float) -> Mean:
    """Return an utterance of so much speech, its answer in proportion."""
    tokens = round(seconds * tokens_per_second)
    tokens = max(1, tokens)
    return Mean(seconds, answer_tokens=tokens)


def any_device() -> torch.device:
    """Return the accelerator where there is one, else the CPU."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator()


def main(argv: list[str] | None = None) -> int:
    """Run the batches and print one table."""
    args = parser().parse_args(argv)
    device = any_device()
    conf, sizes = read(args.size, "2", args.override, args.tiny)
    speaker = Speaker(conf, sizes, device)
    mean = mean_of(args.seconds, args.tokens_per_second)
    print(f"{device}, torch {torch.__version__}, utterances of {mean.seconds:g} s", end="")
    print(f", answers of {mean.answer_tokens} tokens")
    print(*HEAD, sep="\n")
    for count in args.batches:
        found = race(speaker, mean, count, args.rounds)
        for one in found:
            print(row(args.size, one, found[0], mean.seconds), flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known.add_argument(
        "--size", choices=["7b", "0.5b"], default="7b", help="folder of examples/osum/conf"
    )
    known.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="utterances")
    known.add_argument("--seconds", type=float, default=8.0, help="audio of an utterance, s")
    known.add_argument("--tokens_per_second", type=float, default=5.0, help="of an answer")
    known.add_argument("--rounds", type=int, default=5)
    known.add_argument(
        "--override", action="append", default=[], metavar="NAME=VALUE", help="of the conf"
    )
    known.add_argument(
        "--tiny", action="store_true", help="small sizes in float32: that the command runs"
    )
    return known


if __name__ == "__main__":
    sys.exit(main())
