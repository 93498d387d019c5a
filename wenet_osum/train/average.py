"""The mean of checkpoints' weights, in float32. Averaging over the end of a run is worth a few
steps of lower rate.

Of LoRA the means of A and of B are taken, each for itself. Their product is not the mean of the
products B · A, but near it where the checkpoints are of one run, and it keeps the rank.
"""

from __future__ import annotations

import json
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
    """The checkpoints to average: the newest ``num``, or those with the lowest mean dev loss. Raises ValueError when there are none."""
    found = checkpoint.complete(exp_dir)
    if not found:
        raise ValueError(f"{exp_dir} holds no complete checkpoint (step_*/DONE); train first, or check --exp_dir")
    if num < 1:
        raise ValueError(f"--num {num} must be at least 1")
    if mode == "last":
        return found[-num:]
    losses = {path: checkpoint.read_state(path).dev for path in found}
    scored = [path for path in found if losses[path]]
    if not scored:
        raise ValueError(f"no checkpoint in {exp_dir} has a dev loss; use --mode last, or train with data.dev")
    return sorted(sorted(scored, key=lambda p: sum(losses[p].values()) / len(losses[p]))[:num])


def average(sources: list[Path], out: Path) -> None:
    """Write a complete model folder whose weights are the mean of the sources'; all else, integer tensors too, is from the newest.

    Raises ValueError when the checkpoints do not hold the same tensors.
    """
    newest = sources[-1]
    temporary = out.parent / f".{out.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(newest, temporary, ignore=shutil.ignore_patterns(checkpoint.TRAINER, checkpoint.DONE, "*.safetensors"))
    for file in sorted(newest.rglob("*.safetensors")):
        name = file.relative_to(newest)
        metadata, tensors = _mean([source / name for source in sources])
        save_file(tensors, str(temporary / name), metadata=metadata)
    states = [checkpoint.read_state(source) for source in sources]
    note = {"averaged": [{"checkpoint": source.name, "step": s.step, "dev": s.dev} for source, s in zip(sources, states, strict=True)]}
    (temporary / NOTE).write_text(json.dumps(note, ensure_ascii=False, indent=1), encoding="utf-8")
    checkpoint.publish(temporary, out)


def has_lora(folder: Path) -> bool:
    """True for a checkpoint with LoRA adapters."""
    return (folder / lora.FOLDER).exists()


def _mean(files: list[Path]) -> tuple[dict[str, str] | None, dict[str, torch.Tensor]]:
    """Metadata and averaged tensors of one file of each checkpoint."""
    sums: dict[str, torch.Tensor] = {}
    with safe_open(files[-1], "pt") as first:
        metadata, names = first.metadata(), set(first.keys())
        for name, tensor in _tensors(first):
            sums[name] = tensor.float() if tensor.is_floating_point() else tensor
            kinds = {n: first.get_slice(n).get_dtype() for n in names}
    for path in files[:-1]:
        if not path.exists():
            raise ValueError(f"{path} is missing: only checkpoints of one run can be averaged")
        with safe_open(path, "pt") as other:
            if set(other.keys()) != names or {n: other.get_slice(n).get_dtype() for n in names} != kinds:
                raise ValueError(f"{path} holds other tensors than {files[-1]}: only checkpoints of one run can be averaged")
            for name, tensor in _tensors(other):
                if tensor.is_floating_point():
                    sums[name] += tensor.float()
    with safe_open(files[-1], "pt") as first:
        done = {n: (sums[n] / len(files)).to(t.dtype) if t.is_floating_point() else t for n, t in _tensors(first)}
    return metadata, done


def _tensors(file: safe_open) -> Iterator[tuple[str, torch.Tensor]]:
    for name in file.keys():
        yield name, file.get_tensor(name)
