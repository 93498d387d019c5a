"""Linear layers whose weights take 8 or 4 bits, by torchao and bitsandbytes.

Neither library is part of the default install: requirements/quantization.txt names both.

- int8: weights have one scale per output channel, activations one per token, found while running
  (dynamic quantization). A token's result does not depend on its batch.
- nf4: blocks of 64 weights share a scale, and each is one of 16 quantiles of a normal distribution
  (Dettmers et al., 2023, arXiv 2305.14314, QLoRA). Products are computed with the weights
  made whole again, so gradients pass through to what is before them.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.models.whisper import WhisperPhase

NONE, INT8, NF4 = "none", "int8", "nf4"
CHOICES = (NONE, INT8, NF4)
LIBRARY = {INT8: "torchao", NF4: "bitsandbytes"}
# Output channels that bitsandbytes' kernel for CPUs takes at a time.
CPU_BLOCK = 32
# Weights that share a scale.
NF4_BLOCK = 64
# Bytes per weight: half a byte, and its part of a scale in float32.
NF4_BYTES = 0.5 + 4 / NF4_BLOCK
# Parts whose products int8 speeds up; the adapter is small.
PARTS = ("encoder", "llm", "decoder")


def for_decoding(model: OsumModel | WhisperPhase, how: str) -> None:
    """Replace the weights of ``model`` as ``how`` says, for answers only: nothing trains then.

    int8 takes the linear layers of encoder and LLM, its head included; nf4 those of the LLM but its
    head. Raises ValueError where the library is missing, and for nf4 without an LLM.
    """
    if how == INT8:
        _to_int8(model)
    elif how == NF4:
        dtype = next(model.encoder.parameters()).dtype
        model.requires_grad_(False)
        to_nf4(model, dtype)


def check(how: str) -> None:
    """Raise ValueError where the library that ``how`` needs is not installed."""
    if how != NONE:
        _library(how)


def _library(how: str) -> ModuleType:
    """Import the library of a form."""
    name = LIBRARY[how]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"quantization {how} needs {name}: pip install -r requirements/quantization.txt "
            f"({error})"
        ) from None


def _to_int8(model: nn.Module) -> None:
    _library(INT8)
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    for part in PARTS:
        module = getattr(model, part, None)
        if module is not None:
            quantize_(module, Int8DynamicActivationInt8WeightConfig())


def to_nf4(
    model: OsumModel | WhisperPhase,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    trains: bool = False,
) -> None:
    """Bring the frozen linear layers of the LLM, but its head, to ``device`` in 4 bits.

    Products are computed in ``dtype``. ``trains``: gradients are to pass through them.

    Weights that are unread (models/unread.py) are read one by one: the whole never is in memory.
    They are rounded to bfloat16 first. So the scales of blocks are numbers of bfloat16, and what is
    saved in bfloat16 and quantized again has the same 4 bits. Raises ValueError without an LLM.
    """
    library = _library(NF4)
    llm = getattr(model, "llm", None)
    if llm is None:
        raise ValueError(f"quantization {NF4} is for the LLM, and phase 1 has none; leave it out")

    name_of = {layer: name for name, layer in llm.named_modules()}
    layers = frozen_layers(model)
    if not layers:
        raise ValueError(
            f"quantization {NF4}: the LLM has no frozen linear layer whose rows are a multiple of "
            f"{NF4_BLOCK} long"
        )
    for layer in layers:
        name = name_of[layer]
        weight = _whole_weight(model, f"llm.{name}.weight", layer.weight)
        small = _in_4_bits(library, layer, weight, dtype, device)
        # The kernel for CPUs with bfloat16 has no backward pass: an evaluation would choose it for
        # good, and the steps of training behind it would have no gradients. And it takes whole
        # blocks of channels alone.
        if trains or layer.out_features % CPU_BLOCK:
            small.support_avx512bf16_for_cpu = False
        llm.set_submodule(name, small)


def _in_4_bits(
    library: ModuleType,
    layer: nn.Linear,
    weight: Tensor,
    dtype: torch.dtype,
    device: torch.device | str,
) -> nn.Module:
    """Make the layer that stands in the place of ``layer``, whose weight is ``weight``."""
    form = {"quant_type": NF4, "compress_statistics": False}
    small = library.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=dtype,
        device="meta",
        **form,
    )
    rounded = weight.to(torch.bfloat16)
    whole = library.nn.Params4bit(rounded, requires_grad=False, module=small, **form)
    # It is quantized on the way.
    small.weight = whole.to(device)
    small.bias = layer.bias
    return small.train(layer.training)


def frozen_layers(model: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of the LLM whose weights stand still, but its head.

    Rows of weights have to be whole blocks: on a CPU bitsandbytes 0.50 gives parts of blocks the
    scales of others.
    """
    head = model.llm.get_output_embeddings()
    found = []
    for module in model.llm.modules():
        # Those of LoRA train.
        if type(module) is not nn.Linear or module is head:
            continue
        is_whole = module.in_features % NF4_BLOCK == 0
        if is_whole and not module.weight.requires_grad:
            found.append(module)
    return found


def _whole_weight(model: nn.Module, name: str, weight: Tensor) -> Tensor:
    """Return a weight, from its file if it is unread yet."""
    if not weight.is_meta:
        return weight.data
    # Only now: commands read their options from here, and need no transformers for that.
    from wenet_osum.models import lora

    plain = lora.plain_name(name)
    return model.unread.pop(plain).read()


def plain_state(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor] | None:
    """Return the state dict with quantized weights as ordinary ones of ``dtype``, on the CPU.

    None where no weight of ``model`` is quantized.
    """
    quantized = {}
    for name, module in model.named_modules():
        if hasattr(module, "quant_state"):
            quantized[name] = module
    if not quantized:
        return None

    library = _library(NF4)
    state = {}
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        if owner in quantized and leaf == "weight":
            small = quantized[owner].weight
            whole = library.functional.dequantize_4bit(small.data, small.quant_state)
            state[name] = whole.to("cpu", dtype)
        elif not _is_scale(name, quantized):
            state[name] = tensor
    return state


def _is_scale(name: str, quantized: dict[str, nn.Module]) -> bool:
    """Tell whether a name of the state dict is one that bitsandbytes keeps beside a weight."""
    owner, beside, _ = name.partition(".weight.")
    return bool(beside) and owner in quantized
