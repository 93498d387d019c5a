#!/usr/bin/env python3
"""Training steps with ``features: encoded`` beside the same steps with features, on one core.

    python tools/bench/encoded_features.py --whisper openai/whisper-base \
        --llm Qwen/Qwen2.5-0.5B-Instruct --list data/train/manifest.jsonl --pad_s 10

Both ways read the same utterances from the list, make the same micro-batches and take the same
optimizer steps, data included; their losses are checked to be the same up to float16 before
anything is timed. They take turns, in CPU seconds of one thread, so that a busy machine disturbs
them little. Rows: by CTC alone (the LLM does not run) and with the LLM; states after all layers of
the encoder, where the adapter trains, and before its last two, where those train too.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from machine_speed import core_speed  # noqa: E402
from side_by_side import spread  # noqa: E402

from wenet_osum import config, dist  # noqa: E402
from wenet_osum.config import DataConfig, PartConfig, TrainConfig  # noqa: E402
from wenet_osum.dataset.dataset import Mixture, SpeechDataset  # noqa: E402
from wenet_osum.models import trainable  # noqa: E402
from wenet_osum.models.objective import make_objective  # noqa: E402
from wenet_osum.train import encode  # noqa: E402
from wenet_osum.train.optim import make_optimizer  # noqa: E402
from wenet_osum.train.start import open_model, token_counter  # noqa: E402

HEAD = [
    "| loss | states after | way | CPU s per step | audio hours per hour and core | times states |",
    "|---|---|---|---|---|---|",
]
NEAR = 2e-3  # relative difference of a loss that float16 may make
LOSSES = {
    "CTC, no LLM": {"ce_weight": 0.0, "losses": [{"name": "ctc", "weight": 1.0}]},
    "cross-entropy, LLM": {"ce_weight": 1.0, "losses": []},
}


def configuration(args: argparse.Namespace, folder: Path) -> TrainConfig:
    """The run that is timed, without its loss and its cache."""
    model = {"whisper": args.whisper, "llm": args.llm, "encoder_conf": {"pad_s": args.pad_s}}
    tree = {
        "model": model,
        "train_parts": {"adapter.*": {}},
        "batch": {"max_frames": args.max_frames},
        "optim": {"lr": 0.0},
        "cache": {"dir": str(folder / "states")},
        "lowercase": True,
        "max_epochs": 1,
    }
    return config.from_dict(tree)


def some_of(path: str, count: int, folder: Path) -> DataConfig:
    """A raw list of ``count`` evenly spread utterances."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    chosen = [
        lines[i]
        for i in np.linspace(
            0,
            len(lines) - 1,
            count,
        ).astype(int)
    ]
    rows = [json.loads(line) for line in chosen]
    for row in rows:
        row["wav"] = str((Path(path).parent / row["wav"]).resolve())
    listed = folder / "some.list"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"name": "some", "list": str(listed), "tasks": {"asr": 1.0}}
    return config.from_dict({"train": [source]}, DataConfig)


def with_states(conf: TrainConfig, loss: str, after: int, depth: int) -> TrainConfig:
    """The run of a case: above the states all of the encoder trains, and the adapter."""
    parts = ["adapter.*"]
    if after < depth:
        parts += [f"encoder.layers.{n}.*" for n in range(after, depth)]
        parts.append("encoder.layer_norm.*")
    return dataclasses.replace(
        conf,
        features="encoded",
        cache=dataclasses.replace(conf.cache, after=after),
        model=dataclasses.replace(conf.model, **LOSSES[loss]),
        train_parts={pattern: PartConfig() for pattern in parts},
    )


