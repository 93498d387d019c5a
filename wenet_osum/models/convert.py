"""From published .pt files to model folders: what the converters of OSUM (convert_osum.py) and Whisper (convert_whisper.py) share.

A converter builds the target model without memory (meta device), says for each of its tensors which key of the file it comes from, and
leaves the rest to this page: every key is used, known to be unused, or a fault; every size fits; nothing is written before all is well.

The file stays on the disk (``mmap``) and is opened anew for each shard that is written, so that memory holds one shard at a time.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

SHARD_BYTES = 2 * 1024**3
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHOWN = 8  # faults an error names


def whole(tensor: Tensor) -> Tensor:
    """The tensor as it is."""
    return tensor


@dataclass(frozen=True)
class Piece:
    """Where a tensor of the target lies in the file."""

    key: str
    cut: Callable[[Tensor], Tensor] = whole  # returns a view, where it can


def open_pt(path: str | Path) -> Any:
    """What torch.save wrote, its tensors left on the disk. Raises ValueError for files of another kind, or with code in them."""
    try:
        return torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} holds more than tensors, which is not read: {reason}; save its state dict alone with torch.save") from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no readable .pt file: {reason}; give a file that torch.save wrote (zip format, torch 1.6 or later)") from None


def state_of(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file: plain, under ``module`` as DeepSpeed saves it, or with names that begin with ``module.`` (DDP)."""
    while isinstance(loaded, dict) and isinstance(loaded.get("module"), dict):
        loaded = loaded["module"]
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a table of names and tensors; give a checkpoint")
    wrong = [key for key, value in loaded.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if wrong:
        names = ", ".join(map(repr, wrong[:SHOWN]))
        raise ValueError(f"{path}: {len(wrong)} entries are not named tensors ({names}); give a state dict, or DeepSpeed's with its key 'module'")
    while all(key.startswith("module.") for key in loaded):
        loaded = {key.removeprefix("module."): value for key, value in loaded.items()}
    return loaded


def size(state: dict[str, Tensor], key: str, axis: int, path: str | Path) -> int:
    """A size read off a tensor. Raises ValueError when the file lacks it."""
    if key not in state or state[key].dim() <= axis:
        raise ValueError(f"{path} has no usable key {key!r}, from which sizes are read; give a checkpoint of this kind")
    return state[key].shape[axis]


def count(state: dict[str, Tensor], prefix: str) -> int:
    """How many layers are numbered behind ``prefix``: the highest number and one."""
    numbers = [key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)]
    return max((int(n) for n in numbers if n.isdecimal()), default=-1) + 1


def check(
    state: dict[str, Tensor], pieces: dict[str, Piece], shapes: dict[str, tuple[int, ...]], unused: set[str], path: str | Path, rule: str
) -> None:
    """Raise one ValueError that lists what does not fit: keys without a place, missing keys, wrong sizes, tensors that are no weights.

    ``shapes`` are those of the target's tensors, ``unused`` the keys of the file that are known to have no place, ``rule`` what to do.
    """
    used = {piece.key for piece in pieces.values()}
    faults = [f"unknown key {key!r}" for key in state if key not in used and key not in unused]
    faults += [f"missing key {piece.key!r}" for piece in pieces.values() if piece.key not in state]
    for name, piece in pieces.items():
        if piece.key not in state:
            continue
        tensor = state[piece.key]
        if not tensor.is_floating_point():
            faults.append(f"{piece.key!r} is {tensor.dtype}, weights are floating point")
        elif tuple(piece.cut(tensor).shape) != tuple(shapes[name]):
            faults.append(f"{piece.key!r} is {tuple(piece.cut(tensor).shape)}, {name} needs {tuple(shapes[name])}")
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(f"{path} does not fit, {len(faults)} faults: {'; '.join(faults[:SHOWN])}{more}. {rule}")


def same(state: dict[str, Tensor], alias: str, original: str, path: str | Path) -> None:
    """Raise ValueError when a key that should repeat another holds other values. An absent one is fine."""
    if alias not in state or original not in state:
        return
    one, other = state[alias], state[original]
    if one.shape != other.shape or (one.data_ptr() != other.data_ptr() and not torch.equal(one, other)):
        raise ValueError(f"{path}: {alias!r} should repeat {original!r} and holds other values; give the checkpoint as it was published")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into; it gets its name when the block ends well and goes away otherwise. Raises ValueError when ``out`` is taken."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty; give another --out, or remove it")
    temporary = out.parent / f".{out.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_model(folder: Path, read: Callable[[], dict[str, Tensor]], pieces: dict[str, Piece], shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write the weights of a model as transformers reads them: one file, or shards of at most ``shard_bytes`` (a tensor at least) with an index.

    ``read`` opens the .pt file; it is called once more for each shard.
    """
    shards, total = _plan(read(), pieces, shard_bytes)
    if len(shards) == 1:
        write_file(folder / WEIGHTS, read, pieces)
        return [folder / WEIGHTS]
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(names, shards, strict=True):
        write_file(folder / file, read, {name: pieces[name] for name in shard})
    file_of = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": total}, "weight_map": file_of}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return [folder / file for file in names]


def read_index(path: str | Path) -> dict[str, str]:
    """Tensor name → file name of a model in shards."""
    return json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"]


def _plan(state: dict[str, Tensor], pieces: dict[str, Piece], shard_bytes: int) -> tuple[list[list[str]], int]:
    """Names of each shard, in order, and the bytes of all."""
    shards: list[list[str]] = [[]]
    filled = total = 0
    for name, piece in pieces.items():
        need = piece.cut(state[piece.key]).nbytes
        if filled and filled + need > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled, total = filled + need, total + need
    return shards, total


def write_file(path: Path, read: Callable[[], dict[str, Tensor]], pieces: dict[str, Piece]) -> None:
    """Write one safetensors file."""
    state, tensors, taken = read(), {}, set()
    for name, piece in pieces.items():
        tensor = piece.cut(state[piece.key]).contiguous()
        shared = tensor.untyped_storage().data_ptr() in taken  # tied in the file, not in the target: safetensors wants two copies
        tensors[name] = tensor.clone() if shared else tensor
        taken.add(tensor.untyped_storage().data_ptr())
    save_file(tensors, str(path), metadata={"format": "pt"})
