"""What a phase costs, counted before anything is downloaded or bought: parameters, FLOPs and memory of one micro-batch.

The model is built on the meta device at full depth, where tensors have shapes and no numbers, and one forward and backward pass runs there.

FLOPs    of every matrix product and convolution of that pass (torch's FlopCounterMode): a frozen weight costs no weight gradient, a frozen
         part before all trained ones no backward pass. Attention is counted by formula, 4 · heads · queries · keys · channels forward and twice
         that backward, the causal one half of it. Recomputation is kept apart: it keeps the device busy, but is no work of the model.
memory   weights, gradients, AdamW's moments, what autograd keeps of the pass, and one chunk of logits. The first three are exact; activations
         are those of a model in bfloat16 (or float32) throughout, without the allocator's losses, the temporaries of single operations, and the
         float32 copies that autocast and peft make: leave a fifth of the device free. Further losses (model.losses) are not counted.

Letters: B utterances of a micro-batch, A answer tokens of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, PreTrainedConfig, WhisperForConditionalGeneration
from transformers.modeling_layers import GradientCheckpointingLayer

from wenet_osum import lookup
from wenet_osum.config import ModelConfig, TrainConfig
from wenet_osum.models import split, trainable
from wenet_osum.models.build import set_encoder_conf
from wenet_osum.models.loss import CHUNK
from wenet_osum.models.objective import loss_class
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import FRAME_S, Batch

BOUNDARIES = 2  # speech start and end
HEAD_BYTES = 16  # a logit and its gradient in half precision, twice in float32, and the log-softmax of cross-entropy
FLASH_BACKWARD = 2.0  # FLOPs of attention's backward pass as a multiple of its forward pass, recomputation left out


@dataclass
class Mean:
    """The mean utterance that costs are counted for."""

    seconds: float = 8.0  # of audio
    prompt_tokens: int = 20
    answer_tokens: int = 40  # end of text included

    @property
    def frames(self) -> int:
        """Feature frames."""
        return max(1, round(self.seconds / FRAME_S))

    def positions(self, model: nn.Module) -> int:
        """Count the positions it takes in the LLM, or in phase 1's decoder; the adapter says how many are speech."""
        speech = int(model.speech_tokens(torch.tensor([self.frames])))
        return self.prompt_tokens + BOUNDARIES + speech + self.answer_tokens


@dataclass
class Estimate:
    """The counted costs of one micro-batch that fills the budgets with mean utterances."""

    table: str  # parts, parameters, what trains
    utterances: int
    mean: Mean
    positions: int  # of a mean utterance in the LLM
    parameters: int
    trained: int
    flops: float  # of forward and backward pass
    recomputed: float  # FLOPs of what checkpointing runs again
    memory: dict[str, float] = field(default_factory=dict)  # bytes a device, by what they hold

    @property
    def total(self) -> float:
        """Bytes a device."""
        return sum(self.memory.values())

    def audio_rate(self, flops_a_second: float) -> float:
        """Hours of audio an hour and device at this many FLOP/s in use."""
        return self.utterances * self.mean.seconds * flops_a_second / (self.flops + self.recomputed)


def sizes_of(source: str) -> PreTrainedConfig:
    """The configuration of a folder or hub name; weights are not touched. Raises ValueError when there is none."""
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"no config.json in {source!r}: {error}; give --whisper and --llm folders that hold one") from None


def meta_model(conf: ModelConfig, whisper: PreTrainedConfig, llm: PreTrainedConfig | None) -> nn.Module:
    """The model of ``conf`` with these sizes, on the meta device. ``llm`` None: kind whisper."""
    with torch.device("meta"):
        if conf.kind == "whisper":
            model = WhisperPhase(WhisperForConditionalGeneration(whisper))
            if any(loss_class(entry["name"]).needs_logits for entry in conf.losses):
                model.add_ctc_head()
            set_encoder_conf(model, conf.encoder_conf)
            return model
        assert llm is not None, "the command asks for the sizes of an LLM"
        model = OsumModel(OsumConfig(encoder=whisper.to_dict(), llm=llm.to_dict(), adapter=conf.adapter, adapter_conf=conf.adapter_conf))
        set_encoder_conf(model, conf.encoder_conf)
        if conf.lora:
            model.add_lora(conf.lora)
    return model


