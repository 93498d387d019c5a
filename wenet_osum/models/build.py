"""Models from a configuration, and from the folders that training leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedTokenizerBase

from wenet_osum import lookup
from wenet_osum.config import ModelConfig
from wenet_osum.models import assemble, lora, unread
from wenet_osum.models.encoder import whisper
from wenet_osum.models.llm import causal
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from wenet_osum.config import LoraConfig

# model_type of config.json → class.
KINDS: dict[str, type] = {"wenet_osum": OsumModel, "whisper": WhisperPhase}
# Differences that a message shows.
SHOWN = 4
# Settings of a part that do not show in the shapes of its weights, as transformers names them.
SETTINGS = (
    "activation_function",
    "encoder_attention_heads",
    "hidden_act",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
)


def build(
    conf: ModelConfig,
    dtype: torch.dtype = torch.float32,
    weights_later: bool = False,
) -> tuple[OsumModel | WhisperPhase, PreTrainedTokenizerBase]:
    """Make the model that ``conf`` describes, in eval mode, and the tokenizer of its texts.

    ``weights_later`` leaves the weights of encoder and LLM unread where that can be
    (models/unread.py). Raises ValueError when parts do not fit together.
    """
    model = _begin(conf, dtype, weights_later)
    for part, folder in conf.init_parts.items():
        take_over(model, part, folder)
    set_encoder_conf(model, conf.encoder_conf)
    if conf.lora:
        _lora(model, conf.lora)

    # Texts are those of the model it goes on from, or of its language model.
    language = conf.whisper if conf.kind == "whisper" else conf.llm
    tokenizer = load_tokenizer(conf.init_from or language)
    check_vocabulary(model, tokenizer)
    return model.eval(), tokenizer


def _begin(conf: ModelConfig, dtype: torch.dtype, weights_later: bool) -> OsumModel | WhisperPhase:
    """Load the model that ``conf`` goes on from, or assemble a new one."""
    if conf.init_from:
        model = load(conf.init_from, dtype, weights_later)
        is_osum = isinstance(model, OsumModel)
        if is_osum != (conf.kind == "osum"):
            held = type(model).__name__
            raise ValueError(
                f"model.init_from {conf.init_from}: it holds a {held}, "
                f"but model.kind is {conf.kind!r}; change one of them"
            )
        return model
    if conf.kind == "whisper":
        return WhisperPhase.from_pretrained(conf.whisper, dtype)
    return OsumModel.from_parts(
        conf.encoder_source,
        conf.llm,
        adapter=conf.adapter,
        adapter_conf=conf.adapter_conf,
        dtype=dtype,
        encoder=conf.encoder.name if conf.encoder else "whisper",
        adapter_init=conf.adapter_init,
        weights_later=weights_later,
    )


def load(
    folder: str | Path,
    dtype: torch.dtype | str = torch.float32,
    weights_later: bool = False,
) -> OsumModel | WhisperPhase:
    """Load the model in a folder or under a hub name, in eval mode; its config.json says of which
    kind.

    ``dtype`` "auto": as saved. ``weights_later`` leaves the weights of encoder and LLM unread where
    that can be (models/unread.py). Raises ValueError where there is no model of ours.
    """
    kind = _model_type(folder)
    if kind not in KINDS:
        unknown = lookup.unknown("model_type", kind, sorted(KINDS))
        raise ValueError(f"{folder}: {unknown}; give a folder that training or model.whisper made")
    if kind == "whisper":
        return WhisperPhase.from_pretrained(folder, dtype)
    if weights_later:
        model = assemble.open_folder(OsumModel, str(folder))
        if model is not None:
            return model
    return OsumModel.from_pretrained(folder, dtype=dtype).eval()


def check_folder(folder: str | Path) -> None:
    """Raise ValueError for a path where no model lies; a hub name (``org/name``) passes."""
    path = Path(folder)
    final = path / "final"
    config = path / "config.json"
    if config.exists():
        return
    if final.is_dir():
        why = f"it has no config.json; did you mean {final}?"
    elif path.is_dir():
        why = "it has no config.json"
    elif path.is_absolute() or len(path.parts) > 2:
        why = "there is no such folder"
    else:
        return
    raise ValueError(f"no model in {str(folder)!r}: {why}")


def _model_type(folder: str | Path) -> str:
    check_folder(folder)
    try:
        config = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no model in {str(folder)!r}: {error}; give a folder with config.json, or a hub name"
        ) from None
    return config.model_type


def take_over(model: nn.Module, part: str, folder: str | Path) -> None:
    """Copy the weights of one part, such as ``encoder``, from another model's folder.

    The folder may hold a model of either kind, or for ``llm`` a causal LM alone; LoRA adapters
    there are merged. Raises ValueError when the part is unknown, and when a name, a shape or a
    setting differs that the weights were trained with (``SETTINGS``, attention heads).
    """
    known = [name for name, child in model.named_children() if child is not None]
    if part not in known:
        raise ValueError(f"model.init_parts: {lookup.unknown('part', part, known)}")
    target = getattr(model, part)
    source, places = _part_of(folder, part, weights_later=bool(unread.of_part(model, part)))

    # An adapter may have been made with other settings that its weights can be rewritten for.
    state = source.state_dict()
    if type(source) is type(target) and hasattr(target, "fit_state"):
        state = target.fit_state(state)
    faults = _differences(target.state_dict(), state) + _other_settings(target, source)
    if faults:
        some = "; ".join(faults[:SHOWN])
        raise ValueError(
            f"model.init_parts {part}: {folder} does not fit, {len(faults)} differences: {some}; "
            "give a folder of the same sizes"
        )
    _copy(model, part, state, places)
    if part == "encoder" and hasattr(source.config, "pad_s"):
        # As it was trained, unless encoder_conf of the new model says otherwise.
        target.config.pad_s = source.config.pad_s


def _copy(model: nn.Module, part: str, state: dict[str, Tensor], places: unread.Places) -> None:
    """Copy the weights of a part; those that are unread in both models stay so."""
    if not places:
        unread.read(model, part=part)
    there = {name: tensor for name, tensor in state.items() if not tensor.is_meta}
    getattr(model, part).load_state_dict(there, strict=not places)
    if places:
        model.unread |= unread.prefixed(part, places)


def _part_of(folder: str | Path, part: str, weights_later: bool) -> tuple[nn.Module, unread.Places]:
    """Load a part of the model in a folder, and say where its unread weights lie.

    Raises ValueError when it has none of that name.
    """
    kind = _model_type(folder)
    if part == "llm" and kind not in KINDS:
        return assemble.open_part(causal, str(folder), torch.float32, weights_later)
    if part == "encoder" and kind == "whisper" and weights_later:
        opened = whisper.without_weights(str(folder))
        if opened is not None:
            return opened
    # Of a whole model only the part is read.
    whole = load(folder, weights_later=True)
    adapted = isinstance(whole, OsumModel) and whole.lora is not None
    if not weights_later or (adapted and part == "llm"):
        unread.read(whole, part=part)
    if adapted and part == "llm":
        whole.merge_lora()
    source = getattr(whole, part, None)
    if source is None:
        raise ValueError(
            f"model.init_parts {part}: {folder} holds a {type(whole).__name__} without {part}; "
            "give another folder"
        )
    return source, unread.of_part(whole, part)


def _differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """List names that one of two parts lacks, and shapes that differ."""
    faults = [f"{name} is missing there" for name in ours if name not in theirs]
    for name, tensor in theirs.items():
        if name not in ours:
            faults.append(f"{name} is unknown here")
            continue
        there, here = tuple(tensor.shape), tuple(ours[name].shape)
        if there != here:
            faults.append(f"{name} is {there} there, {here} here")
    return faults


def _other_settings(target: nn.Module, source: nn.Module) -> list[str]:
    """List the settings in which two parts differ although their weights have the same shapes."""
    ours, theirs = _settings(target), _settings(source)
    faults = []
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name] != theirs[name]:
            faults.append(f"{name} is {theirs[name]} there, {ours[name]} here")

    # Weights of one table for both ends fit where there are two, but not the other way round.
    if _is_tied(target) and not _is_tied(source):
        faults.append("the head and the embeddings are two tables there, one here")
    return faults


def _settings(part: nn.Module) -> dict[str, Any]:
    """Return what decides how a part computes and does not show in the shapes of its weights."""
    found = {}
    for name in SETTINGS:
        value = getattr(part.config, name, None) if hasattr(part, "config") else None
        if isinstance(value, dict):
            found |= {f"{name}.{key}": one for key, one in value.items() if one is not None}
        elif value is not None:
            found[name] = value
    for name, module in part.named_modules():
        if isinstance(getattr(module, "heads", None), int):
            found[f"{name}.heads"] = module.heads
    return found


def _is_tied(part: nn.Module) -> bool:
    """Tell whether the head of an LLM is its table of embeddings."""
    head = part.get_output_embeddings() if hasattr(part, "get_output_embeddings") else None
    return head is not None and head.weight is part.get_input_embeddings().weight


def set_encoder_conf(model: OsumModel | WhisperPhase, conf: dict[str, Any]) -> None:
    """Put ``encoder_conf`` into the model's encoder; what it does not name stays.

    Raises ValueError for what the encoder does not know.
    """
    if not conf:
        return
    config = model.encoder.config
    plug_in = lookup.load("wenet_osum.models.encoder", config.model_type)
    if not hasattr(plug_in, "set_conf"):
        raise ValueError(
            f"model.encoder_conf {conf}: encoder {config.model_type!r} has no settings"
        )
    try:
        plug_in.set_conf(config, **conf)
    except TypeError as error:
        raise ValueError(
            f"model.encoder_conf {conf} does not fit encoder {config.model_type!r}: {error}"
        ) from None


def _lora(model: OsumModel | WhisperPhase, conf: LoraConfig) -> None:
    """Add LoRA, or check that the adapters a loaded model has are those asked for."""
    assert isinstance(model, OsumModel), "config.rules lets LoRA through for kind osum only"
    loaded = model.lora
    if loaded is None:
        model.add_lora(conf)
        return
    have = (loaded.r, float(loaded.lora_alpha), sorted(loaded.target_modules))
    want = (conf.r, conf.alpha, sorted(conf.targets))
    if have != want:
        raise ValueError(
            f"model.lora {want} (r, alpha, targets) differs from the loaded adapters {have}; "
            "merge those first, or drop model.lora"
        )
    lora.set_dropout(model.llm, loaded, conf.dropout)


def check_vocabulary(model: OsumModel | WhisperPhase, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError when the tokenizer knows ids that the model has no embedding for."""
    config = model.config
    rows = config.vocab_size if isinstance(model, WhisperPhase) else config.llm.vocab_size
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} ids, the model embeddings for {rows}; "
            "use the tokenizer that belongs to the model"
        )


def set_checkpointing(model: OsumModel | WhisperPhase) -> None:
    """Recompute the activations of every layer in the backward pass.

    ``use_reentrant=False`` is what DDP and frozen inputs need.
    """
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is None:
        enable = model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.train(model.training)
