#!/usr/bin/env python3
"""The memory that `wenet_osum estimate` counts beside what a step takes on this CPU, for every conf
of the examples at a fraction of its depth and width.

    python tools/bench/estimate_memory.py
    python tools/bench/estimate_memory.py --divisor 4 --recipe osum/conf/7b natural/conf
    python tools/bench/estimate_memory.py --recipe osum/conf/7b --only 4_lora \\
        --override engine=ddp model.quantization=nf4

Both have the same reduced sizes and the same micro-batch. The step is that of training: the engine
of the conf (one process), its dtypes, checkpointing and losses, AdamW's moments there, and the
gradients of a micro-batch before. Its peak is that of all tensors that live at a time, each storage
once, seen by a TorchDispatchMode. A vocabulary is reduced with the width, or its logits would be
all there is to see, and the classes of CTC as well. The adapter has no dropout here: with it,
attention on a CPU keeps square matrices, as no GPU's does. Confs for models made from nothing are
measured at the sizes of published ones, as all others are.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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
from wenet_osum.small.train_tokenizer import train_tokenizer  # noqa: E402
from wenet_osum.text import ctc_classes  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402
from wenet_osum.train.dry_run import materialize  # noqa: E402
from wenet_osum.train.estimate import (  # noqa: E402
    Estimate,
    Mean,
    batch_of,
    estimate,
    meta_model,
    states_after,
)
from wenet_osum.train.inherited import inherited  # noqa: E402
from wenet_osum.train.optim import fill_state, make_optimizer  # noqa: E402

MIB = 2**20
EXAMPLES = ROOT / "examples"
SMALL = ("openai/whisper-small", "Qwen/Qwen2-0.5B")
BASE = ("openai/whisper-base", "Qwen/Qwen2.5-0.5B-Instruct")
FOUR = ("1_whisper", "2_adapter", "3_encoder")


class Recipe(NamedTuple):
    """The confs of a recipe, in their order."""

    models: tuple[str, str]  # Whisper and LLM
    names: tuple[str, ...]
    # Layers of the encoder where the confs name some of them; 0: as many as elsewhere.
    encoder_layers: int = 0
    # The conf whose model the first one continues, where that is of another recipe.
    before: str = ""


RECIPES = {
    "osum/conf/0.5b": Recipe(SMALL, (*FOUR, "4_lora", "4_full")),
    "osum/conf/7b": Recipe(("openai/whisper-medium", "Qwen/Qwen2-7B"), (*FOUR, "4_lora", "4_full")),
    "osum/conf/small": Recipe(SMALL, (*FOUR, "4_llm")),
    "toy/conf": Recipe(SMALL, (*FOUR, "4_llm", "4_lora")),
    "fsdd/conf": Recipe(SMALL, (*FOUR, "4_llm")),
    "ravdess/conf": Recipe(SMALL, (*FOUR, "4_llm")),
    "esc50/conf": Recipe(SMALL, (*FOUR, "4_llm")),
    "natural/conf": Recipe(BASE, ("1_whisper", "2_align", "3_joint"), 6),
    "asrx/conf": Recipe(BASE, ("cell", "cell_encoder"), 6, "natural/conf/train_2_align"),
    "soundwave/conf": Recipe(BASE, ("1_align", "2_shrink", "3_sft")),
    "kimi_audio/conf": Recipe(BASE, ("1_adapter", "2_sft")),
}
# Classes of CTC in a recipe with published weights.
CLASSES = 1000
# What is said in every utterance.
WORDS = " ".join(["word"] * 10)
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


class Phase(NamedTuple):
    """A conf, and the models of the phases before it."""

    name: str
    conf: config.TrainConfig
    before: list[config.ModelConfig]


def phases_of(
    recipe: str, divisor: int, classes: Path, only: str = "", overrides: Sequence[str] = ()
) -> list[Phase]:
    """Load the confs of a recipe whose names hold ``only``, with ``overrides``, each with what it
    takes over from the one before."""
    _, names, _, first = RECIPES[recipe]
    stems = [f"{recipe}/train_{name}" for name in names]
    if first:
        stems.insert(0, first)

    found = []
    before: list[config.ModelConfig] = []
    for stem in stems:
        is_asked = only in stem and stem != first
        conf = loaded(stem, classes, overrides if is_asked else ())
        if before:
            conf.model = inherited(conf.model, before[-1])
        else:
            fewer = reduced_adapter(conf.model.adapter_conf, divisor)
            conf.model = replace(conf.model, adapter_conf=fewer)
        phase = Phase(stem, conf, [*before])
        if is_asked:
            found.append(phase)
        if conf.model.kind != "whisper":
            before.append(conf.model)
    return found


def loaded(stem: str, classes: Path, overrides: Sequence[str]) -> config.TrainConfig:
    """Load a conf of the examples, its CTC with the classes of a file where it has any."""
    path = EXAMPLES / f"{stem}.yaml"
    conf = config.load(path, config.TrainConfig, overrides)
    for loss in conf.model.losses:
        if "classes" in loss:
            loss["classes"] = str(classes)
    return conf


def reduced_adapter(sizes: dict[str, Any], divisor: int) -> dict[str, Any]:
    """Divide the width inside of an adapter, where the conf gives it, and leave dropout out."""
    fewer = sizes | {"dropout": 0.0}
    if "ffn" in sizes:
        fewer["ffn"] = sizes["ffn"] // divisor
    return fewer


def template_with_classes(folder: str, count: int) -> tuple[Template, Path]:
    """Return a template whose tokenizer spells by byte pairs, and a file of so many CTC classes."""
    draws = random.Random(0)
    letters = draws.choices("abcdefghijklmnop ", k=10000)
    texts = ["".join(letters), WORDS]
    tokenizer = train_tokenizer(texts, 600)
    classes = ctc_classes.learn(tokenizer, texts, count)
    path = Path(folder) / "classes.json"
    path.write_text(json.dumps(classes), encoding="utf-8")
    return Template(tokenizer), path


def made_up(
    phase: Phase, sizes: tuple[PreTrainedConfig, PreTrainedConfig | None], template: Template
) -> nn.Module:
    """Return the model of a phase with random weights, and the losses of all phases so far."""
    empty = meta_model(phase.conf.model, *sizes)
    model = materialize(empty)
    if phase.conf.model.kind == "whisper":
        # The objective brings the head that it needs.
        model.ctc_head = None
    # What was trained before says what an adapter may rely on.
    for trained in (*phase.before, phase.conf.model):
        objective = make_objective(trained, template)
        model.set_objective(objective)
    return model


def measured(
    phase: Phase,
    sizes: tuple[PreTrainedConfig, PreTrainedConfig | None],
    found: Estimate,
    template: Template,
    world: dist.World,
) -> int:
    """Return the peak bytes of the second micro-batch of a step."""
    conf = phase.conf
    model = made_up(phase, sizes, template)
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    if conf.checkpointing:
        build.set_checkpointing(model)
    engine = dist.Engine(model, conf, world)
    groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    optimizer = make_optimizer(groups, conf.optim, world.device)
    states = fill_state(optimizer)
    model.train()
    after = states_after(model, conf)

    step(engine, found, after)
    live = Live()
    tensors = held(model) + moments(states)
    live.add(*tensors)
    with live:
        step(engine, found, after)
    return live.peak


def step(engine: dist.Engine, found: Estimate, after: int | None) -> None:
    """Run a micro-batch forward and backward; of features, or of states after so many layers."""
    model = engine.module
    count = found.utterances
    batch = batch_of(model, found.mean, count, "cpu", after)
    utterance = Utterance("", "", WORDS)
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
        if getattr(parameter, "quant_state", None):
            tensors.append(parameter.quant_state.absmax)
        if parameter.grad is not None:
            tensors.append(parameter.grad)
    return tensors


def moments(states: dict[Tensor, dict[str, Tensor]]) -> list[Tensor]:
    """Return the tensors of the optimizer."""
    tensors = []
    for state in states.values():
        tensors += state.values()
    return tensors


def row(
    phase: Phase,
    recipe: Recipe,
    template: Template,
    args: argparse.Namespace,
    world: dist.World,
) -> float:
    """Measure a conf and print its line; returns the deviation of the estimate."""
    conf = phase.conf
    conf.batch.max_frames = conf.batch.max_tokens = 10**9
    conf.batch.max_utterances = args.utterances

    speech, language = recipe.models
    whisper = published_sizes.WHISPER[speech]()
    llm = published_sizes.QWEN2[language]()
    encoder_layers = recipe.encoder_layers or args.layers
    reduced(whisper, args.divisor, encoder_layers)
    reduced(llm, args.divisor, args.layers)
    sizes = (whisper, llm)
    if conf.model.kind == "whisper":
        sizes = (whisper, None)

    mean = Mean(args.seconds, 20, 40)
    found = estimate(conf, *sizes, mean)
    peak = measured(phase, sizes, found, template, world)
    deviation = found.total / peak - 1
    counted = found.total / MIB
    taken = peak / MIB
    print(f"| {phase.name} | {counted:.1f} | {taken:.1f} | {deviation:+.1%} |", flush=True)
    return deviation


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--divisor", type=int, default=8, help="of widths and vocabulary")
    add("--layers", type=int, default=2, help="per stack")
    add("--utterances", type=int, default=4, help="of a micro-batch")
    add("--seconds", type=float, default=4.0, help="of an utterance")
    add("--recipe", choices=RECIPES, nargs="+", default=list(RECIPES))
    add("--only", default="", help="the confs whose names hold this")
    add("--override", nargs="+", default=[], metavar="NAME=VALUE", help="of the confs")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Print a line per conf; returns 1 where an estimate deviates by more than a tenth."""
    args = arguments(argv)
    world = dist.start(1)
    print("| conf | counted, MiB | taken, MiB | deviation |\n|---|---|---|---|", flush=True)
    largest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        template, classes = template_with_classes(folder, CLASSES // args.divisor)
        for recipe in args.recipe:
            for phase in phases_of(recipe, args.divisor, classes, args.only, args.override):
                deviation = row(phase, RECIPES[recipe], template, args, world)
                largest = max(largest, abs(deviation))
    dist.stop()
    print(f"largest deviation {largest:.1%}")
    return 0 if largest <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
