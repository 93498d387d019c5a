#!/usr/bin/env python3
"""Phases 2 to 4 with the shapes of a conf and made-up weights: audio hours per hour and share of
the device's peak, ours beside transformers + peft.

    python tools/bench/phase_rate.py --size 7b --peak_tflops 989
    python tools/bench/phase_rate.py --tiny

Weights are random, of the sizes of the models that the confs name (published_sizes.py), or of
those in the config.json files of --whisper and --llm. Nothing is downloaded by default. A step is
forward, backward, clipping and the optimizer. The baselines run the same modules by transformers'
own forwards: WhisperEncoder on 30 s, rows padded to the longest with a mask, ``labels=``, peft's
adapters; one keeps the speech there is, one takes 30 s of it into the LLM. That all compute the
same is checked on inputs of 30 s before anything is timed. Ways take turns; times are wall clock
around a synchronized device, on a CPU (--tiny) CPU seconds. The limit is the time of the FLOPs of
our step (counted, train/estimate.py) as matrix products of 4096, measured along.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from phase_step import Phase, check  # noqa: E402
from published_sizes import QWEN2, WHISPER  # noqa: E402
from side_by_side import spread  # noqa: E402
from transformers import PreTrainedConfig, Qwen2Config, WhisperConfig  # noqa: E402

from wenet_osum import config, dist  # noqa: E402
from wenet_osum.train.estimate import Mean, estimate  # noqa: E402
from wenet_osum.train.inherited import sizes_of  # noqa: E402
from wenet_osum.train.rehearse import peak_gib, reset_peak  # noqa: E402

OURS = "ours"
HEARD = "transformers + peft, encoder on 30 s"
WHOLE = "transformers + peft, 30 s into the LLM"
LIMIT = "limit: its FLOPs as matrix products"
HEAD = [
    "| work | way | utterances | audio hours per hour | of the peak | times ours | peak GiB |",
    "|---|---|---|---|---|---|---|",
]
PHASES = {"2": "train_2_adapter", "3": "train_3_encoder", "4": "train_4_lora"}
# Overrides of the confs.
TINY = ["dtype=float32", "model.adapter_conf={layers: 1, heads: 2, ffn: 64}"]


def seconds_of(way: Callable[[], Any], device: torch.device) -> float:
    """Wall clock on an accelerator, CPU seconds without one."""
    if device.type == "cpu":
        before = time.process_time()
        way()
        return time.process_time() - before
    torch.accelerator.synchronize()
    before = time.monotonic()
    way()
    torch.accelerator.synchronize()
    return time.monotonic() - before


def products(flops: float, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """The FLOPs as matrix products."""
    size = 512 if device.type == "cpu" else 4096
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: [torch.mm(a, b) for _ in range(max(1, round(flops / (2 * size**3))))] and None


@dataclass
class Measured:
    """What a way took in a phase."""

    way: str
    # Of a micro-batch.
    utterances: int
    # Seconds of one utterance, by round.
    seconds: list[float]
    # FLOPs of one utterance in our step.
    flops: float
    peak_gib: float = 0.0
    # Why there are no seconds.
    error: str = ""


def race(
    phase: Phase, mean: Mean, counts: tuple[int, int], flops: float, rounds: int
) -> list[Measured]:
    """Measure the ways in turns, ours first.

    ``counts`` are utterances of a micro-batch, ours and theirs; ``flops`` those of one utterance in
    our step. A way whose memory does not suffice says so.
    """
    check(phase, mean)
    ways = ways_of(phase, mean, counts, flops)
    found = {}
    for way, (count, run) in ways.items():
        found[way] = Measured(way, count, [], flops)
        reset_peak()
        try:
            run()
        except torch.OutOfMemoryError:
            found[way].error = "out of memory"
        # Only here, for the exception keeps the tensors of the pass.
        if found[way].error:
            free(phase)
        found[way].peak_gib = peak_gib()
    for _ in range(rounds):
        for way, (count, run) in ways.items():
            if not found[way].error:
                took = seconds_of(run, phase.world.device)
                found[way].seconds.append(took / count)
    return list(found.values())


def ways_of(
    phase: Phase, mean: Mean, counts: tuple[int, int], flops: float
) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Return the ways to take a step, by name, with the utterances of each."""
    ours, theirs = counts
    batch = phase.batch(mean, ours)
    few = phase.batch(mean, theirs)
    dtype = torch.bfloat16 if phase.engine.half else torch.float32
    least = products(flops * ours, phase.world.device, dtype)
    return {
        OURS: (ours, lambda: phase.step(lambda: phase.ours(batch))),
        HEARD: (theirs, lambda: phase.step(lambda: phase.theirs(few, True))),
        WHOLE: (theirs, lambda: phase.step(lambda: phase.theirs(few, False))),
        LIMIT: (ours, least),
    }


