#!/usr/bin/env python3
"""The memory that `wenet_osum estimate` counts beside what a step takes on this CPU, for every conf
of examples/osum at a fraction of its depth and width.

    python tools/bench/estimate_memory.py
    python tools/bench/estimate_memory.py --divisor 4 --size 7b

Both have the same reduced sizes and the same micro-batch. The step is that of training: the engine
of the conf (one process), its dtypes, checkpointing and losses, AdamW's moments there, and the
gradients of a micro-batch before. Its peak is that of all tensors that live at a time, each storage
once, seen by a TorchDispatchMode. A vocabulary is reduced with the width, or its logits would be
all there is to see. The adapter has no dropout here: with it, attention on a CPU keeps square
matrices, as no GPU's does.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from pathlib import Path
from typing import Any

from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import published_sizes  # noqa: E402
from transformers import PreTrainedConfig  # noqa: E402

from wenet_osum import config, dist  # noqa: E402
from wenet_osum.dataset.batch import join_targets  # noqa: E402
from wenet_osum.models import build, trainable  # noqa: E402
from wenet_osum.models.objective import make_objective  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402
from wenet_osum.train.dry_run import any_template, materialize  # noqa: E402
from wenet_osum.train.estimate import Estimate, Mean, batch_of, estimate, meta_model  # noqa: E402
from wenet_osum.train.optim import fill_state, make_optimizer  # noqa: E402

MIB = 2**20
CONFS = ROOT / "examples/osum/conf"
NAMES = ("1_whisper", "2_adapter", "3_encoder", "4_lora", "4_full")
# conf folder → Whisper and LLM.
MODELS = {
    "0.5b": ("openai/whisper-small", "Qwen/Qwen2-0.5B"),
    "7b": ("openai/whisper-medium", "Qwen/Qwen2-7B"),
}
# Names of sizes that are divided, and of those that are layers.
WIDTHS = ("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_size", "intermediate_size")
HEADS = ("encoder_attention_heads", "decoder_attention_heads", "num_attention_heads")
DEPTHS = ("encoder_layers", "decoder_layers", "num_hidden_layers")


class Live(TorchDispatchMode):
    """Find the peak of the bytes of all storages that live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        # By their addresses.
        self.sizes: dict[int, int] = {}
        self.resize = UntypedStorage.resize_

    def __enter__(self) -> Live:
        # FSDP empties storages that live on, past all dispatch.
        def resize(storage: UntypedStorage, size: int) -> UntypedStorage:
            resized = self.resize(storage, size)
            self.note(storage)
            return resized

        UntypedStorage.resize_ = resize
        return super().__enter__()

    def __exit__(self, *fault: object) -> None:
        UntypedStorage.resize_ = self.resize
        super().__exit__(*fault)

    def add(self, *tensors: Tensor) -> None:
        """Count the storages of tensors."""
        for tensor in tensors:
            if hasattr(tensor, "to_local"):
                tensor = tensor.to_local()
            storage = tensor.untyped_storage()
            self.note(storage)

    def note(self, storage: UntypedStorage) -> None:
        """Count a storage as large as it is now."""
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = 0
            weakref.finalize(storage, self._gone, key)
        size = storage.nbytes()
        self.now += size - self.sizes[key]
        self.sizes[key] = size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves(result)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self.add(*tensors)
        return result


