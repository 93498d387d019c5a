"""LoRA (Hu et al., 2021, arXiv 2106.09685) through peft, injected so that the model's class and the
names outside stay as they are.

In a model folder the base weights keep their plain names and the adapters lie in ``lora`` as peft
writes them: an adapter_config.json beside model.safetensors would make ``from_pretrained`` take the
folder for an adapter alone.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import cached_file

from wenet_osum.config import LoraConfig
from wenet_osum.models import lora_input

FOLDER = "lora"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# peft's name for an adapter without one.
NAME = "default"
# What peft's names of a causal LM begin with.
PREFIX = "base_model.model."
_ADAPTER = re.compile(r"\.lora_[A-Za-z_]+\.")


def add(llm: nn.Module, conf: Any, name: str = NAME) -> Any:
    """Put adapters into ``llm`` as ``name`` and return peft's LoraConfig.

    ``conf`` is that or the one of ``config``. Raises ValueError when no module has a target's
    name, and for the head of an LLM whose head is its table of embeddings.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    if not isinstance(conf, PeftConfig):
        conf = PeftConfig(
            r=conf.r,
            lora_alpha=conf.alpha,
            lora_dropout=conf.dropout,
            target_modules=list(conf.targets),
            task_type="CAUSAL_LM",
        )
    missing = _missing(llm, conf.target_modules)
    if missing:
        known = ", ".join(_linear(llm))
        raise ValueError(
            f"lora.targets {missing}: the LLM ({type(llm).__name__}) has no such modules; "
            f"its linear layers: {known}"
        )
    _refuse_tied_head(llm, conf.target_modules)
    if not conf.base_model_name_or_path:
        conf.base_model_name_or_path = getattr(llm, "name_or_path", None)
    with _as_on_cpu(llm), warnings.catch_warnings():
        # Several adapters in one model are meant (loras.py).
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        inject_adapter_in_model(conf, llm, adapter_name=name)
    lora_input.share(llm, name)
    return conf


def _refuse_tied_head(llm: nn.Module, targets: Any) -> None:
    """Raise ValueError where adapters of the head would be merged into the embeddings as well."""
    head = llm.get_output_embeddings() if hasattr(llm, "get_output_embeddings") else None
    if head is None or head.weight is not llm.get_input_embeddings().weight:
        return
    for name, module in llm.named_modules():
        if module is not head or isinstance(targets, str):
            continue
        if any(f".{name}".endswith(f".{target}") for target in targets):
            raise ValueError(
                f"lora.targets {name}: this LLM's head is its table of embeddings, which adapters "
                "of the head would change when they are merged; leave it out"
            )


@contextmanager
def _as_on_cpu(llm: nn.Module) -> Iterator[None]:
    """Let linear layers whose weights are unread (models/unread.py) pass for layers of the CPU:
    peft moves a new adapter to where the weight lies that it adapts.
    """
    unread = []
    for module in llm.modules():
        if isinstance(module, nn.Linear) and module.weight.is_meta:
            unread.append((module, module.weight))
            # One number in the place of all takes no memory.
            number = torch.zeros((), dtype=module.weight.dtype)
            module.weight = nn.Parameter(number.expand(module.weight.shape))
    try:
        yield
    finally:
        for module, weight in unread:
            weight.requires_grad_(module.weight.requires_grad)
            module.weight = weight


def _linear(llm: nn.Module) -> list[str]:
    """List the last names of the LLM's linear layers."""
    found = set()
    for name, module in llm.named_modules():
        if isinstance(module, nn.Linear):
            _, _, last = name.rpartition(".")
            found.add(last)
    return sorted(found)


def _missing(llm: nn.Module, targets: Any) -> list[str]:
    """List the targets that no module is named by, whole or at its end."""
    # A regular expression of peft, or "all-linear": peft itself complains.
    if isinstance(targets, str):
        return []
    # A dot before each, so that ends are ends of whole words.
    known = [f".{name}" for name, _ in llm.named_modules()]
    missing = []
    for target in targets or []:
        if not any(name.endswith(f".{target}") for name in known):
            missing.append(target)
    return sorted(missing)


def set_dropout(llm: nn.Module, conf: Any, rate: float) -> None:
    """Let the adapters of ``llm``, whose settings are peft's ``conf``, drop inputs at ``rate``."""
    conf.lora_dropout = rate
    for module in llm.modules():
        if isinstance(module, lora_input.SharedInput):
            module.rate = rate


