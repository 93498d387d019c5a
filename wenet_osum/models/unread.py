"""Weights that stay in their files until it is known in which dtype, on which device and which rows
of them a process needs.

A model of 7B takes 28 GiB in float32, and each process of a node would need it whole before FSDP
shares it out. So the encoder and the LLM are built on torch's meta device, where tensors have
shapes and no numbers; the model's ``unread`` says in which file each of them lies. Freezing,
casting and sharding work there as well. Then ``read`` fills what is left: whole tensors, or of
those that FSDP has sharded this process's rows.

What is small or new (adapter, speech boundary, LoRA) has its numbers from the start.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from wenet_osum.models import lora


class Stored(NamedTuple):
    """A tensor in a file of safetensors."""

    path: str
    key: str
    shape: tuple[int, ...]

    def read(self, first: int = 0, end: int | None = None) -> Tensor:
        """Read its rows from ``first`` to before ``end``, in the dtype they are saved in."""
        # Pages of an open file count as memory of the process, so none is left open.
        with safe_open(self.path, framework="pt") as file:
            if not self.shape:
                return file.get_tensor(self.key)
            rows = file.get_slice(self.key)
            return rows[first:end]


# Name in a model or a part → where it lies.
Places = dict[str, Stored]


def find(source: str) -> Places:
    """Return all tensors of a folder or hub name by their keys; none without safetensors."""
    paths = []
    whole = _file(source, SAFE_WEIGHTS_NAME)
    index = _file(source, SAFE_WEIGHTS_INDEX_NAME)
    if whole is not None:
        paths = [whole]
    elif index is not None:
        text = Path(index).read_text(encoding="utf-8")
        file_of = json.loads(text)["weight_map"]
        names = {*file_of.values()}
        paths = [_file(source, name) for name in sorted(names)]

    found: Places = {}
    for path in paths:
        found |= in_file(path)
    return found


def in_file(path: str) -> Places:
    """Return all tensors of a file of safetensors by their keys."""
    found = {}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  # it is no dict
            shape = file.get_slice(key).get_shape()
            found[key] = Stored(path, key, tuple(shape))
    return found


def _file(source: str, name: str) -> str | None:
    return cached_file(source, name, _raise_exceptions_for_missing_entries=False)


def places(module: nn.Module, found: Places, prefix: str = "") -> Places | None:
    """Return where each tensor of ``module`` lies, of those ``found`` under ``prefix``.

    None where one is missing or has another shape: transformers then has to read them, which knows
    older names and other forms.
    """
    wanted = dict(module.named_parameters())
    saved = module.state_dict()
    for name, buffer in module.named_buffers():
        if name in saved:
            wanted[name] = buffer
    chosen = {}
    for name, tensor in wanted.items():
        place = found.get(prefix + name)
        if place is None or place.shape != tuple(tensor.shape):
            return None
        chosen[name] = place
    return chosen


@torch.no_grad()
def fill_buffers(model: PreTrainedModel, where: Places) -> None:
    """Give a model on the meta device its buffers, which are small: saved ones from their files,
    the others as its class computes them (rotary frequencies). Takes the former out of ``where``.

    transformers computes buffers and first weights in one method, and leaves alone what is marked
    as initialized.
    """
    saved = model.state_dict(keep_vars=True)
    for tensor in saved.values():
        tensor._is_hf_initialized = True
    for name, buffer in list(model.named_buffers()):
        if name in saved:
            stored = where.pop(name).read()
            value = stored.clone()
        else:
            value = torch.empty_like(buffer, device="cpu")
        _replace(model, name, value)
    model.initialize_weights()


def prefixed(part: str, where: Mapping[str, Stored]) -> Places:
    """Return the places of a part by the names in the whole model."""
    return {f"{part}.{name}": place for name, place in where.items()}


def of_part(model: nn.Module, part: str) -> Places:
    """Return what is unread of a part, by the names in it; the reverse of ``prefixed``."""
    start = f"{part}."
    found = {}
    for name, place in getattr(model, "unread", {}).items():
        if name.startswith(start):
            found[name.removeprefix(start)] = place
    return found


@torch.no_grad()
def read(model: nn.Module, device: torch.device | str = "cpu", part: str | None = None) -> None:
    """Read the unread weights of ``model``, or of one ``part``, to ``device`` in the dtype they
    have in the model; of parameters that FSDP has sharded, this process's rows."""
    waiting = getattr(model, "unread", {})
    for names in list(_names(model)):
        plain = lora.plain_name(names[0])
        asked = part is None or plain.startswith(f"{part}.")
        if not asked or plain not in waiting:
            continue
        place = waiting.pop(plain)
        old = model.get_parameter(names[0])
        fill = _rows if isinstance(old, DTensor) else _whole
        value = fill(old, place, device)
        parameter = nn.Parameter(value, requires_grad=old.requires_grad)
        # Tied weights stay tied.
        for name in names:
            _replace(model, name, parameter)


def _replace(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of the parameter or buffer ``name``."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    setattr(module, leaf, tensor)


def _names(model: nn.Module) -> Iterator[list[str]]:
    """Return all names of each parameter: tied weights have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases = names.setdefault(id(parameter), [])
        aliases.append(name)
    yield from names.values()


def _whole(old: Tensor, place: Stored, device: torch.device | str) -> Tensor:
    """Read a whole tensor in the dtype of ``old``."""
    value = torch.empty(old.shape, dtype=old.dtype, device=device)
    stored = place.read()
    return value.copy_(stored)


def _rows(old: DTensor, place: Stored, device: torch.device | str) -> DTensor:
    """Read this process's rows of a sharded tensor: FSDP cuts into ceil(rows ÷ processes)."""
    mesh = old.device_mesh
    each = math.ceil(old.shape[0] / mesh.size())
    first = mesh.get_local_rank() * each
    local = old.to_local()
    value = torch.empty(local.shape, dtype=local.dtype, device=device)
    count = len(value)
    if count:
        stored = place.read(first, first + count)
        value.copy_(stored)
    return DTensor.from_local(
        value,
        mesh,
        old.placements,
        run_check=False,
        shape=old.shape,
        stride=old.stride(),
    )


def whole_copy(model: nn.Module, part: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a part with all of its weights, on ``device`` in ``dtype``."""
    holder = nn.Module()
    module = copy.deepcopy(getattr(model, part))
    holder.add_module(part, module)
    holder.unread = prefixed(part, of_part(model, part))
    # Before the numbers are there: so they are read in that dtype.
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    read(holder, device)
    return module.to(device)


@torch.no_grad()
def token_embeddings(model: nn.Module, first: int, end: int) -> Tensor:
    """Return the LLM's embeddings (end - first, H) of tokens ``first`` to before ``end``.

    The module is called: the embeddings of Gemma are larger than the numbers of their table.
    """
    embed = model.get_input_embeddings()
    if not embed.weight.is_meta:
        return embed(torch.arange(first, end))
    for name, parameter in model.named_parameters():
        if parameter is embed.weight:
            place = model.unread[name]
    rows = place.read(first, end).float()
    # The place of a padding token lies beyond these rows.
    plain = copy.copy(embed)
    plain.padding_idx = None
    return functional_call(plain, {"weight": rows}, torch.arange(end - first))
