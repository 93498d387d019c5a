"""Run one forward and backward pass on the meta device, and count its FLOPs and what it keeps.

How each is counted is told in train/estimate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_layers import GradientCheckpointingLayer

from wenet_osum.records import Batch

# FLOPs of attention's backward pass as a multiple of its forward pass, without recomputation.
FLASH_BACKWARD = 2.0


def checkpointed_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that checkpointing runs again, those of the stacks."""
    layers = []
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            layers.append(module)
    return layers


class Costs(NamedTuple):
    """The cost of one forward and backward pass."""

    flops: float
    # FLOPs that checkpointing adds.
    recomputed: float
    # Bytes kept for the backward pass.
    kept: float
    # Those of what answers, which runs back before the losses of speech do.
    answering: float
    # Bytes kept in the layer that checkpointing runs again at a time, of the largest.
    again: float = 0.0


def run_pass(model: nn.Module, batch: Batch, checkpointing: bool) -> Costs:
    """Run one pass without checkpointing, and work out from its layers what that would change."""
    kept, layers = _Kept(model), _Layers()
    counter, attention = FlopCounterMode(display=False), _Attention()

    def flops() -> float:
        return counter.get_total_flops() + attention.flops

    def now() -> tuple[float, float]:
        return flops(), kept.bytes

    # What is kept when the first layer that answers begins; None: none has run.
    heard: float | None = None

    def note_speech(*_: Any) -> None:
        nonlocal heard
        saved = layers.saved() if checkpointing else 0.0
        heard = kept.bytes - saved

    first = _first_layer(model)
    with counter, attention, _hooked(model, layers, now), _hooked_before(first, note_speech):
        with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
            loss = model(batch).loss
        loss.backward()
    if heard is None:
        note_speech()
    if not checkpointing:
        return Costs(flops(), 0.0, kept.bytes, kept.bytes - heard)

    # Of every layer only its input stays, and of one at a time what it keeps. A layer that keeps
    # nothing is not in the backward pass, so it does not run again.
    total = kept.bytes - layers.saved()
    largest = max(layers.kept, default=0)
    recomputed = 0.0
    for layer_flops, layer_kept in zip(layers.flops, layers.kept, strict=True):
        if layer_kept:
            recomputed += layer_flops
    return Costs(flops(), recomputed, total, total - heard, largest)


class _Kept:
    """Count the bytes that autograd keeps, each storage once; parameters are counted elsewhere."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0.0
        self.seen = {p.untyped_storage()._cdata for p in model.parameters()}
        # A storage that is freed could lend its address to another.
        self.alive: list[Tensor] = []

    def note(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd saves, and return it as it is."""
        storage = tensor.untyped_storage()
        is_new = storage._cdata not in self.seen
        if is_new and tensor.device.type == "meta":
            self.seen.add(storage._cdata)
            self.alive.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


@dataclass
class _Layers:
    """The cost of each layer of the stacks."""

    # FLOPs of the forward pass, by layer.
    flops: list[float] = field(default_factory=list)
    # Bytes kept for the backward pass, by layer.
    kept: list[float] = field(default_factory=list)
    # Bytes of the inputs of all layers.
    inputs: float = 0.0

    def saved(self) -> float:
        """Return the bytes that checkpointing saves."""
        return sum(self.kept) - self.inputs


def _first_layer(model: nn.Module) -> nn.Module:
    """Return the first layer of what answers: of the LLM, or of phase 1's decoder."""
    answering = getattr(model, "llm", None) or model.decoder
    return checkpointed_layers(answering)[0]


@contextmanager
def _hooked_before(module: nn.Module, note: Callable[..., None]) -> Iterator[None]:
    """Call ``note`` each time that a module begins to run."""
    handle = module.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _hooked(
    model: nn.Module, layers: _Layers, now: Callable[[], tuple[float, float]]
) -> Iterator[None]:
    """Measure the layers that checkpointing recomputes while the model runs.

    ``now`` returns the FLOPs and the kept bytes so far.
    """
    started: list[tuple[float, float]] = []

    def before(module: nn.Module, arguments: tuple, keywords: dict) -> None:
        started.append(now())
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        if hidden.requires_grad or _trains(module):
            layers.inputs += hidden.numel() * hidden.element_size()

    def after(module: nn.Module, arguments: tuple, keywords: dict, output: Any) -> None:
        flops_before, kept_before = started.pop()
        flops, kept = now()
        layers.flops.append(flops - flops_before)
        layers.kept.append(kept - kept_before)

    handles = []
    for layer in checkpointed_layers(model):
        handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(layer.register_forward_hook(after, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


class _Attention(TorchFunctionMode):
    """Stand in for scaled_dot_product_attention.

    The kernel keeps its inputs, its output and one sum per query, and no square matrix, as
    FlashAttention does (Dao et al., 2022, arXiv 2205.14135).
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        tensors = (given["query"], given["key"], given["value"])
        # A causal query sees half of the keys on average.
        share = 0.5 if kwargs.get("is_causal") else 1.0
        return _Kernel.apply(*tensors, share, self)


class _Kernel(torch.autograd.Function):
    """Give the shapes and count the FLOPs of fused attention."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, share: float, counter: _Attention
    ) -> Tensor:
        *outer, channels = query.shape  # (B, heads, queries, channels)
        keys = key.shape[-2]
        output = query.new_empty(*outer, value.shape[-1])
        sums = query.new_empty(outer, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.counter = counter
        ctx.work = 4.0 * share * sums.numel() * keys * channels
        counter.flops += ctx.work
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx.counter.flops += FLASH_BACKWARD * ctx.work
        query, key, value, *_ = ctx.saved_tensors
        return (
            torch.empty_like(query),
            torch.empty_like(key),
            torch.empty_like(value),
            None,
            None,
        )