def base_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without adapters, under the names they have without adapters."""
    base = {}
    for name, tensor in state.items():
        if not _ADAPTER.search(name):
            plain = plain_name(name)
            base[plain] = tensor
    return base


def plain_name(name: str) -> str:
    """Return the name that a weight has without adapters."""
    return name.replace(".base_layer.", ".")


def save(llm: nn.Module, conf: Any, state: dict[str, Tensor], folder: Path) -> None:
    """Write the adapters of ``llm``, whose weights are ``state``, into ``folder/lora``."""
    from peft import get_peft_model_state_dict

    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    adapters = get_peft_model_state_dict(
        llm,
        state_dict=state,
        adapter_name=NAME,
        save_embedding_layers=False,
    )
    tensors = {}
    for name, tensor in adapters.items():
        tensors[PREFIX + name] = tensor.detach().cpu().contiguous()
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})

    # Written as for use, as peft does it.
    training = conf.inference_mode
    conf.inference_mode = True
    conf.save_pretrained(target)
    conf.inference_mode = training


def remove(folder: Path) -> None:
    """Remove the adapters that a model folder has from a model of before."""
    for name in (CONFIG, WEIGHTS):
        (folder / FOLDER / name).unlink(missing_ok=True)


def settings(source: str) -> LoraConfig | None:
    """Read the size of the adapters of a model folder or hub name; None where it has none."""
    file = find(source, CONFIG)
    if file is None:
        return None
    text = Path(file).read_text(encoding="utf-8")
    found = json.loads(text)
    return LoraConfig(
        r=found["r"],
        alpha=found["lora_alpha"],
        dropout=found["lora_dropout"],
        targets=sorted(found["target_modules"]),
    )


def load(
    llm: nn.Module, source: str, as_saved: bool = False, name: str = NAME, **where: Any
) -> Any:
    """Put the adapters of a model folder or hub name into ``llm`` as ``name``; returns peft's
    LoraConfig, None when there are none.

    ``as_saved``: in their own dtype, which may be wider than that of the weights they adapt; else
    in that one. ``where`` are the hub's keywords, such as ``revision``. Raises ValueError where one
    of two files is missing, and where they do not fit.
    """
    config, weights = find(source, CONFIG, **where), find(source, WEIGHTS, **where)
    if config is None and weights is None:
        return None
    if config is None or weights is None:
        raise ValueError(
            f"{source}/{FOLDER} needs both {CONFIG} and {WEIGHTS}; the folder is incomplete"
        )

    # Only now: a model without adapters needs no peft.
    from peft import LoraConfig, set_peft_model_state_dict

    conf = LoraConfig.from_pretrained(str(Path(config).parent))
    conf.inference_mode = False
    add(llm, conf, name)

    tensors = {}
    for key, tensor in load_file(weights).items():
        tensors[key.removeprefix(PREFIX)] = tensor
    if as_saved:
        _use_dtype_of(llm, next(iter(tensors.values())))
    result = set_peft_model_state_dict(llm, tensors, adapter_name=name)

    lost = [key for key in result.missing_keys if f".{name}." in key and _ADAPTER.search(key)]
    lost += result.unexpected_keys
    if lost:
        raise ValueError(
            f"{source}/{FOLDER} does not fit the LLM: {len(lost)} names without a counterpart, "
            f"e.g. {lost[0]}"
        )
    return conf


def find(source: str, name: str, **where: Any) -> str | None:
    """Return the path of a file of the adapters of a folder or hub name, None when there is
    none."""
    path = f"{FOLDER}/{name}"
    return cached_file(source, path, _raise_exceptions_for_missing_entries=False, **where)


def _use_dtype_of(llm: nn.Module, tensor: Tensor) -> None:
    """Bring the adapters of ``llm`` to the dtype of a tensor."""
    for name, parameter in llm.named_parameters():
        if _ADAPTER.search(name):
            parameter.data = parameter.data.to(tensor.dtype)


def there(llm: nn.Module) -> bool:
    """Tell whether ``llm`` has adapters."""
    return any(_ADAPTER.search(name) for name, _ in llm.named_parameters())


@contextmanager
def off(llm: nn.Module) -> Iterator[None]:
    """Let ``llm`` be what it is without its adapters, as long as the context lasts."""
    from peft.helpers import rescale_adapter_scale

    if not there(llm):
        yield
        return
    with rescale_adapter_scale(llm, 0.0):
        yield


def merge(llm: nn.Module) -> None:
    """Add each adapter's product to its weight and put the plain layers back."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = list(llm.named_modules())
    for name, module in modules:
        if isinstance(module, BaseTunerLayer):
            module.merge()
            llm.set_submodule(name, module.get_base_layer())
    if hasattr(llm, "peft_config"):
        del llm.peft_config