def reduced(sizes: PreTrainedConfig, divisor: int, layers: int) -> PreTrainedConfig:
    """Divide widths, heads and vocabulary of a model, keep so many layers per stack; returns it."""
    # Some configurations have a second name for a size; a table has each once.
    table = sizes.to_dict()
    for name in (*WIDTHS, "vocab_size"):
        if name in table:
            value = getattr(sizes, name)
            setattr(sizes, name, value // divisor)
    width = sizes.hidden_size
    for name in HEADS:
        if name in table:
            heads = max(1, table[name] // divisor)
            while width % heads:
                heads -= 1
            setattr(sizes, name, heads)
    for name in DEPTHS:
        if name in table:
            setattr(sizes, name, layers)
    if "num_key_value_heads" in table:
        sizes.num_key_value_heads = 1
        sizes.layer_types = sizes.layer_types[:layers]
    # Special tokens that a small vocabulary does not have.
    for name in ("pad", "bos", "eos", "decoder_start"):
        setattr(sizes, f"{name}_token_id", 0)
    return sizes


def conf_of(size: str, name: str, divisor: int) -> config.TrainConfig:
    """Load a conf, with the adapter of its phase 2 reduced as well."""
    conf = config.load(CONFS / size / f"train_{name}.yaml", config.TrainConfig)
    if conf.model.kind != "whisper":
        second = config.load(CONFS / size / "train_2_adapter.yaml", config.TrainConfig)
        adapter = dict(second.model.adapter_conf)
        adapter["ffn"] //= divisor
        adapter["dropout"] = 0.0
        conf.model.adapter_conf = adapter
    return conf


def measured(
    conf: config.TrainConfig,
    sizes: tuple[PreTrainedConfig, PreTrainedConfig | None],
    found: Estimate,
    world: dist.World,
) -> int:
    """Return the peak bytes of the second micro-batch of a step."""
    empty = meta_model(conf.model, *sizes)
    model = materialize(empty)
    template = any_template()
    objective = make_objective(conf.model, template)
    model.set_objective(objective)
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    if conf.checkpointing:
        build.set_checkpointing(model)
    engine = dist.Engine(model, conf, world)
    groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    optimizer = make_optimizer(groups, conf.optim, world.device)
    states = fill_state(optimizer)
    model.train()

    step(engine, found)
    live = Live()
    tensors = held(model) + moments(states)
    live.add(*tensors)
    with live:
        step(engine, found)
    return live.peak


def step(engine: dist.Engine, found: Estimate) -> None:
    """Run a micro-batch forward and backward."""
    model = engine.module
    count = found.utterances
    batch = batch_of(model, found.mean, count, "cpu")
    words = ["word"] * found.mean.answer_tokens
    text = " ".join(words)
    utterance = Utterance("", "", text)
    targets = model.objective.targets(utterance)
    batch.targets = join_targets([targets] * count)
    with engine.accumulating(last=True):
        loss = engine.loss(batch).loss
        loss.backward()


def held(model: nn.Module) -> list[Tensor]:
    """Return parameters, gradients and buffers."""
    tensors = list(model.buffers())
    for parameter in model.parameters():
        tensors.append(parameter.data)
        if parameter.grad is not None:
            tensors.append(parameter.grad)
    return tensors


def moments(states: dict[Tensor, dict[str, Tensor]]) -> list[Tensor]:
    """Return the tensors of the optimizer."""
    tensors = []
    for state in states.values():
        tensors += state.values()
    return tensors


def row(size: str, name: str, args: argparse.Namespace, world: dist.World) -> float:
    """Measure a conf and print its line; returns the deviation of the estimate."""
    conf = conf_of(size, name, args.divisor)
    conf.batch.max_frames = conf.batch.max_tokens = 10**9
    conf.batch.max_utterances = args.utterances

    speech, language = MODELS[size]
    whisper = published_sizes.WHISPER[speech]()
    llm = published_sizes.QWEN2[language]()
    for part in (whisper, llm):
        reduced(part, args.divisor, args.layers)
    sizes = (whisper, llm)
    if conf.model.kind == "whisper":
        sizes = (whisper, None)

    mean = Mean(args.seconds, 20, 40)
    found = estimate(conf, *sizes, mean)
    peak = measured(conf, sizes, found, world)
    deviation = found.total / peak - 1
    counted = found.total / MIB
    taken = peak / MIB
    print(f"| {size}, {name} | {counted:.1f} | {taken:.1f} | {deviation:+.1%} |", flush=True)
    return deviation


def main(argv: list[str] | None = None) -> int:
    """Print a line per conf; returns 1 where an estimate deviates by more than a tenth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--divisor", type=int, default=8, help="of widths and vocabulary")
    add("--layers", type=int, default=2, help="per stack")
    add("--utterances", type=int, default=4, help="of a micro-batch")
    add("--seconds", type=float, default=4.0, help="of an utterance")
    add("--size", choices=MODELS, nargs="+", default=list(MODELS))
    add("--name", choices=NAMES, nargs="+", default=NAMES, help="phases")
    args = parser.parse_args(argv)
    world = dist.start(1)
    print("| conf | counted, MiB | taken, MiB | deviation |\n|---|---|---|---|", flush=True)
    largest = 0.0
    for size in args.size:
        for name in args.name:
            deviation = row(size, name, args, world)
            largest = max(largest, abs(deviation))
    dist.stop()
    print(f"largest deviation {largest:.1%}")
    return 0 if largest <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
