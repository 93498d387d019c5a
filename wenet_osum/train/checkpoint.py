"""Checkpoints that are either complete or not there.

``exp/<name>/step_00001000/``  a complete model folder, plus
    train.yaml data.yaml   the configuration as run
    state.json             step, epoch, place in the plan, best dev loss, time used
    trainer/               AdamW's moments by torch.distributed.checkpoint: sharded and whole,
                           for any number of processes; the newest two checkpoints have it
    DONE                   written last
Everything is written to ``.step_00001000.tmp`` and renamed. Random states need no file: the loop seeds them anew at each step
from (seed, step, rank), so they are the same after a resume, a rehearsal or an evaluation.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp

from wenet_osum import config
from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.train import dist
from wenet_osum.train.optim import Optimizer, fill_state

STATE, DONE, TRAINER, FINAL = "state.json", "DONE", "trainer", "final"
# newest checkpoints that keep trainer/: the last, and one more should that be damaged
RESUMABLE = 2


@dataclass
class State:
    """Where a run stands; all of it is in state.json."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # passes over the mixture completed
    consumed: int = 0  # micro-batches of this epoch's plan done, over all processes
    world_size: int = 1  # processes that wrote this
    epoch_batches: int | None = None  # micro-batches of the first epoch, over all processes
    total_steps: int | None = None  # where the schedule ends
    length_key: str = ""  # limits that total_steps was worked out from
    seconds: float = 0.0  # wall clock over all runs of this experiment
    audio_s: float = 0.0  # audio trained on, s
    dev: dict[str, float] = field(default_factory=dict)  # task → dev loss at this step
    best_loss: float | None = None  # lowest mean dev loss so far
    best_step: int | None = None
    stale: int = 0  # evaluations since the best one
    dropped: dict[str, int] = field(default_factory=dict)  # samples left out so far, by reason
    # fingerprint of the plan that ``consumed`` counts in
    plan: dict[str, Any] = field(default_factory=dict)
    # parts of this epoch that were read under other plans: {plan: fingerprint, consumed:
    # micro-batches}
    earlier: list[dict[str, Any]] = field(default_factory=list)

    def note_dev(self, losses: dict[str, float]) -> float:
        """Keep the books on the best dev loss; returns the mean over tasks, by which it is told.

        A mean over tasks, so that a long list does not drown a short one.
        """
        self.dev = losses
        mean = sum(losses.values()) / len(losses)
        if self.best_loss is None or mean < self.best_loss:
            self.best_loss, self.best_step, self.stale = mean, self.step, 0
        else:
            self.stale += 1
        return mean


def folder_name(step: int) -> str:
    """step_00001000"""
    return f"step_{step:08d}"


