"""From published .pt files to model folders: what the converters of OSUM (convert_osum.py) and
Whisper (convert_whisper.py) share.

A converter builds the target model without memory (meta device), says for each of its tensors which
key of the file it comes from, and leaves the rest to this page: every key is used, known to be
unused, or a fault; every size fits; nothing is written before all is well.

The file stays on the disk (``mmap``) and is opened anew for each shard that is written, so that
memory holds one shard at a time.
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
# Faults an error names.
SHOWN = 8

# Opens the .pt file: a state dict whose tensors lie on the disk.
Read = Callable[[], dict[str, Tensor]]
Shapes = dict[str, tuple[int, ...]]


def whole(tensor: Tensor) -> Tensor:
    """Return the tensor as it is."""
    return tensor


@dataclass(frozen=True)
class Piece:
    """The source of a target tensor in the file."""

    key: str
    # Returns a view, where it can.
    cut: Callable[[Tensor], Tensor] = whole


def open_pt(path: str | Path) -> Any:
    """Open what torch.save wrote, its tensors left on the disk.

    Raises ValueError for files of another kind, or with code in them.
    """
    try:
        return torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} holds more than tensors, which is not read: {reason}; "
            "save its state dict alone with torch.save"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        lines = str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise ValueError(
            f"{path} is no readable .pt file: {reason}; "
            "give a file that torch.save wrote (zip format, torch 1.6 or later)"
        ) from None


def state_of(loaded: Any, path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a file: plain, under ``module`` as DeepSpeed saves it, or with names
    that begin with ``module.`` (DDP)."""
    while isinstance(loaded, dict) and isinstance(loaded.get("module"), dict):
        loaded = loaded["module"]
    if not isinstance(loaded, dict) or not loaded:
        kind = type(loaded).__name__
        raise ValueError(
            f"{path} holds a {kind}, not a table of names and tensors; give a checkpoint"
        )
    wrong = []
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            wrong.append(repr(key))
    if wrong:
        names = ", ".join(wrong[:SHOWN])
        raise ValueError(
            f"{path}: {len(wrong)} entries are not named tensors ({names}); "
            "give a state dict, or DeepSpeed's with its key 'module'"
        )
    while all(key.startswith("module.") for key in loaded):
        loaded = {key.removeprefix("module."): value for key, value in loaded.items()}
    return loaded


def size(state: dict[str, Tensor], key: str, axis: int, path: str | Path) -> int:
    """Read a size off a tensor. Raises ValueError when the file lacks it."""
    tensor = state.get(key)
    if tensor is None or tensor.dim() <= axis:
        raise ValueError(
            f"{path} has no usable key {key!r}, from which sizes are read; "
            "give a checkpoint of this kind"
        )
    return tensor.shape[axis]


def count(state: dict[str, Tensor], prefix: str) -> int:
    """Count the layers that are numbered behind ``prefix``: the highest number and one."""
    layers = 0
    for key in state:
        if not key.startswith(prefix):
            continue
        number, _, _ = key.removeprefix(prefix).partition(".")
        if number.isdecimal():
            layers = max(layers, int(number) + 1)
    return layers


def check(
    state: dict[str, Tensor],
    pieces: dict[str, Piece],
    shapes: Shapes,
    unused: set[str],
    path: str | Path,
    rule: str,
) -> None:
    """Raise one ValueError that lists what does not fit: keys without a place, missing keys, wrong
    sizes, tensors that are no weights.

    ``shapes`` are those of the target's tensors, ``unused`` the keys of the file that are known to
    have no place, ``rule`` what to do.
    """
    known = set(unused)
    for piece in pieces.values():
        known.add(piece.key)
    faults = [f"unknown key {key!r}" for key in state if key not in known]
    for piece in pieces.values():
        if piece.key not in state:
            faults.append(f"missing key {piece.key!r}")
    for name, piece in pieces.items():
        if piece.key in state:
            faults += _misfits(state[piece.key], piece, name, tuple(shapes[name]))
    if not faults:
        return
    some = "; ".join(faults[:SHOWN])
    left = len(faults) - SHOWN
    more = ""
    if left > 0:
        more = f"; and {left} more"
    raise ValueError(f"{path} does not fit, {len(faults)} faults: {some}{more}. {rule}")