class Case:
    """One loss and one place of the states: both ways to train."""

    def __init__(
        self, model: Any, template: Any, conf: TrainConfig, data: DataConfig, world: dist.World
    ) -> None:
        model.set_objective(make_objective(conf.model, template))
        trainable.apply_train_parts(model, conf.train_parts, conf.optim)
        self.store = encode.open_store(model, conf)
        facts = {"speech_tokens": token_counter(model), "targets": model.objective.targets}
        mixtures = {
            name: Mixture(
                data,
                conf,
                template,
                model.encoder.mels,
                **facts,
                states=states,
            )
            for name, states in (("states", self.store), ("features", None))
        }
        before = time.process_time()
        encode.fill(
            self.store,
            model.encoder,
            mixtures["states"],
            [],
            world,
            print,
        )
        self.encode_s = time.process_time() - before
        self.engine = dist.Engine(model, conf, world)
        groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
        self.optimizer = make_optimizer(groups, conf.optim, world.device)
        self.data = {name: mixture.epoch(0).dataset for name, mixture in mixtures.items()}
        model.train()

    def steps(self, way: str) -> tuple[list[float], float]:
        """Losses of the steps of an epoch, and its audio, s. Both ways draw the same dropout."""
        dataset: SpeechDataset = self.data[way]
        losses = []
        audio_s = 0.0
        for number in range(len(dataset)):
            torch.manual_seed(number)
            batch = dataset[number]
            output = self.engine.loss(batch)
            loss = output.loss / output.weight
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            audio_s += sum(batch.audio_s)
        return losses, audio_s


def timed(way: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    gc.collect()
    before = time.process_time()
    way()
    return time.process_time() - before


def rows_of(loss: str, after: str, case: Case, rounds: int) -> list[str]:
    """Check that both ways have the same losses, time them in turns, and return their rows."""
    ours, audio_s = case.steps("states")
    theirs, _ = case.steps("features")
    difference = max(
        abs(a - b) / abs(b)
        for a, b in zip(
            ours,
            theirs,
            strict=True,
        )
    )
    assert difference < NEAR, f"losses differ by {difference:.1e}: {ours} and {theirs}"
    print(f"{loss}, after {after}: losses differ by {difference:.1e} at most", flush=True)
    seconds: dict[str, list[float]] = {"states": [], "features": []}
    for _ in range(rounds):
        for way, spent in seconds.items():
            spent.append(timed(lambda way=way: case.steps(way)))
    found = []
    for way, spent in seconds.items():
        step = np.array(spent) / len(ours)
        rate = audio_s / np.median(spent)
        ratio = "1" if way == "states" else spread(np.divide(spent, seconds["states"]), ".2f")
        found.append(f"| {loss} | {after} | {way} | {spread(step, '.3f')} | {rate:.1f} | {ratio} |")
    return found


def parse() -> argparse.Namespace:
    """The arguments."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--whisper", required=True, help="folder or hub name")
    parser.add_argument("--llm", required=True, help="folder or hub name")
    parser.add_argument("--list", required=True, help="raw list, JSON a line")
    parser.add_argument("--utterances", type=int, default=48)
    parser.add_argument(
        "--pad_s",
        type=float,
        default=0.0,
        help="silence up to so many seconds",
    )
    parser.add_argument("--max_frames", type=int, default=12000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--losses", nargs="+", default=[*LOSSES], choices=[*LOSSES])
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse()
    world = dist.start(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        conf = configuration(args, folder)
        data = some_of(args.list, args.utterances, folder)
        model, template = open_model(conf, None)
        depth = model.encoder.depth
        for loss in args.losses:
            for after in (depth, depth - 2):
                one = with_states(
                    conf,
                    loss,
                    after,
                    depth,
                )
                case = Case(
                    model,
                    template,
                    one,
                    data,
                    world,
                )
                size = sum(path.stat().st_size for path in case.store.folder.rglob("*"))
                print(f"computed in {case.encode_s:.1f} CPU s, {size / 1e6:.1f} MB", flush=True)
                found = rows_of(loss, f"{after} of {depth} layers", case, args.rounds)
                print(*found, sep="\n", flush=True)
                rows += found
    print(f"\none core: {core_speed():.0f} GFLOP/s", *HEAD, *rows, sep="\n")
    dist.stop()


if __name__ == "__main__":
    main()
