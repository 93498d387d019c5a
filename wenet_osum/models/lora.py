"""LoRA (Hu et al., 2021, arXiv 2106.09685) through peft, injected so that the model's class and the names outside stay as they are.

In a model folder the base weights keep their plain names and the adapters lie in ``lora`` as peft writes them: an adapter_config.json
beside model.safetensors would make ``from_pretrained`` take the folder for an adapter alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import cached_file

FOLDER = "lora"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAME = "default"  # peft's name for an adapter without one
_ADAPTER = re.compile(r"\.lora_[A-Za-z_]+\.")


def add(llm: nn.Module, conf: Any) -> Any:
    """Put adapters into ``llm`` and return peft's LoraConfig. Raises ValueError when no module has a target's name."""
    from peft import LoraConfig, inject_adapter_in_model

    if not isinstance(conf, LoraConfig):
        conf = LoraConfig(r=conf.r, lora_alpha=conf.alpha, lora_dropout=conf.dropout, target_modules=list(conf.targets), task_type="CAUSAL_LM")
    missing = _missing(llm, conf.target_modules)
    if missing:
        raise ValueError(f"lora.targets {missing}: the LLM ({type(llm).__name__}) has no such modules; its linear layers: {', '.join(_linear(llm))}")
    conf.base_model_name_or_path = conf.base_model_name_or_path or getattr(llm, "name_or_path", None)
    inject_adapter_in_model(conf, llm, adapter_name=NAME)
    return conf


def _linear(llm: nn.Module) -> list[str]:
    return sorted({name.rsplit(".", 1)[-1] for name, module in llm.named_modules() if isinstance(module, nn.Linear)})


def _missing(llm: nn.Module, targets: Any) -> list[str]:
    if isinstance(targets, str):  # a regular expression of peft, or "all-linear"; peft itself complains
        return []
    known = [name for name, _ in llm.named_modules()]
    return sorted(t for t in targets or [] if not any(name == t or name.endswith(f".{t}") for name in known))


def base_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without adapters, under the names they have without adapters."""
    return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if not _ADAPTER.search(name)}


def save(llm: nn.Module, conf: Any, state: dict[str, Tensor], folder: Path) -> None:
    """Write the adapters of ``llm``, whose weights are ``state``, into ``folder/lora``."""
    from peft import get_peft_model_state_dict

    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(llm, state_dict=state, adapter_name=NAME, save_embedding_layers=False)
    tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    training, conf.inference_mode = conf.inference_mode, True
    conf.save_pretrained(target)
    conf.inference_mode = training


def load(llm: nn.Module, source: str, as_saved: bool = False, **where: Any) -> Any:
    """Put the adapters of a model folder or hub name into ``llm``; returns peft's LoraConfig, None when there are none.

    ``as_saved``: in their own dtype, which may be wider than that of the weights they adapt; else
    in that one. ``where`` are the hub's keywords, such as ``revision``.
    """
    found = [cached_file(source, f"{FOLDER}/{name}", _raise_exceptions_for_missing_entries=False, **where) for name in (CONFIG, WEIGHTS)]
    if found == [None, None]:
        return None
    if None in found:
        raise ValueError(f"{source}/{FOLDER} needs both {CONFIG} and {WEIGHTS}; the folder is incomplete")
    from peft import LoraConfig, set_peft_model_state_dict

    conf = LoraConfig.from_pretrained(str(Path(found[0]).parent))
    conf.inference_mode = False
    add(llm, conf)
    tensors = {name.removeprefix("base_model.model."): tensor for name, tensor in load_file(found[1]).items()}
    if as_saved:
        saved = next(iter(tensors.values())).dtype
        for name, parameter in llm.named_parameters():
            if _ADAPTER.search(name):
                parameter.data = parameter.data.to(saved)
    result = set_peft_model_state_dict(llm, tensors, adapter_name=NAME)
    lost = [name for name in result.missing_keys if _ADAPTER.search(name)] + list(result.unexpected_keys)
    if lost:
        raise ValueError(f"{source}/{FOLDER} does not fit the LLM: {len(lost)} names without a counterpart, e.g. {lost[0]}")
    return conf


def merge(llm: nn.Module) -> None:
    """Add each adapter's product to its weight and put the plain layers back."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(llm.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            llm.set_submodule(name, module.get_base_layer())
    if hasattr(llm, "peft_config"):
        del llm.peft_config
