#!/usr/bin/env python3
"""What it costs to serve several LoRAs from one copy of a model's weights.

    python tools/bench/loras.py
    python tools/bench/loras.py --rank 16 --rounds 9

Batches of random sounds are answered by a random model (decode_speed.py's) with LoRA on all linear
layers of its LLM, in three ways: LoRA added to the weights, as a server with one model does; LoRA
beside them; and beside them with another of three LoRAs for each batch, as `serve --lora` does.
Those without a switch are checked to give the same tokens. CPU time of one thread, round by round,
and the memory of the weights that three such models take.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from decode_speed import make_random_model  # noqa: E402
from side_by_side import spread, timed  # noqa: E402

from wenet_osum.config import LoraConfig  # noqa: E402
from wenet_osum.decode.options import DecodeOptions  # noqa: E402
from wenet_osum.decode.pipeline import Recognizer  # noqa: E402
from wenet_osum.models import loras  # noqa: E402
from wenet_osum.models.osum import OsumModel  # noqa: E402
from wenet_osum.records import SAMPLE_RATE, Hypothesis, Utterance  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402

# By name: how to answer, and the memory of three models so, in MB.
Ways = dict[str, tuple[Callable, float]]
NAMES = ("default", "second", "third")
BATCH = 8
MB = 1e6
HEAD = [
    "| way | CPU s, median (quartiles) | times merged | weights of three models, MB |",
    "|---|---|---|---|",
]


def with_loras(folder: str, rank: int, names: tuple[str, ...]) -> OsumModel:
    """Load the model with random adapters under each of the names."""
    model = OsumModel.from_pretrained(folder)
    conf = LoraConfig(r=rank)
    torch.manual_seed(0)
    model.add_lora(conf)
    for name in names[1:]:
        loras.lora.add(model.llm, conf, name)
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight.data, std=0.02)
    loras.choose(model.llm, names[0])
    return model.eval()


def answers(
    model: OsumModel, template: Template, sounds: list[np.ndarray], switching: bool, tokens: int
) -> list[Hypothesis]:
    """Answer the sounds in batches, each by the next LoRA where ``switching``."""
    recognizer = Recognizer(
        model,
        template,
        DecodeOptions(max_tokens=tokens),
        template.task("asr"),
    )
    found = []
    for number, begin in enumerate(range(0, len(sounds), BATCH)):
        if switching:
            name = NAMES[number % len(NAMES)]
            loras.choose(model.llm, name)
        samples = []
        for place, sound in enumerate(sounds[begin : begin + BATCH]):
            utterance = Utterance(f"{begin + place}", "")
            samples.append(recognizer.load(utterance, sound))
        found += recognizer.decode(samples)
    return found


def megabytes(model: OsumModel) -> float:
    """Return the memory of a model's weights."""
    total = 0
    for weight in model.parameters():
        total += weight.numel() * weight.element_size()
    return total / MB


def noise(count: int) -> list[np.ndarray]:
    """Draw sounds of 2 to 6 s."""
    draws = np.random.default_rng(0)
    found = []
    lengths = draws.uniform(2, 6, count)
    for seconds in lengths:
        length = int(seconds * SAMPLE_RATE)
        sound = draws.normal(0, 0.1, length)
        found.append(sound.astype(np.float32))
    return found


def ways_of(folder: str, args: argparse.Namespace) -> Ways:
    """Return by name each way to answer, and the memory that three models take in it."""
    sounds = noise(args.utterances)
    template = Template.load(folder)
    merged = with_loras(folder, args.rank, NAMES[:1])
    merged.merge_lora()
    beside = with_loras(folder, args.rank, NAMES[:1])
    several = with_loras(folder, args.rank, NAMES)

    def way(model: OsumModel, switching: bool) -> Callable[[], list[Hypothesis]]:
        return lambda: answers(model, template, sounds, switching, args.tokens)

    found: Ways = {}
    memory = 3 * megabytes(merged)
    found["added to the weights"] = (way(merged, False), memory)
    memory = 3 * megabytes(beside)
    found["beside them"] = (way(beside, False), memory)
    memory = megabytes(several)
    found["three beside them, another for each batch"] = (way(several, True), memory)
    return found


def checked(ways: Ways) -> None:
    """Hold the answers against each other. Raises AssertionError where they are not as meant."""
    texts = []
    for way, _ in ways.values():
        found = way()
        texts.append([answer.text for answer in found])
    merged, beside, several = texts
    assert merged == beside, "LoRA beside the weights answers differently"
    assert beside != several, "the LoRAs answer the same"


def rows(ways: Ways, rounds: int) -> list[str]:
    """Time the ways in turns; returns the lines of the table."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (way, _) in ways.items():
            spent = timed(way)
            seconds[name].append(spent)

    merged = next(iter(seconds.values()))
    found = []
    for name, (_, memory) in ways.items():
        own = seconds[name]
        ratios = np.divide(own, merged)
        cells = (
            name,
            spread(own, ".2f"),
            spread(ratios, ".2f"),
            f"{memory:.1f}",
        )
        row = " | ".join(cells)
        found.append(f"| {row} |")
    return found


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--utterances", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=30, help="of each answer")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print one table."""
    args = arguments(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_random_model(folder)
        ways = ways_of(folder, args)
    checked(ways)
    table = rows(ways, args.rounds)
    print(*HEAD, *table, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
