"""Any causal language model of transformers, run on a whole batch as one sequence without padding.

Letters: L tokens of all utterances laid end to end, Q query heads, K key heads, E channels a head,
H width.

The attention function "packed" is registered with transformers. It keeps utterances apart when a
forward brings a ``packing``, and is the ordinary sdpa otherwise. So generation needs no switching,
and a layer recomputed in the backward pass (checkpointing) cannot come back with another attention.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer

from wenet_osum.devices import to_device
from wenet_osum.models import unread
from wenet_osum.models.dtypes import autocast_dtype
from wenet_osum.models.heads import LARGEST_HEAD
from wenet_osum.models.llm import supported
from wenet_osum.models.unread import Places

NAME = "packed"
# CUDA compute capability.
AMPERE = (8, 0)
HALF = (torch.float16, torch.bfloat16)
# Sentences on how attention has run; None: nobody asks.
_noted: dict[str, None] | None = None


class Packing:
    """The utterances' positions in a packed sequence; made once per forward, used by all layers."""

    def __init__(
        self, lengths: list[int], device: torch.device | str = "cpu", multiple: int = 1
    ) -> None:
        """``multiple``: fill the sequence up to one, with an utterance of padding at its end."""
        # Positions of the padding, and tokens of each utterance.
        self.padding = -sum(lengths) % multiple
        if self.padding:
            lengths = [*lengths, self.padding]
        self.lengths = lengths
        self.longest = max(lengths)

        # (B + 1,), where each utterance begins, and where the last one ends.
        borders = torch.tensor([0, *lengths]).cumsum(0)
        self.cu_seq_lens = to_device(borders.to(torch.int32), device)

        # (1, L), counted anew in each utterance.
        total = sum(lengths)
        starts = borders[:-1]
        start_of = torch.repeat_interleave(starts, torch.tensor(lengths), output_size=total)
        positions = torch.arange(total) - start_of
        self.position_ids = to_device(positions[None], device)


# Never compiled: utterances are others in every micro-batch.
@torch.compiler.disable
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention within each utterance: query (1, Q, L, E), key and value (1, K, L,
    E), result (1, L, Q, E).

    Without ``packing`` this is transformers' sdpa.
    """
    if packing is None:
        if _folds(query, key, attention_mask, kwargs):
            scale = kwargs.get("scaling")
            return _folded(query, key, value, attention_mask, scale), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    supported.check_arguments(kwargs)
    scale = kwargs.get("scaling")
    rate = kwargs.get("dropout", 0.0)
    window = kwargs.get("sliding_window")
    query, key, value = _in_compute_dtype(query, key, value)
    obstacle = _obstacle(query, value, rate)
    _note(obstacle)
    if obstacle is None:
        output = _varlen(query, key, value, packing, scale, window)
    else:
        output = _per_segment(query, key, value, packing, scale, rate, window)
    return output, None


def _folds(query: Tensor, key: Tensor, mask: Tensor | None, settings: dict[str, Any]) -> bool:
    """Tell whether query heads share key heads under a mask that all heads share."""
    if mask is None or settings.get("dropout"):
        return False
    _, heads, length, _ = query.shape
    _, shared, positions, _ = key.shape
    return heads > shared and mask.shape[1:] == (1, length, positions)


def _folded(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """Run grouped-query attention without repeating keys: heads that share a key head become
    further positions of its queries.

    Takes query (B, Q, N, E), key and value (B, K, L, E) and mask (B, 1, N, L), and returns
    (B, N, Q, E). transformers repeats keys and values for every query head where there is a mask,
    in each step of decoding the whole cache.
    """
    batch, heads, length, channels = query.shape
    groups = heads // key.shape[1]
    queries = query.reshape(batch, -1, groups * length, channels)
    if length > 1:
        mask = mask.repeat(1, 1, groups, 1)
    output = functional.scaled_dot_product_attention(
        queries,
        key,
        value,
        attn_mask=mask,
        scale=scale,
    )
    output = output.reshape(batch, heads, length, -1)
    return output.transpose(1, 2).contiguous()


def _in_compute_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors in the dtype that autocast computes in, where it is on.

    Rotary positions and norms of queries follow the residual stream and the weights that train,
    which are float32: query and key come wider than value then, and no kernel of half precision
    would take them.
    """
    dtype = autocast_dtype(tensors[0].device)
    if dtype is None:
        return tensors
    return tuple(tensor.to(dtype) for tensor in tensors)


def _obstacle(query: Tensor, value: Tensor, rate: float) -> str | None:
    """Say why the kernel for packed sequences cannot run; None: it runs."""
    if rate:
        return "attention dropout is on"
    lacking = _lacking(query.device)
    if lacking is not None:
        return lacking
    if query.dtype not in HALF:
        name = str(query.dtype).removeprefix("torch.")
        return f"the model computes in {name}; dtype: bfloat16 allows it"
    channels = query.shape[-1]
    if channels > LARGEST_HEAD or channels != value.shape[-1]:
        return f"heads have {channels} channels, and those of value {value.shape[-1]}"
    return None


def _lacking(device: torch.device) -> str | None:
    """Say what a device lacks to run the kernel: it is for NVIDIA GPUs from Ampere on, not V100 and
    T4, and for no other accelerator."""
    if device.type != "cuda":
        return f"there is none for {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability >= AMPERE:
        return None
    have, needed = (".".join(map(str, numbers)) for numbers in (capability, AMPERE))
    return f"this GPU's compute capability is {have}, it needs {needed}"


