"""Take one true step of a configuration, at its true widths and vocabulary.

With few layers or all, it shows that the configuration runs, learns, is saved, and comes back the
same. Weights are made up: a block of random numbers, repeated. Nothing is downloaded; only the
sizes of the models are needed.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from wenet_osum import dist, lookup
from wenet_osum.config import ModelConfig, TrainConfig
from wenet_osum.dataset.batch import join_targets
from wenet_osum.models import build, trainable
from wenet_osum.models.objective import make_objective
from wenet_osum.records import Utterance
from wenet_osum.text import ctc_classes
from wenet_osum.text.template import Template
from wenet_osum.text.tokenizer import END_OF_TEXT
from wenet_osum.train.estimate import Mean, batch_of, meta_model, states_after
from wenet_osum.train.optim import make_optimizer
from wenet_osum.train.rehearse import peak_gib, reset_peak
from wenet_osum.train.sanity import fingerprint

# Random numbers drawn; all weights are made of them.
BLOCK = 1 << 20
# Their standard deviation.
SCALE = 0.02

# Parameter name → its dtype and its fingerprint.
Fingerprints = dict[str, tuple[torch.dtype, int]]


@dataclass
class DryRun:
    """The outcome of a dry run."""

    # The parts, their parameters, and what trains, as a text.
    table: str
    # Nats per token, before the step.
    loss: float
    # Trained tensors that the step changed.
    moved: int
    # Trained tensors.
    trained: int
    # Peak memory of the accelerator, or of this process.
    peak_gib: float
    # Time of the step.
    seconds: float
    # Names of tensors that did not come back the same.
    differences: list[str]

    @property
    def passed(self) -> bool:
        """Return True for a finite loss, weights that moved, and nothing lost on disk."""
        learned = math.isfinite(self.loss) and self.moved > 0
        return learned and not self.differences


def shallow(sizes: PreTrainedConfig, layers: int | None) -> PreTrainedConfig:
    """Copy the sizes of a model with at most ``layers`` layers per stack; None leaves all."""
    sizes = copy.deepcopy(sizes)
    if not layers:
        return sizes
    for name in ("num_hidden_layers", "encoder_layers", "decoder_layers"):
        if hasattr(sizes, name):
            fewer = min(layers, getattr(sizes, name))
            setattr(sizes, name, fewer)
    if getattr(sizes, "layer_types", None):
        sizes.layer_types = sizes.layer_types[:layers]
    return sizes


def dry_run(
    conf: TrainConfig,
    whisper: PreTrainedConfig,
    llm: PreTrainedConfig | None,
    mean: Mean,
    count: int = 1,
    layers: int | None = 2,
) -> DryRun:
    """Take one optimizer step on ``count`` mean utterances, save the model and load it.

    ``layers`` is the number of layers per stack, None for all.
    """
    torch.manual_seed(conf.seed)
    lookup.add_plugins(conf.plugins)
    world = dist.start(conf.threads)
    try:
        sizes = (shallow(whisper, layers), llm and shallow(llm, layers))
        with tempfile.TemporaryDirectory() as folder:
            outcome, saved = _step_and_save(conf, sizes, mean, count, world, folder)
            # The first model is gone by now, which makes room for the second.
            outcome.differences = _differences(saved, folder)
        outcome.peak_gib = peak_gib()
        return outcome
    finally:
        dist.stop()


def _step_and_save(
    conf: TrainConfig,
    sizes: tuple[PreTrainedConfig, PreTrainedConfig | None],
    mean: Mean,
    count: int,
    world: dist.World,
    folder: str,
) -> tuple[DryRun, Fingerprints]:
    """Make the model, take the step and write the model to ``folder``.

    Returns the outcome so far, and what a loaded model has to be equal to.
    """
    model = materialize(meta_model(conf.model, *sizes))
    conf = _within(conf, model)
    objective = make_objective(_counted_classes(conf.model), any_template())
    if conf.model.kind == "whisper":
        # The objective brings a head for its own classes.
        model.ctc_head = None
    model.set_objective(objective)
    groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    table = trainable.table(model, groups)
    if conf.checkpointing:
        build.set_checkpointing(model)
    engine = dist.Engine(model, conf, world)
    # Once more, for FSDP has put other tensors in the place of the parameters.
    groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)

    reset_peak()
    loss, moved, seconds = _step(engine, groups, conf, mean, count)
    trained = sum(len(group["params"]) for group in groups)

    weights = engine.weights()
    given = {} if weights is None else {"state_dict": weights}
    model.save_pretrained(folder, **given)
    saved = {}
    for name, p in model.named_parameters():
        saved[name] = (p.dtype, fingerprint(p))
    outcome = DryRun(
        table=table,
        loss=loss,
        moved=moved,
        trained=trained,
        peak_gib=peak_gib(),
        seconds=seconds,
        differences=[],
    )
    return outcome, saved


def any_template() -> Template:
    """Make a template that fits a vocabulary of any size.

    Its end of text is id 0, and every word is id 1.
    """
    pieces = BPE({END_OF_TEXT: 0, "word": 1}, merges=[], unk_token="word", fuse_unk=True)
    words = Tokenizer(pieces)
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END_OF_TEXT)
    return Template(tokenizer)


def _counted_classes(model: ModelConfig) -> ModelConfig:
    """Let CTC have as many classes as its file names, which are tokens of the real LLM: ids from 1
    on, of the words of ``any_template``."""
    losses = []
    for entry in model.losses:
        if isinstance(entry.get("classes"), str):
            count = ctc_classes.count(entry["classes"])
            entry = entry | {"classes": range(1, count + 1)}
        losses.append(entry)
    return dataclasses.replace(model, losses=losses)


@torch.no_grad()
def materialize(model: nn.Module) -> nn.Module:
    """Give a model of the meta device weights on the CPU.

    Matrices are random, norms and gains one, biases zero. Raises ValueError for a buffer that
    cannot be made up.
    """
    model = _emptied(model)
    block = torch.randn(BLOCK) * SCALE
    for name, p in model.named_parameters():
        flat = p.data.view(-1)
        if p.ndim > 1:
            for piece in flat.split(BLOCK):
                piece.copy_(block[: len(piece)])
        else:
            flat.fill_(0.0 if name.endswith("bias") else 1.0)

    for name, buffer in _odd_buffers(model):
        if buffer.ndim == 0 and buffer.is_floating_point():
            # A gain, such as those of the adapters.
            buffer.fill_(1.0)
            continue
        shape = tuple(buffer.shape)
        raise ValueError(
            f"buffer {name} {shape} of {type(model).__name__} cannot be made up; "
            "run a real model instead"
        )
    return model


def _emptied(model: nn.Module) -> nn.Module:
    """Move a model of the meta device to the CPU, its numbers not set, its tied weights tied."""
    names_of: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(p), []).append(name)
    model = model.to_empty(device="cpu")

    # ``to_empty`` has given each of two tied weights its own tensor.
    for first, *others in names_of.values():
        for other in others:
            owner, _, leaf = other.rpartition(".")
            setattr(model.get_submodule(owner), leaf, model.get_parameter(first))
    return model


def _odd_buffers(model: nn.Module) -> list[tuple[str, Any]]:
    """Make rotary frequencies again, and return the buffers that only a constructor can fill."""
    odd = []
    for name, module in model.named_modules():
        if not (hasattr(module, "inv_freq") and hasattr(module, "config")):
            for key, buffer in module.named_buffers(recurse=False):
                odd.append((f"{name}.{key}", buffer))
            continue
        fresh = type(module)(module.config)
        for key, buffer in fresh.named_buffers(recurse=False):
            module.register_buffer(key, buffer, persistent=False)
        if hasattr(module, "original_inv_freq"):
            module.original_inv_freq = fresh.inv_freq
    return odd


def _step(
    engine: dist.Engine,
    groups: list[dict[str, Any]],
    conf: TrainConfig,
    mean: Mean,
    count: int,
) -> tuple[float, int, float]:
    """Take the step.

    Returns the loss per token, how many trained tensors the step changed, and its time (s).
    """
    model = engine.module
    optimizer = make_optimizer(groups, conf.optim, engine.world.device)
    before = _trained_fingerprints(model)
    model.train()
    after = states_after(model, conf)
    batch = batch_of(model, mean, count, "cpu", after)
    targets = model.objective.targets(Utterance("", "", "word"))
    batch.targets = join_targets([targets] * count)

    start = time.monotonic()
    with engine.accumulating(last=True):
        output = engine.loss(batch)
        loss = output.loss / output.weight
        loss.backward()
    engine.clip(conf.optim.clip)
    optimizer.step()
    seconds = time.monotonic() - start

    moved = 0
    for name, value in _trained_fingerprints(model).items():
        moved += value != before[name]
    return loss.item(), moved, seconds


def _within(conf: TrainConfig, model: nn.Module) -> TrainConfig:
    """Return ``conf`` for a model with fewer layers than the real one: without the train_parts that
    name only what it lacks, and with states after all its layers in the place of more."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    parts = {}
    for pattern, part in conf.train_parts.items():
        if fnmatch.filter(names, pattern):
            parts[pattern] = part

    cache = conf.cache
    depth = getattr(model.encoder, "depth", 0)
    if cache.after is not None and cache.after > depth:
        cache = dataclasses.replace(cache, after=None)
    return dataclasses.replace(conf, train_parts=parts, cache=cache)


def _trained_fingerprints(model: nn.Module) -> dict[str, int]:
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            found[name] = fingerprint(p)
    return found


def _differences(saved: Fingerprints, folder: str) -> list[str]:
    """List the tensors that a model loaded from ``folder`` has otherwise, or not at all."""
    model = build.load(Path(folder))
    loaded = dict(model.named_parameters())
    different = saved.keys() ^ loaded.keys()
    for name in saved.keys() & loaded.keys():
        dtype, value = saved[name]
        tensor = loaded[name].to(dtype)
        if fingerprint(tensor) != value:
            different.add(name)
    return sorted(different)