def complete(exp_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first. Torn ones are not among them."""
    return sorted(p for p in exp_dir.glob("step_[0-9]*") if (p / DONE).exists())


def clean(exp_dir: Path) -> list[str]:
    """Remove what a killed run left half written; returns the names. A folder without DONE under the final name is only ignored."""
    torn = [p for p in exp_dir.glob(".*.tmp") if p.is_dir()]
    for path in torn:
        shutil.rmtree(path)
    return [p.name for p in torn] + [p.name for p in exp_dir.glob("step_[0-9]*") if not (p / DONE).exists()]


def read_state(folder: Path) -> State:
    """Raises ValueError when the file does not fit this version."""
    row = json.loads((folder / STATE).read_text(encoding="utf-8"))
    known = {f.name for f in dataclasses.fields(State)}
    if not isinstance(row, dict) or not set(row) <= known:
        odd = sorted(set(row) - known)
        raise ValueError(f"{folder / STATE} holds fields this version does not know: {odd}; start a new --exp_dir with model.init_from")
    return State(**row)


def save(
    exp_dir: Path, engine: dist.Engine, optimizer: Optimizer, template: Any, confs: tuple[TrainConfig, DataConfig], state: State
) -> Path:
    """Write the checkpoint of ``state.step`` together with all processes; returns its folder. A complete one of that step is left alone."""
    target = exp_dir / folder_name(state.step)
    temporary = exp_dir / f".{target.name}.tmp"
    if all(dist.gather((target / DONE).exists())):
        return target
    if engine.world.is_rank_zero:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    weights = engine.weights()
    dist.barrier()
    dcp.save(_named_state(engine.module, optimizer), checkpoint_id=str(temporary / TRAINER))
    if engine.world.is_rank_zero:
        _write_model(temporary, engine.module, weights, template)
        config.save(confs[0], temporary / "train.yaml")
        config.save(confs[1], temporary / "data.yaml")
        (temporary / STATE).write_text(json.dumps(dataclasses.asdict(state), ensure_ascii=False, indent=1), encoding="utf-8")
        publish(temporary, target)
    dist.barrier()
    return target


def _write_model(folder: Path, module: nn.Module, weights: dict[str, Tensor] | None, template: Any) -> None:
    module.save_pretrained(str(folder), **({} if weights is None else {"state_dict": weights}))
    template.save(folder)


def publish(temporary: Path, target: Path) -> None:
    """Mark a folder as complete, bring it to the disk and give it its name; what had the name before goes away."""
    (temporary / DONE).write_text("", encoding="utf-8")
    for path in [*temporary.rglob("*"), temporary]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    if target.exists():
        old = target.with_name(f".{target.name}.old.tmp")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old)
    else:
        temporary.rename(target)


def _named_state(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as ``parameter name/moment`` → tensor: readable, and independent of the order of groups."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {f"{names[p]}/{kind}": value for p, kinds in fill_state(optimizer).items() for kind, value in kinds.items()}


def load_trainer(folder: Path, engine: dist.Engine, optimizer: Optimizer) -> None:
    """Put the moments of a checkpoint into the optimizer. Raises ValueError when it holds none, or
    other parts were trained then.
    """
    if not (folder / TRAINER).exists():
        raise ValueError(
            f"{folder} has no {TRAINER}/ to go on from: the newest {RESUMABLE} checkpoints "
            f"of a run keep it; bring those back, or start a new --exp_dir with model.init_from {folder}"
        )
    wanted = _named_state(engine.module, optimizer)
    reader = dcp.FileSystemReader(str(folder / TRAINER))
    stored = set(reader.read_metadata().state_dict_metadata)
    if stored != set(wanted):
        odd = sorted(stored ^ set(wanted))[0].rsplit("/", 1)[0]
        raise ValueError(
            f"{folder} was trained with other train_parts than this configuration ({odd!r} is in one only); "
            "go back to them, or start a new --exp_dir with model.init_from for another phase"
        )
    dcp.load(wanted, storage_reader=reader)


def rotate(exp_dir: Path, keep: int, best_step: int | None) -> list[Path]:
    """Remove all but the newest ``keep`` checkpoints and the best one; returns what was removed.

    Of those that stay the newest ``RESUMABLE`` keep their trainer state: it is most of a
    checkpoint, and runs go on from the newest.
    """
    old = [p for p in complete(exp_dir)[: -max(1, keep)] if p.name != folder_name(-1 if best_step is None else best_step)]
    for path in old:
        (path / DONE).unlink()  # from here on nobody takes it for complete
        shutil.rmtree(path)
    for path in complete(exp_dir)[:-RESUMABLE]:
        if (path / TRAINER).exists():
            # under a name that ``clean`` removes, should the run be killed meanwhile
            going = exp_dir / f".{path.name}.{TRAINER}.tmp"
            shutil.rmtree(going, ignore_errors=True)
            (path / TRAINER).rename(going)
            shutil.rmtree(going)
    return old


def finish(exp_dir: Path, source: Path) -> Path:
    """``exp/<name>/final``: the model folder of a checkpoint without its trainer state; weights are hard links where the disk can."""
    temporary = exp_dir / f".{FINAL}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=_link_weights, ignore=shutil.ignore_patterns(TRAINER, DONE))
    publish(temporary, exp_dir / FINAL)
    return exp_dir / FINAL


def _link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another disk, or one without links
    shutil.copy2(source, target)
