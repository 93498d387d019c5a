"""Average the weights of checkpoints in float32.

Averaging over the end of a run is worth a few steps at a lower learning rate.

Of LoRA the means of A and of B are taken, each for itself. Their product is not the mean of the
products B · A, but near it where the checkpoints are of one run, and it keeps the rank.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from wenet_osum.models import lora
from wenet_osum.train import checkpoint

NOTE = "average.json"
LORA_NOTE = "LoRA: A and B are averaged each for itself, which is near the mean of their products"


def choose(exp_dir: Path, mode: str, num: int) -> list[Path]:
    """Choose the checkpoints to average, oldest first.

    ``mode`` last takes the newest ``num``, best those with the lowest mean dev loss. Raises
    ValueError when there are none.
    """
    found = checkpoint.complete(exp_dir)
    if not found:
        raise ValueError(
            f"{exp_dir} holds no complete checkpoint (step_*/DONE); train first, or check --exp_dir"
        )
    if num < 1:
        raise ValueError(f"--num {num} must be at least 1")
    if mode == "last":
        return found[-num:]

    scored = []
    for path in found:
        losses = checkpoint.read_state(path).dev
        if losses:
            mean = sum(losses.values()) / len(losses)
            if math.isfinite(mean):
                scored.append((mean, path))
    if not scored:
        raise ValueError(
            f"no checkpoint in {exp_dir} has a dev loss; use --mode last, or train with data.dev"
        )
    best = sorted(scored)[:num]
    return sorted(path for _, path in best)


def average(sources: list[Path], out: Path) -> None:
    """Write a complete model folder whose weights are the mean of those of ``sources``.

    All else, integer tensors too, is from the newest, which comes last. Raises ValueError when the
    checkpoints do not hold the same tensors, and when ``out`` is no folder of a model.
    """
    _check_replaceable(out, sources)
    newest = sources[-1]
    temporary = out.parent / f".{out.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    not_copied = (checkpoint.TRAINER, checkpoint.DONE, "*.safetensors")
    shutil.copytree(newest, temporary, ignore=shutil.ignore_patterns(*not_copied))

    for file in sorted(newest.rglob("*.safetensors")):
        name = file.relative_to(newest)
        metadata, tensors = _mean([source / name for source in sources])
        save_file(tensors, str(temporary / name), metadata=metadata)

    rows = []
    for source in sources:
        state = checkpoint.read_state(source)
        rows.append({"checkpoint": source.name, "step": state.step, "dev": state.dev})
    note = json.dumps({"averaged": rows}, ensure_ascii=False, indent=1)
    (temporary / NOTE).write_text(note, encoding="utf-8")
    checkpoint.publish(temporary, out)


def _check_replaceable(out: Path, sources: list[Path]) -> None:
    """Raise ValueError unless ``out`` is missing, empty or a model that may be written anew."""
    if not out.exists():
        return
    whole = out.resolve()
    holds_source = any(source.resolve().is_relative_to(whole) for source in sources)
    is_model = any((out / name).is_file() for name in ("config.json", checkpoint.DONE))
    is_empty = out.is_dir() and not any(out.iterdir())
    if holds_source or not (is_model or is_empty):
        raise ValueError(
            f"--out {out} exists, and is not a model folder that can be replaced; "
            f"give one, e.g. {sources[-1].parent / checkpoint.FINAL}"
        )


def has_lora(folder: Path) -> bool:
    """Return True for a checkpoint with LoRA adapters."""
    return (folder / lora.FOLDER).exists()


def _mean(files: list[Path]) -> tuple[dict[str, str] | None, dict[str, torch.Tensor]]:
    """Average one file of each checkpoint; returns the metadata of the last, and the tensors."""
    newest = files[-1]
    with safe_open(newest, "pt") as file:
        metadata, dtypes = file.metadata(), _dtypes(file)
        sums: dict[str, torch.Tensor] = {}
        for name, tensor in _tensors(file):
            if tensor.is_floating_point():
                sums[name] = tensor.float()

    # Sums are float32, whatever the checkpoints are in.
    for path in files[:-1]:
        if not path.exists():
            raise ValueError(f"{path} is missing: only checkpoints of one run can be averaged")
        with safe_open(path, "pt") as file:
            if _dtypes(file) != dtypes:
                raise ValueError(
                    f"{path} holds other tensors than {newest}: "
                    "only checkpoints of one run can be averaged"
                )
            for name, tensor in _tensors(file):
                if tensor.is_floating_point():
                    sums[name] += tensor.float()

    means = {}
    with safe_open(newest, "pt") as file:
        for name, tensor in _tensors(file):
            if tensor.is_floating_point():
                mean = sums[name] / len(files)
                tensor = mean.to(tensor.dtype)
            means[name] = tensor
    return metadata, means


def _dtypes(file: safe_open) -> dict[str, str]:
    """Return the dtype of each tensor by name, without reading any."""
    found = {}
    for name in file.keys():  # noqa: SIM118
        found[name] = file.get_slice(name).get_dtype()
    return found


def _tensors(file: safe_open) -> Iterator[tuple[str, torch.Tensor]]:
    """Read one tensor after the other, with its name."""
    for name in file.keys():  # noqa: SIM118
        yield name, file.get_tensor(name)
