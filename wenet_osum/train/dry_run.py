"""One true step of a configuration at its true widths and vocabulary, with few layers or all: it runs, learns, is saved, and comes back the same.

Weights are made up: a block of random numbers, repeated. Nothing is downloaded; only the sizes of the models are needed.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from wenet_osum import lookup
from wenet_osum.config import TrainConfig
from wenet_osum.dataset.batch import join_targets
from wenet_osum.models import build, trainable
from wenet_osum.models.objective import make_objective
from wenet_osum.records import Utterance
from wenet_osum.text.template import Template
from wenet_osum.text.tokenizer import END_OF_TEXT
from wenet_osum.train import dist
from wenet_osum.train.estimate import Mean, batch_of, meta_model, states_after
from wenet_osum.train.sanity import fingerprint
from wenet_osum.train.optim import make_optimizer
from wenet_osum.train.rehearse import peak_gib, reset_peak

BLOCK = 1 << 20  # random numbers drawn; all weights are made of them
SCALE = 0.02  # their standard deviation


@dataclass
class DryRun:
    """What came of it."""

    table: str  # parts, parameters, what trains
    loss: float  # nats a token, before the step
    moved: int  # trained tensors that the step changed
    trained: int  # trained tensors
    peak_gib: float  # of the accelerator, or of this process
    seconds: float  # of the step
    differences: list[str]  # tensors that did not come back the same

    @property
    def passed(self) -> bool:
        """A finite loss, every part moved, nothing lost on disk."""
        return bool(torch.isfinite(torch.tensor(self.loss))) and self.moved > 0 and not self.differences


def shallow(sizes: PreTrainedConfig, layers: int | None) -> PreTrainedConfig:
    """The same sizes with at most ``layers`` layers a stack; None: as they are."""
    sizes = copy.deepcopy(sizes)
    for name in ("num_hidden_layers", "encoder_layers", "decoder_layers") if layers else ():
        if hasattr(sizes, name):
            setattr(sizes, name, min(layers, getattr(sizes, name)))
    if layers and getattr(sizes, "layer_types", None):
        sizes.layer_types = sizes.layer_types[:layers]
    return sizes


def dry_run(
    conf: TrainConfig, whisper: PreTrainedConfig, llm: PreTrainedConfig | None, mean: Mean, count: int = 1, layers: int | None = 2
) -> DryRun:
    """One optimizer step on ``count`` mean utterances, a save and a load. ``layers`` a stack; None: all."""
    torch.manual_seed(conf.seed)
    lookup.add_plugins(conf.plugins)
    world = dist.start(conf.threads)
    try:
        model = materialize(meta_model(conf.model, shallow(whisper, layers), llm and shallow(llm, layers)))
        model.set_objective(make_objective(conf.model, any_template()))
        groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
        table = trainable.table(model, groups)
        if conf.checkpointing:
            build.set_checkpointing(model)
        engine = dist.Engine(model, conf, world)
        groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
        reset_peak()
        loss, moved, seconds = _step(engine, groups, conf, mean, count)
        trained = sum(len(group["params"]) for group in groups)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, **({} if (weights := engine.weights()) is None else {"state_dict": weights}))
            wanted = {name: (p.dtype, fingerprint(p)) for name, p in model.named_parameters()}
            del model, engine, groups, weights  # room for the second one
            differences = _differences(wanted, folder)
        return DryRun(table, loss, moved, trained, peak_gib(), seconds, differences)
    finally:
        dist.stop()


def any_template() -> Template:
    """Make a template that fits a vocabulary of any size: its end of text is id 0, every word is id 1."""
    words = Tokenizer(WordLevel({END_OF_TEXT: 0, "word": 1}, unk_token="word"))
    words.pre_tokenizer = Whitespace()
    return Template(PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END_OF_TEXT))


@torch.no_grad()
def materialize(model: nn.Module) -> nn.Module:
    """A model of the meta device with weights: random matrices, norms of one, biases of zero."""
    tied: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(p), []).append(name)
    model = model.to_empty(device="cpu")
    for first, *others in tied.values():  # to_empty has given each its own tensor
        for other in others:
            owner, _, leaf = other.rpartition(".")
            setattr(model.get_submodule(owner), leaf, model.get_parameter(first))
    block = torch.randn(BLOCK) * SCALE
    for name, p in model.named_parameters():
        flat = p.data.view(-1)
        if p.ndim > 1:
            for piece in flat.split(BLOCK):
                piece.copy_(block[: len(piece)])
        else:
            flat.fill_(0.0 if name.endswith("bias") else 1.0)
    for name, buffer in _buffers(model):
        raise ValueError(f"buffer {name} {tuple(buffer.shape)} of {type(model).__name__} cannot be made up; run a real model instead")
    return model


def _buffers(model: nn.Module) -> list[tuple[str, Any]]:
    """Buffers that only the model's constructor can fill; rotary frequencies are made again."""
    odd = []
    for name, module in model.named_modules():
        if hasattr(module, "inv_freq") and hasattr(module, "config"):
            fresh = type(module)(module.config)
            for key, buffer in fresh.named_buffers(recurse=False):
                module.register_buffer(key, buffer, persistent=False)
            if hasattr(module, "original_inv_freq"):
                module.original_inv_freq = fresh.inv_freq
        else:
            odd += [(f"{name}.{key}", buffer) for key, buffer in module.named_buffers(recurse=False)]
    return odd


def _step(engine: dist.Engine, groups: list[dict[str, Any]], conf: TrainConfig, mean: Mean, count: int) -> tuple[float, int, float]:
    """Loss a token, how many trained tensors the step changed, and its time (s)."""
    model = engine.module
    optimizer = make_optimizer(groups, conf.optim, engine.world.device)
    before = {n: fingerprint(p) for n, p in model.named_parameters() if p.requires_grad}
    model.train()
    batch = batch_of(model, mean, count, "cpu", states_after(model, _within(conf, model)))
    batch.targets = join_targets([model.objective.targets(Utterance("", "", "word"))] * count)
    start = time.monotonic()
    with engine.accumulating(last=True):
        output = engine.loss(batch)
        loss = output.loss / output.weight
        loss.backward()
    engine.clip(conf.optim.clip)
    optimizer.step()
    seconds = time.monotonic() - start
    moved = sum(fingerprint(p) != before[n] for n, p in model.named_parameters() if n in before)
    return loss.item(), moved, seconds


def _within(conf: TrainConfig, model: nn.Module) -> TrainConfig:
    """With states after all layers where ``conf`` wants more layers below them than a shallow
    model has.
    """
    depth = getattr(model.encoder, "depth", 0)
    if conf.cache.after is None or conf.cache.after <= depth:
        return conf
    return dataclasses.replace(conf, cache=dataclasses.replace(conf.cache, after=None))


def _differences(wanted: dict[str, tuple[torch.dtype, int]], folder: str) -> list[str]:
    """Names of tensors that a model loaded from ``folder`` has otherwise, or not at all."""
    loaded = dict(build.load(Path(folder)).named_parameters())
    same = [name for name, (dtype, value) in wanted.items() if name in loaded and fingerprint(loaded[name].to(dtype)) == value]
    return sorted((wanted.keys() | loaded.keys()) - set(same))