def _misfits(tensor: Tensor, piece: Piece, name: str, needed: tuple[int, ...]) -> list[str]:
    """Say what keeps a tensor of the file from becoming ``name``."""
    if not tensor.is_floating_point():
        return [f"{piece.key!r} is {tensor.dtype}, weights are floating point"]
    shape = tuple(piece.cut(tensor).shape)
    if shape != needed:
        return [f"{piece.key!r} is {shape}, {name} needs {needed}"]
    return []


def same(state: dict[str, Tensor], alias: str, original: str, path: str | Path) -> None:
    """Raise ValueError when a key that should repeat another holds other values.

    An absent one is fine.
    """
    if alias not in state or original not in state:
        return
    one, other = state[alias], state[original]
    if one.shape == other.shape:
        in_one_place = one.data_ptr() == other.data_ptr()
        if in_one_place or torch.equal(one, other):
            return
    raise ValueError(
        f"{path}: {alias!r} should repeat {original!r} and holds other values; "
        "give the checkpoint as it was published"
    )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Make a folder to write into; it gets its name when the block ends well and goes away
    otherwise.

    Raises ValueError when ``out`` is taken, or an empty folder that cannot be replaced, such as one
    that is mounted.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty; give another --out, or remove it")
    # A link leads to where the folder is to be.
    out = out.resolve()
    if out.is_dir():
        try:
            out.rmdir()
        except OSError as error:
            why = f"{out} cannot be replaced ({error.strerror})"
            raise ValueError(f"{why}; name a folder in it that does not exist yet") from None
    temporary = out.parent / f".{out.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_model(
    folder: Path, read: Read, pieces: dict[str, Piece], shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Write the weights of a model as transformers reads them: one file, or shards of at most
    ``shard_bytes`` (a tensor at least) with an index.

    ``read`` opens the .pt file; it is called once more for each shard.
    """
    shards, total = _plan(read(), pieces, shard_bytes)
    if len(shards) == 1:
        path = folder / WEIGHTS
        write_file(path, read, pieces)
        return [path]

    paths = []
    file_of = {}
    for number, names in enumerate(shards, 1):
        path = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        of_shard = {name: pieces[name] for name in names}
        write_file(path, read, of_shard)
        paths.append(path)
        file_of |= dict.fromkeys(names, path.name)
    index = {"metadata": {"total_size": total}, "weight_map": file_of}
    text = json.dumps(index, indent=1)
    (folder / INDEX).write_text(text, encoding="utf-8")
    return paths


def read_index(path: str | Path) -> dict[str, str]:
    """Return tensor name → file name of a model in shards."""
    text = Path(path).read_text(encoding="utf-8")
    index = json.loads(text)
    return index["weight_map"]


def _plan(
    state: dict[str, Tensor], pieces: dict[str, Piece], shard_bytes: int
) -> tuple[list[list[str]], int]:
    """Return the names of each shard, in order, and the bytes of all."""
    shards: list[list[str]] = [[]]
    filled = total = 0
    for name, piece in pieces.items():
        tensor = piece.cut(state[piece.key])
        need = tensor.nbytes
        if filled and filled + need > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += need
        total += need
    return shards, total


def write_file(path: Path, read: Read, pieces: dict[str, Piece]) -> None:
    """Write one safetensors file."""
    state = read()
    tensors: dict[str, Tensor] = {}
    taken = set()
    for name, piece in pieces.items():
        tensor = piece.cut(state[piece.key])
        tensor = tensor.contiguous()
        if _place(tensor) in taken:
            # Tied in the file, not in the target: safetensors wants two copies.
            tensor = tensor.clone()
        tensors[name] = tensor
        taken.add(_place(tensor))
    save_file(tensors, str(path), metadata={"format": "pt"})


def _place(tensor: Tensor) -> int:
    """Return where in memory the numbers of a tensor lie."""
    return tensor.untyped_storage().data_ptr()
