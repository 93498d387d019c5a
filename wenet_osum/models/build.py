"""Models from a configuration, and from the folders that training leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedTokenizerBase

from wenet_osum import lookup
from wenet_osum.config import ModelConfig
from wenet_osum.models.llm import causal
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from wenet_osum.config import LoraConfig

KINDS: dict[str, type] = {"wenet_osum": OsumModel, "whisper": WhisperPhase}  # model_type of config.json → class


def build(
    conf: ModelConfig, dtype: torch.dtype = torch.float32, checkpointing: bool = False
) -> tuple[OsumModel | WhisperPhase, PreTrainedTokenizerBase]:
    """The model that ``conf`` describes, in eval mode, and the tokenizer of its texts. Raises ValueError when parts do not fit together.

    ``checkpointing`` recomputes the activations of every layer in the backward pass.
    """
    if conf.init_from:
        model = load(conf.init_from, dtype)
        if isinstance(model, OsumModel) != (conf.kind == "osum"):
            held = type(model).__name__
            raise ValueError(f"model.init_from {conf.init_from}: it holds a {held}, but model.kind is {conf.kind!r}; change one of them")
    elif conf.kind == "whisper":
        model = WhisperPhase.from_pretrained(conf.whisper, dtype)
    else:
        encoder = conf.encoder.name if conf.encoder else "whisper"
        parts = (conf.encoder_source, conf.llm, conf.adapter, conf.adapter_conf)
        model = OsumModel.from_parts(*parts, dtype, encoder, conf.adapter_init)
    for part, folder in conf.init_parts.items():
        take_over(model, part, folder)
    set_encoder_conf(model, conf.encoder_conf)
    if conf.lora:
        _lora(model, conf.lora)
    tokenizer = load_tokenizer(conf.init_from or (conf.whisper if conf.kind == "whisper" else conf.llm))
    check_vocabulary(model, tokenizer)
    if checkpointing:
        set_checkpointing(model)
    return model.eval(), tokenizer


def load(folder: str | Path, dtype: torch.dtype | str = torch.float32) -> OsumModel | WhisperPhase:
    """The model in a folder or under a hub name, in eval mode; its config.json says of which kind.

    ``dtype`` "auto": as saved.
    """
    kind = _model_type(folder)
    if kind not in KINDS:
        raise ValueError(f"{folder}: {lookup.unknown('model_type', kind, sorted(KINDS))}; give a folder that training or model.whisper made")
    if kind == "whisper":
        return WhisperPhase.from_pretrained(folder, dtype)
    return OsumModel.from_pretrained(folder, dtype=dtype).eval()


def _model_type(folder: str | Path) -> str:
    try:
        return AutoConfig.from_pretrained(str(folder)).model_type
    except (OSError, ValueError) as error:
        raise ValueError(f"no model in {str(folder)!r}: {error}; give a folder with config.json, or a hub name") from None


def take_over(model: nn.Module, part: str, folder: str | Path) -> None:
    """Copy the weights of one part, such as ``encoder``, from another model's folder.

    The folder may hold a model of either kind, or for ``llm`` a causal LM alone; LoRA adapters there are merged.
    Raises ValueError when the part is unknown or a name or shape differs.
    """
    known = [name for name, child in model.named_children() if child is not None]
    if part not in known:
        raise ValueError(f"model.init_parts: {lookup.unknown('part', part, known)}")
    if part == "llm" and _model_type(folder) not in KINDS:
        source: nn.Module = causal.read(str(folder))
    else:
        whole = load(folder)
        if isinstance(whole, OsumModel) and whole.lora is not None:
            whole.merge_lora()
        source = getattr(whole, part, None)
        if source is None:
            raise ValueError(f"model.init_parts {part}: {folder} holds a {type(whole).__name__} without {part}; give another folder")
    target = getattr(model, part)
    faults = _differences(target.state_dict(), source.state_dict())
    if faults:
        some = "; ".join(faults[:4])
        raise ValueError(f"model.init_parts {part}: {folder} does not fit, {len(faults)} differences: {some}; give a folder of the same sizes")
    target.load_state_dict(source.state_dict())
    if part == "encoder" and hasattr(source.config, "pad_s"):
        # As it was trained, unless encoder_conf of the new model says otherwise.
        target.config.pad_s = getattr(source.config, "pad_s", 0.0)


def set_encoder_conf(model: OsumModel | WhisperPhase, conf: dict[str, Any]) -> None:
    """Put ``encoder_conf`` into the model's encoder; what it does not name stays.

    Raises ValueError for what the encoder does not know.
    """
    if not conf:
        return
    config = model.encoder.config
    plug_in = lookup.load("wenet_osum.models.encoder", config.model_type)
    if not hasattr(plug_in, "set_conf"):
        raise ValueError(f"model.encoder_conf {conf}: encoder {config.model_type!r} has no settings")
    try:
        plug_in.set_conf(config, **conf)
    except TypeError as error:
        raise ValueError(
            f"model.encoder_conf {conf} does not fit encoder {config.model_type!r}: {error}"
        ) from None


def _differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    faults = [f"{name} is missing there" for name in ours if name not in theirs]
    faults += [f"{name} is unknown here" for name in theirs if name not in ours]
    both = [name for name in ours if name in theirs and ours[name].shape != theirs[name].shape]
    return faults + [f"{name} is {tuple(theirs[name].shape)} there, {tuple(ours[name].shape)} here" for name in both]


def _lora(model: OsumModel | WhisperPhase, conf: LoraConfig) -> None:
    """Add LoRA, or check that the adapters a loaded model has are those asked for."""
    assert isinstance(model, OsumModel), "config.rules lets LoRA through for kind osum only"
    if model.lora is None:
        model.add_lora(conf)
        return
    have = (model.lora.r, float(model.lora.lora_alpha), sorted(model.lora.target_modules))
    want = (conf.r, conf.alpha, sorted(conf.targets))
    if have != want:
        raise ValueError(f"model.lora {want} (r, alpha, targets) differs from the loaded adapters {have}; merge those first, or drop model.lora")


def check_vocabulary(model: OsumModel | WhisperPhase, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError when the tokenizer knows ids that the model has no embedding for."""
    rows = model.config.vocab_size if isinstance(model, WhisperPhase) else model.config.llm.vocab_size
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer)} ids, the model embeddings for {rows}; use the tokenizer that belongs to the model")


def set_checkpointing(model: OsumModel | WhisperPhase) -> None:
    """Recompute the activations of every layer in the backward pass (``use_reentrant=False``, which DDP and frozen inputs need)."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.train(model.training)