@contextmanager
def noting_attention() -> Iterator[dict[str, None]]:
    """Collect sentences on how packed attention runs within the context, each once."""
    global _noted
    before, _noted = _noted, {}
    try:
        yield _noted
    finally:
        _noted = before


def _note(obstacle: str | None) -> None:
    if _noted is None:
        return
    said = "attention: one kernel for all utterances of a micro-batch (varlen_attn)"
    if obstacle is not None:
        said = (
            f"attention: one call per utterance (sdpa); the kernel for all cannot run: {obstacle}"
        )
    _noted[said] = None


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scale: float | None,
    window: int | None,
) -> Tensor:
    """Run one kernel for all utterances (CUDA, half precision).

    It has no grouped heads, so keys are repeated.
    """
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))  # (L, Q, E)
    back = -1 if window is None else window - 1
    borders, longest = packing.cu_seq_lens, packing.longest
    where = (borders, borders, longest, longest)
    output = varlen_attn(query, key, value, *where, scale=scale, window_size=(back, 0))
    return output[None]


def _per_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    scale: float | None,
    rate: float,
    window: int | None,
) -> Tensor:
    """Run sdpa utterance by utterance."""
    grouped = query.shape[1] != key.shape[1]
    segments = [x.split(packing.lengths, dim=2) for x in (query, key, value)]
    parts = []
    for q, k, v in zip(*segments, strict=True):
        mask = _band(q.shape[2], window, q.device)
        part = functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=rate,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=grouped,
        )
        parts.append(part.transpose(1, 2))
    return torch.cat(parts, dim=1)


def _band(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return the causal mask (length, length) that reaches ``window`` tokens back, for models with
    sliding windows; None where all of the past is within reach."""
    if window is None or length <= window:
        return None
    every = torch.ones(length, length, dtype=torch.bool, device=device)
    return every.tril().triu(1 - window)


AttentionInterface.register(NAME, packed_attention)
# For generation; a packed forward brings its own "mask", see below.
AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_forward(llm: PreTrainedModel, embeddings: Tensor, packing: Packing) -> Tensor:
    """Return the last hidden states (L, H) of the packed ``embeddings`` (L, H).

    No cache: with one, tokens would see earlier utterances. A 4-D mask is handed through as it is
    by transformers, so the empty one here keeps it from building an L × L mask; the attention
    function does not look at it.
    """
    count = len(embeddings)
    if packing.padding:
        embeddings = functional.pad(embeddings, (0, 0, 0, packing.padding))
    output = llm.base_model(
        inputs_embeds=embeddings[None],
        position_ids=packing.position_ids,
        attention_mask=embeddings.new_empty(1, 1, 1, 1, dtype=torch.bool),
        use_cache=False,
        packing=packing,
    )
    return output.last_hidden_state[0, :count]


def last_position(device: torch.device) -> Tensor:
    """Return what transformers takes as ``logits_to_keep`` for the logits of the last position.

    An index and not 1: with that the head would be given a slice, which torch does not multiply at
    once. On a CPU in bfloat16 it copies the head's weights for each row, gigabytes of them.
    """
    return torch.tensor([-1], device=device)


def create(config: PreTrainedConfig) -> PreTrainedModel:
    """Make a causal LM with the initial weights of ``config``, with packed attention.

    Raises ValueError when it cannot run packed. Its dtype is torch's default, which is what a model
    that is being loaded is asked for; that of ``config`` is of another time.
    """
    supported.check(config)
    dtype = torch.get_default_dtype()
    llm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=NAME)
    supported.check_modules(llm)
    return llm


def read(source: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Read the causal LM of a folder or hub name, with packed attention.

    Raises ValueError when there is none or it cannot run packed.
    """
    config = _config(source)
    try:
        supported.check_folder(config)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    try:
        llm = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, attn_implementation=NAME)
    # KeyError: a class with a list of attentions of its own.
    except (OSError, ValueError, KeyError) as error:
        raise _none_in(source, error) from None
    supported.check_modules(llm)
    return llm.eval()


def without_weights(source: str) -> tuple[PreTrainedModel, Places] | None:
    """Build the causal LM of a folder or hub name on the meta device, and say where its weights
    lie (models/unread.py).

    None where they have to be read by transformers. Raises what ``read`` raises.
    """
    config = _config(source)
    try:
        supported.check_folder(config)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    is_alone = config.get_text_config() is config
    if not is_alone or getattr(config, "quantization_config", None) is not None:
        return None
    with torch.device("meta"):
        llm = create(config)
    where = unread.places(llm, unread.find(source))
    if where is None:
        return None
    unread.fill_buffers(llm, where)
    with contextlib.suppress(OSError):
        llm.generation_config = GenerationConfig.from_pretrained(source)
    return llm.eval(), where


def _config(source: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _none_in(source, error) from None


def _none_in(source: str, error: Exception) -> ValueError:
    return ValueError(
        f"no causal language model in {source!r}: {error}; "
        "give a folder of transformers (e.g. Qwen2), or a hub name"
    )


def keep_checkpointing(llm: PreTrainedModel, training: bool) -> None:
    """Let layers of a frozen LLM recompute too.

    Gradients pass through them to the adapter, but transformers checkpoints only in training mode.
    Only the flag of the layer itself is set; its children, where dropout lives, stay in eval mode.
    Layers with dropout of their own are left.
    """
    for name, value in llm.config.to_dict().items():
        if "drop" in name and "attention" not in name and value:
            return
    for layer in llm.modules():
        if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
            layer.training = training