def free(phase: Phase) -> None:
    """Let go of what a pass that ran out of memory has left."""
    phase.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def row(name: str, one: Measured, ours: Measured, seconds: float, peak_tflops: float) -> str:
    """Write the table row of a way, whose utterances have so many seconds of audio.

    Its ratio to ours is taken within a round.
    """
    if one.error or ours.error:
        why = one.error or "ours " + ours.error
        return f"| {name} | {one.way} | {one.utterances} | {why} | | | {one.peak_gib:.1f} |"
    each = np.array(one.seconds)
    share = ""
    if peak_tflops:
        reached = one.flops / each / (peak_tflops * 1e12)
        share = f"{spread(100 * reached, '.3g')} %"
    ratio = np.divide(each, ours.seconds)
    cells = [
        name,
        one.way,
        str(one.utterances),
        spread(seconds / each, ".4g"),
        share,
        spread(ratio, ".2f"),
        f"{one.peak_gib:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def tiny() -> tuple[WhisperConfig, Qwen2Config]:
    """Sizes for a CPU."""
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_layers": 2,
        "decoder_layers": 1,
    }
    whisper = WhisperConfig(
        vocab_size=50, d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128, **heads, **ids
    )
    llm = {
        "vocab_size": 500,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return whisper, Qwen2Config(**llm, eos_token_id=0, bos_token_id=0)


def main(argv: list[str] | None = None) -> int:
    """Run the phases and print one table."""
    args = parser().parse_args(argv)
    world = dist.start(1)
    mean = Mean(args.seconds)
    print(f"{world.device}, torch {torch.__version__}, utterances of {mean.seconds:g} s")
    print(*HEAD, sep="\n")
    try:
        for name in args.phases:
            conf, sizes = read(args.size, name, args.override, args.tiny, args.whisper, args.llm)
            count = args.utterances or (4 if args.tiny else None)
            found = run_phase(
                conf, sizes, mean, world, count, args.baseline_utterances, args.rounds
            )
            for one in found:
                line = row(f"phase {name}", one, found[0], mean.seconds, args.peak_tflops)
                print(line, flush=True)
    finally:
        dist.stop()
    return 0


def run_phase(
    conf: config.TrainConfig,
    sizes: tuple[PreTrainedConfig, PreTrainedConfig],
    mean: Mean,
    world: dist.World,
    count: int | None,
    baseline_count: int,
    rounds: int,
) -> list[Measured]:
    """Measure a phase, with ``count`` utterances in our micro-batch: None as many as the conf's
    budgets hold."""
    counted = estimate(conf, *sizes, mean)
    count = count or counted.utterances
    counts = (count, min(baseline_count, count))
    flops = counted.flops / counted.utterances
    return race(Phase(conf, sizes, world), mean, counts, flops, rounds)


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument(
        "--size", choices=["7b", "0.5b"], default="7b", help="folder of examples/osum/conf"
    )
    args.add_argument(
        "--whisper",
        help="folder or hub name of its config.json; default: the sizes of the one in the conf",
    )
    args.add_argument("--llm", help="the same for the LLM")
    args.add_argument("--phases", nargs="+", choices=[*PHASES], default=[*PHASES])
    args.add_argument("--seconds", type=float, default=8.0, help="audio of an utterance, s")
    args.add_argument(
        "--utterances", type=int, help="of our micro-batch; default: what the conf's budgets hold"
    )
    args.add_argument(
        "--baseline_utterances",
        type=int,
        default=8,
        help="of the baselines' micro-batch: padding to 30 s and all logits take memory",
    )
    args.add_argument(
        "--peak_tflops",
        type=float,
        default=0.0,
        help="of the device in bfloat16, by its data sheet",
    )
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument(
        "--override", action="append", default=[], metavar="NAME=VALUE", help="of the confs"
    )
    args.add_argument(
        "--tiny", action="store_true", help="small sizes in float32: that the command runs"
    )
    return args


def read(
    size: str,
    phase: str,
    overrides: list[str],
    is_tiny: bool = False,
    whisper: str | None = None,
    llm: str | None = None,
) -> tuple[config.TrainConfig, tuple[PreTrainedConfig, PreTrainedConfig]]:
    """The conf of a phase and the sizes of its models; one that begins from another's folder takes
    the adapter of phase 2.

    ``whisper`` and ``llm`` are folders or hub names of config.json files; None: the sizes are those
    of the models that the conf names.
    """
    if is_tiny:
        overrides = overrides + TINY
    folder = ROOT / "examples/osum/conf" / size
    second_name = PHASES["2"]
    name = PHASES[phase]
    second = config.load(folder / f"{second_name}.yaml", overrides=overrides)
    conf = config.load(folder / f"{name}.yaml", overrides=overrides)
    conf.model.adapter = second.model.adapter
    conf.model.adapter_conf = second.model.adapter_conf
    if is_tiny:
        return conf, tiny()
    speech = published(WHISPER, whisper or second.model.whisper)
    text = published(QWEN2, llm or second.model.llm)
    return conf, (speech, text)


def published(known: dict[str, Callable[[], PreTrainedConfig]], name: str) -> PreTrainedConfig:
    """Return the sizes of a known model, or those that a folder or hub name holds."""
    if name in known:
        return known[name]()
    return sizes_of(name)


if __name__ == "__main__":
    sys.exit(main())