def estimate(conf: TrainConfig, whisper: PreTrainedConfig, llm: PreTrainedConfig | None, mean: Mean | None = None, devices: int = 1) -> Estimate:
    """Count one micro-batch of ``conf`` on each of ``devices``. Raises ValueError for train_parts that match nothing and utterances beyond the budgets."""
    mean = mean or Mean()
    lookup.add_plugins(conf.plugins)
    model = meta_model(conf.model, whisper, llm)
    groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    table = trainable.table(model, groups)
    positions = mean.positions(model)
    count = _utterances(conf, mean, positions, getattr(model.encoder, "min_frames", 0))
    sizes = [p.numel() for p in model.parameters()], [p.numel() for p in model.parameters() if p.requires_grad]
    weights = _weights(model, conf, devices)
    model.to(torch.bfloat16 if conf.dtype == "bfloat16" else torch.float32)
    flops, recomputed, kept = _run(model.train(), batch_of(model, mean, count, "meta", states_after(model, conf)), conf.checkpointing)
    vocabulary = whisper.vocab_size if llm is None or conf.model.kind == "whisper" else llm.vocab_size
    memory = weights | {"activations kept for the backward pass": kept, "one chunk of logits": min(CHUNK, count * mean.answer_tokens) * vocabulary * HEAD_BYTES}
    return Estimate(table, count, mean, positions, sum(sizes[0]), sum(sizes[1]), flops, recomputed, memory)


def _utterances(conf: TrainConfig, mean: Mean, positions: int, min_frames: int) -> int:
    budget, frames = conf.batch, max(mean.frames, min_frames)
    fitting = budget.max_frames // frames, budget.max_tokens // positions
    count = min(*fitting, budget.max_utterances)
    if count < 1:
        raise ValueError(
            f"an utterance of {frames} frames and {positions} tokens does not fit "
            f"batch.max_frames {budget.max_frames} "
            f"and batch.max_tokens {budget.max_tokens}; raise them, or lower --seconds"
        )
    return count


