#!/usr/bin/env python3
"""How much host memory each process of an FSDP run takes until its first step could start, with
files of the widths of published models at a fraction of their depth.

    python tools/bench/start_memory.py --ranks 2 4
    python tools/bench/start_memory.py --ranks 2 --train full --divisor 14

Random weights are written to disk in bfloat16, a layer per file. Then so many processes (gloo, on
the CPU) build the model, freeze, shard, read their rows and make the optimizer, as training does.
The bar, per process: 1.2 × the weights, in the dtypes they run in, ÷ processes + 3 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import published_sizes  # noqa: E402
from side_by_side import status  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    PreTrainedConfig,
    WhisperForConditionalGeneration,
)

from wenet_osum import config, dist  # noqa: E402
from wenet_osum.models import trainable  # noqa: E402
from wenet_osum.small.train_tokenizer import train_tokenizer  # noqa: E402
from wenet_osum.train.optim import make_optimizer  # noqa: E402
from wenet_osum.train.start import open_model  # noqa: E402

GIB = 1024**3
SHARE, SLACK_GIB = 1.2, 3.0
# Random numbers drawn; all weights are made of them.
BLOCK = 1 << 20
LAYER = re.compile(r"(.*layers\.\d+)\.")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
PARTS = ["adapter.*", "speech_boundary.*", "encoder.*"]
TRAINS = {"lora": [*PARTS, "*lora*"], "full": [*PARTS, "llm.*"]}


def shallow(sizes: PreTrainedConfig, divisor: int) -> PreTrainedConfig:
    """Divide the depth of a model."""
    # Some configurations have a second name for a size; a table has each once.
    table = sizes.to_dict()
    for name in ("num_hidden_layers", "encoder_layers", "decoder_layers"):
        if name in table:
            layers = getattr(sizes, name) // divisor
            setattr(sizes, name, max(1, layers))
    types = getattr(sizes, "layer_types", None)
    if types:
        layers = sizes.num_hidden_layers
        sizes.layer_types = types[:layers]
    return sizes


def write_models(folder: Path, args: argparse.Namespace) -> None:
    """Write ``folder/llm`` and ``folder/whisper``, each with a tokenizer."""
    tokenizer = train_tokenizer(["a line of text"], vocab_size=300)
    whisper = published_sizes.WHISPER[args.whisper]()
    whisper = shallow(whisper, args.divisor)
    llm = published_sizes.QWEN2[args.llm]()
    llm = shallow(llm, args.divisor)
    llm.eos_token_id = tokenizer.eos_token_id
    with torch.device("meta"):
        speech = WhisperForConditionalGeneration(whisper)
        language = AutoModelForCausalLM.from_config(llm)

    for name, model in (("whisper", speech), ("llm", language)):
        target = folder / name
        target.mkdir(parents=True)
        write_weights(target, model)
        model.config.save_pretrained(target)
        tokenizer.save_pretrained(str(target))


def write_weights(folder: Path, model: torch.nn.Module) -> None:
    """Write made-up weights of a model of the meta device, a file per layer."""
    files: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        layer = LAYER.match(name)
        group = layer[1] if layer else name
        members = files.setdefault(group, [])
        members.append(name)

    block = torch.randn(BLOCK, dtype=torch.bfloat16)
    block *= 0.02
    index = {}
    for number, names in enumerate(files.values()):
        file = f"model-{number:05d}.safetensors"
        tensors = {}
        for name in names:
            shape = model.get_parameter(name).shape
            tensors[name] = made_up(shape, block)
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    path = folder / "model.safetensors.index.json"
    path.write_text(text, encoding="utf-8")


def made_up(shape: Iterable[int], block: torch.Tensor) -> torch.Tensor:
    """Repeat the block to a tensor of this shape."""
    tensor = torch.empty(tuple(shape), dtype=block.dtype)
    flat = tensor.view(-1)
    for piece in flat.split(BLOCK):
        count = len(piece)
        piece.copy_(block[:count])
    return tensor


def run_conf(folder: str, train: str) -> config.TrainConfig:
    """Return a conf in the manner of examples/osum/conf/7b, sharded."""
    path = ROOT / "examples/osum/conf/7b/train_2_adapter.yaml"
    base = config.load(path, config.TrainConfig)
    model = {
        "whisper": f"{folder}/whisper",
        "llm": f"{folder}/llm",
        "adapter": base.model.adapter,
        "adapter_conf": base.model.adapter_conf,
    }
    if train == "lora":
        model["lora"] = {"r": 8, "alpha": 32, "dropout": 0.1, "targets": TARGETS}
    parts = {pattern: {} for pattern in TRAINS[train]}
    run = {
        "model": model,
        "train_parts": parts,
        "max_steps": 1,
        "engine": "fsdp",
        "dtype": "bfloat16",
        "checkpointing": True,
    }
    return config.from_dict(run)


def work(folder: str, train: str) -> None:
    """Be one process of the run, and print what it took."""
    libraries = status("VmRSS")
    began = time.monotonic()
    conf = run_conf(folder, train)
    world = dist.start(1)
    torch.manual_seed(conf.seed)
    model, _ = open_model(conf, None)
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    engine = dist.Engine(model, conf, world)
    groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    make_optimizer(groups, conf.optim, world.device)
    found = {
        "weights": weight_bytes(engine.module),
        "libraries": libraries,
        "peak": status("VmHWM"),
        "after": status("VmRSS"),
        "seconds": time.monotonic() - began,
    }
    dist.barrier()
    text = json.dumps(found)
    print(text, flush=True)
    dist.stop()


def weight_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of the parameters of all processes."""
    total = 0
    for parameter in model.parameters():
        total += parameter.numel() * parameter.element_size()
    return total


