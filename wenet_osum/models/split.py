"""An encoder in two parts: the lower one, frozen, whose states are kept on disk, and the upper
one.

Letters: B utterances, N states of the longest, D width. ``after`` counts the layers of the lower
part. Encoders that can be run so are described in models/encoder.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from wenet_osum.records import Batch

NEEDED = ("depth", "lower", "upper", "lower_modules", "lower_settings", "kept_lengths")
# Raise it with every change to an encoder's code that gives other states of the same weights.
VERSION = 1


def encode(encoder: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Encode a batch: states (B, N, D) and their lengths (B,), on the CPU.

    Where the batch carries states from disk, only the layers above them are computed.
    """
    after = batch.states_after
    if after is None:
        return encoder(batch.features, batch.feature_lengths)
    return encoder.upper(batch.features, batch.feature_lengths, after)


def layers_below(encoder: nn.Module, after: int | None) -> int:
    """Tell how many layers are below the states; None asks for all.

    Raises ValueError for an encoder that cannot be run in two parts, or has fewer layers.
    """
    missing = [name for name in NEEDED if not hasattr(encoder, name)]
    if missing:
        name = encoder.config.model_type
        raise ValueError(
            f"features: encoded: encoder {name!r} cannot be run in two parts, it lacks "
            f"{', '.join(missing)} (wenet_osum/models/encoder/__init__.py says what they are); "
            "use features: cpu"
        )
    if after is not None and after > encoder.depth:
        raise ValueError(
            f"cache.after {after}: the encoder has {encoder.depth} layers; "
            "leave it out to keep states after all of them"
        )
    return encoder.depth if after is None else after


def check_frozen(encoder: nn.Module, after: int, patterns: Iterable[str]) -> None:
    """Raise ValueError when a parameter below the states trains; ``patterns`` are those of
    train_parts.
    """
    for name, parameter in _lower_tensors(encoder, after):
        if not getattr(parameter, "requires_grad", False):
            continue
        full = f"encoder.{name}"
        matching = [p for p in patterns if fnmatch.fnmatchcase(full, p)]
        pattern = matching[0] if matching else ""
        advice = "leave the encoder out"
        if after < encoder.depth:
            advice = f"name the layers above alone, e.g. 'encoder.layers.{encoder.depth - 1}.*'"
        raise ValueError(
            f"features: encoded keeps states after {after} of {encoder.depth} layers of the "
            f"encoder, but train_parts {pattern!r} trains {full} below them; {advice}, or lower "
            "cache.after"
        )


def describe(encoder: nn.Module, after: int) -> dict[str, Any]:
    """Return all that states depend on beside the audio: a hash of the weights below, and settings.

    The hash is of the bytes as float32, so that a folder in half precision and its copy in float32
    give the same.
    """
    hashed = hashlib.blake2b(digest_size=16)
    for name, tensor in _lower_tensors(encoder, after):
        title = f"{name} {tuple(tensor.shape)}"
        hashed.update(title.encode())
        plain = tensor.detach().cpu().float().contiguous()
        hashed.update(plain.numpy().tobytes())
    settings = {
        "version": VERSION,
        "encoder": encoder.config.model_type,
        "after": after,
        "layers": encoder.depth,
        "width": encoder.width,
        "mels": encoder.mels,
    }
    settings |= encoder.lower_settings(after)
    settings["weights"] = hashed.hexdigest()
    return settings


@torch.no_grad()
def round_lower(encoder: nn.Module, after: int, dtype: torch.dtype) -> None:
    """Round the frozen weights below the states to ``dtype``, in which training keeps them."""
    for _, tensor in _lower_tensors(encoder, after):
        if tensor.is_floating_point():
            rounded = tensor.to(dtype)
            tensor.copy_(rounded)


def _lower_tensors(encoder: nn.Module, after: int) -> list[tuple[str, Tensor]]:
    """Return parameters and buffers below the states, by their names in the encoder."""
    found = []
    for name, module in encoder.lower_modules(after).items():
        tensors = [*module.named_parameters(), *module.named_buffers()]
        for inner, tensor in tensors:
            full = f"{name}.{inner}"
            found.append((full, tensor))
    return found
