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
    """Complete the model of a phase with the adapter and LoRA that it takes over from its
    ``init_from``.

    They are read from that folder, or, where it is not there yet, from ``before``, the model of the
    phase before. Raises ValueError for a folder with a model of another kind.
    """
    if not model.init_from or model.kind == "whisper":
        return model
    if (Path(model.init_from) / "config.json").exists():
        whole = sizes_of(model.init_from)
        if not isinstance(whole, OsumConfig):
            raise ValueError(f"model.init_from {model.init_from} holds no model of kind osum")
        adapter, adapter_conf = whole.adapter, whole.adapter_conf
        loaded = lora.settings(model.init_from)
    elif before:
        adapter, adapter_conf = before.adapter, before.adapter_conf
        loaded = before.lora
    else:
        return model
    return replace(
        model,
        adapter=adapter,
        adapter_conf=adapter_conf,
        lora=model.lora or loaded,
    )