def measure(folder: str, train: str, ranks: int) -> list[dict]:
    """Start the processes; returns what each prints."""
    command = [sys.executable, __file__, "--worker", folder, "--train", train]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    running = []
    for number in range(ranks):
        rank = str(number)
        env = os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        running.append(process)

    found = []
    for process in running:
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a process ended with {process.returncode}")
        *_, last = said.splitlines()
        found.append(json.loads(last))
    return found


def free_port() -> str:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        _, port = free.getsockname()
    return str(port)


def row(ranks: int, found: list[dict]) -> tuple[str, bool]:
    """Return the line of the table for a number of processes, and whether the bar is met."""
    # Of each figure that of the process where it is the largest.
    most = {}
    for name in found[0]:
        most[name] = max(one[name] for one in found)
    weights = most["weights"] / GIB
    libraries = most["libraries"] / GIB
    after = most["after"] / GIB
    peak = most["peak"] / GIB

    share = weights / ranks
    bound = SHARE * share + SLACK_GIB
    met = "met" if peak <= bound else "missed"
    line = (
        f"| {ranks} | {weights:.2f} | {share:.2f} | {libraries:.2f} | {after:.2f} | {peak:.2f} "
        f"| {bound:.2f}, {met} | {most['seconds']:.0f} |"
    )
    return line, peak <= bound


def main(argv: list[str] | None = None) -> int:
    """Write the files, measure, print the table; returns 1 where the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--ranks", type=int, nargs="+", default=[2, 4], help="numbers of processes")
    add("--divisor", type=int, default=4, help="layers are the published ones divided by this")
    add("--train", choices=TRAINS, default="lora", help="what of the LLM trains")
    add("--llm", choices=published_sizes.QWEN2, default="Qwen/Qwen2-7B")
    add("--whisper", choices=published_sizes.WHISPER, default="openai/whisper-medium")
    add("--dir", help="where the files go (default: a temporary folder)")
    add("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        work(args.worker, args.train)
        return 0

    print("| processes | weights, GiB | ÷ processes | libraries | after | peak | bar | s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    all_met = True
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        write_models(Path(folder), args)
        for ranks in args.ranks:
            found = measure(folder, args.train, ranks)
            line, met = row(ranks, found)
            print(line, flush=True)
            all_met = all_met and met
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
