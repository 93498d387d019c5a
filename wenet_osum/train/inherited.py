"""What a phase takes over from another: sizes, adapter and LoRA, read without their weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from wenet_osum.config import ModelConfig
from wenet_osum.models import lora
from wenet_osum.models.osum import OsumConfig


def sizes_of(source: str) -> PreTrainedConfig:
    """Read the configuration of a folder or hub name; weights are not touched.

    Raises ValueError when there is none.
    """
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no config.json in {source!r}: {error}; give --whisper and --llm folders that hold one"
        ) from None


def inherited(model: ModelConfig, before: ModelConfig | None) -> ModelConfig:
    """Complete the model of a phase with what it takes over: adapter, LoRA, silence behind the
    speech and time marks from its ``init_from``, the silence from an encoder among its
    ``init_parts``.

    They are read from that folder, or, where it is not there yet, from ``before``, the model of the
    phase before. Raises ValueError for a folder with a model of another kind.
    """
    model = _with_classes(model, before)
    encoder = model.init_parts.get("encoder")
    if encoder:
        model = _padded(model, _pad_s(encoder, before))
    if not model.init_from or model.kind == "whisper":
        return model
    if is_there(model.init_from):
        whole = sizes_of(model.init_from)
        if not isinstance(whole, OsumConfig):
            raise ValueError(f"model.init_from {model.init_from} holds no model of kind osum")
        adapter, adapter_conf = whole.adapter, whole.adapter_conf
        loaded = lora.settings(model.init_from)
        marks = whole.time_marks["every_s"] if whole.time_marks else None
    elif before:
        adapter, adapter_conf = before.adapter, before.adapter_conf
        loaded = before.lora
        marks = before.time_marks
    else:
        return model
    model = _padded(model, _pad_s(model.init_from, before))
    return replace(
        model,
        adapter=adapter,
        adapter_conf=adapter_conf,
        lora=model.lora or loaded,
        time_marks=model.time_marks or marks,
    )


def is_there(folder: str) -> bool:
    """Tell whether a folder holds a model; one of a phase to come does not yet."""
    return (Path(folder) / "config.json").exists()


def _pad_s(folder: str, before: ModelConfig | None) -> float | None:
    """Return the seconds up to which the encoder in a folder pads; None where nobody knows."""
    if is_there(folder):
        found = sizes_of(folder)
        encoder = getattr(found, "encoder", found)
        return getattr(encoder, "pad_s", None)
    return before.encoder_conf.get("pad_s") if before else None


def _padded(model: ModelConfig, pad_s: float | None) -> ModelConfig:
    """Give a model the padding of the encoder that it takes over, unless it has its own."""
    if pad_s is None:
        return model
    return replace(model, encoder_conf={"pad_s": pad_s} | model.encoder_conf)


def _with_classes(model: ModelConfig, before: ModelConfig | None) -> ModelConfig:
    """Name the classes of CTC by those of the phase before, where the folder that is to have them
    is not there yet."""
    known = None
    for entry in before.losses if before else []:
        known = entry.get("classes") or known
    losses = []
    for entry in model.losses:
        classes = entry.get("classes")
        if known and isinstance(classes, str) and not Path(classes).exists():
            entry = entry | {"classes": known}
        losses.append(entry)
    return replace(model, losses=losses)