def _weights(model: nn.Module, conf: TrainConfig, devices: int) -> dict[str, float]:
    """Bytes a device of weights, gradients and moments: FSDP shares them all out, DDP keeps them whole. Trained weights are in float32."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    half, share = conf.dtype == "bfloat16", devices if conf.engine == "fsdp" else 1
    rows = {
        f"frozen weights, {2 if half else 4} bytes each": frozen * (2 if half else 4) / share,
        "trained weights, 4 bytes each": trained * 4 / share,
        "gradients, 4 bytes each": trained * 4 / share,
        "AdamW's moments, 8 bytes each": trained * 8 / share,
    }
    if half and share == 1:
        rows["trained weights in bfloat16 for the pass, 2 bytes each"] = trained * 2
    if share > 1:
        rows["the largest layer gathered, twice"] = 2 * max(_layer_sizes(model), default=0) * (2 if half else 4)
    return rows


def _layer_sizes(model: nn.Module) -> list[int]:
    return [sum(p.numel() for p in layer.parameters()) for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]


def states_after(model: nn.Module, conf: TrainConfig) -> int | None:
    """Layers of the encoder below the states that training reads; None when it makes features.

    Raises ValueError for an encoder that cannot be run in two parts.
    """
    if conf.features != "encoded":
        return None
    return split.layers_below(model.encoder, conf.cache.after)


def batch_of(model: nn.Module, mean: Mean, count: int, device: str, after: int | None = None) -> Batch:
    """Make a batch of ``count`` mean utterances: random features, or states after so many layers,
    and id 0 for every token; lengths lie on the CPU.
    """
    length, rows, channels = mean.frames, mean.frames, model.encoder.mels
    if after is not None:
        length, channels = model.encoder.output_lengths(mean.frames), model.encoder.width
        rows = int(model.encoder.kept_lengths(torch.tensor(length), after))
    lengths = {name: torch.full((count,), n) for name, n in (("prompt", mean.prompt_tokens), ("answer", mean.answer_tokens))}
    ids = {f"{name}_ids": torch.zeros(int(n.sum()), dtype=torch.int64, device=device) for name, n in lengths.items()}
    return Batch(
        keys=[""] * count,
        tasks=[""] * count,
        features=torch.randn(count, rows, channels, device=device),
        feature_lengths=torch.full((count,), length),
        states_after=after,
        answer_weights=torch.ones(count * mean.answer_tokens, device=device),
        **ids,
        **{f"{name}_lengths": n for name, n in lengths.items()},
    )


def _run(model: nn.Module, batch: Batch, checkpointing: bool) -> tuple[float, float, float]:
    """FLOPs of the pass, FLOPs that checkpointing adds, bytes kept for the backward pass."""
    kept, layers = _Kept(model), _Layers()
    counter, attention = FlopCounterMode(display=False), _Attention()
    with counter, attention, _hooked(model, layers, lambda: (counter.get_total_flops() + attention.flops, kept.bytes)):
        with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
            loss = model(batch).loss
        loss.backward()
    flops = counter.get_total_flops() + attention.flops
    if not checkpointing:
        return flops, 0.0, kept.bytes
    inside = sum(layers.kept)
    return flops, sum(f for f, b in zip(layers.flops, layers.kept, strict=True) if b), kept.bytes - inside + layers.inputs + max(layers.kept, default=0)


class _Kept:
    """Bytes autograd keeps, each storage once; parameters are counted elsewhere."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0.0
        self.seen = {p.untyped_storage()._cdata for p in model.parameters()}
        self.alive: list[Tensor] = []  # a storage that is freed could lend its address to another

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen and tensor.device.type == "meta":
            self.seen.add(storage._cdata)
            self.alive.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


@dataclass
class _Layers:
    """What each layer of the stacks costs forward, what it keeps, and the size of their inputs."""

    flops: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    inputs: float = 0.0  # bytes


@contextmanager
def _hooked(model: nn.Module, layers: _Layers, now: Callable[[], tuple[float, float]]) -> Iterator[None]:
    """Measure the layers that checkpointing recomputes while the model runs."""
    started: list[tuple[float, float]] = []

    def before(module: nn.Module, arguments: tuple, keywords: dict) -> None:
        started.append(now())
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        layers.inputs += hidden.numel() * hidden.element_size() if hidden.requires_grad or _trains(module) else 0

    def after(module: nn.Module, arguments: tuple, keywords: dict, output: Any) -> None:
        flops, kept = (b - a for a, b in zip(started.pop(), now(), strict=True))
        layers.flops.append(flops)
        layers.kept.append(kept)

    stack = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    handles = [h for layer in stack for h in (layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after, with_kwargs=True))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


class _Attention(TorchFunctionMode):
    """Stands in for scaled_dot_product_attention: a kernel that keeps its inputs, its output and a sum a query, and no square matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("query", "key", "value")))
        return _Kernel.apply(query, key, value, 0.5 if kwargs.get("is_causal") else 1.0, self)


class _Kernel(torch.autograd.Function):
    """Shapes and FLOPs of fused attention."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, share: float, counter: _Attention) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        ctx.counter, ctx.work = counter, 4.0 * share * query.shape[:-1].numel() * key.shape[-2] * query.shape[-1]
        counter.flops += ctx.work
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ctx.counter.flops += FLASH_BACKWARD * ctx.work
        return *(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]), None, None
