"""Write and read checkpoints, which are either complete or not there.

``exp/<name>/step_00001000/``  a complete model folder, plus
    train.yaml data.yaml   the configuration as run
    state.json             step, epoch, position in the plan, best dev loss, time used
    trainer/               the optimizer's state by torch.distributed.checkpoint: sharded or whole,
                           for any number of processes; the newest two checkpoints have it
    DONE                   written last

Everything is written to ``.step_00001000.tmp`` and renamed. Random states need no file: the loop
seeds them anew at each step from (seed, step, rank), so they are the same after a resume, a
rehearsal or an evaluation.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed import checkpoint as dcp

from wenet_osum import config, dist
from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.files import write_text
from wenet_osum.train.optim import CombinedOptimizer, fill_state

STATE, DONE, TRAINER, FINAL = "state.json", "DONE", "trainer", "final"
# Newest checkpoints that keep trainer/: the last, and one more should that be damaged.
RESUMABLE = 2
# Exists while an interrupted run waits for its next start (torchrun hides exit statuses).
REQUEUE = "REQUEUE"
# A user creates it to make a run save and stop, as SIGTERM does.
STOP = "STOP"


@dataclass
class State:
    """The progress of a run, as saved in state.json."""

    # CombinedOptimizer steps done.
    step: int = 0
    # Passes over the mixture completed.
    epoch: int = 0
    # Micro-batches of this epoch's plan done, over all processes.
    consumed: int = 0
    # Processes that wrote this.
    world_size: int = 1
    # Micro-batches of the first epoch, over all processes.
    epoch_batches: int | None = None
    # The step at which the schedule ends.
    total_steps: int | None = None
    # The limits that total_steps was worked out from.
    length_key: str = ""
    # Wall clock over all runs of this experiment.
    seconds: float = 0.0
    # Audio trained on, in seconds.
    audio_s: float = 0.0
    # task → dev loss at this step.
    dev: dict[str, float] = field(default_factory=dict)
    # Lowest mean dev loss so far, and its step.
    best_loss: float | None = None
    best_step: int | None = None
    # Evaluations since the best one.
    stale: int = 0
    # Patterns of train_parts that stood still at first and train by now.
    begun: list[str] = field(default_factory=list)
    # Samples left out so far, by reason.
    dropped: dict[str, int] = field(default_factory=dict)
    # Fingerprint of the plan that ``consumed`` counts in.
    plan: dict[str, Any] = field(default_factory=dict)
    # Parts of this epoch that were read under other plans: {plan: fingerprint, consumed:
    # micro-batches}.
    earlier: list[dict[str, Any]] = field(default_factory=list)

    def note_dev(self, losses: dict[str, float]) -> float:
        """Note the dev loss of each task, and whether their mean is the best so far.

        Returns the mean over tasks: over utterances, a long list would drown a short one.
        """
        self.dev = losses
        mean = sum(losses.values()) / len(losses)
        # A loss that is no number was never the best.
        best = self.best_loss
        if best is None or math.isnan(best) or mean < best:
            self.best_loss = mean
            self.best_step = self.step
            self.stale = 0
        else:
            self.stale += 1
        return mean


def folder_name(step: int) -> str:
    """Return the name of a checkpoint's folder, for example step_00001000."""
    return f"step_{step:08d}"


def complete(exp_dir: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first, without torn ones."""
    return [path for path in _step_folders(exp_dir) if (path / DONE).exists()]


def _step_folders(exp_dir: Path) -> list[Path]:
    return sorted(exp_dir.glob("step_[0-9]*"))


def prepare(exp_dir: Path) -> list[str]:
    """Make the folder of a run ready for a start; returns the names that ``clean`` gives."""
    exp_dir.mkdir(parents=True, exist_ok=True)
    for mark in (REQUEUE, STOP):
        (exp_dir / mark).unlink(missing_ok=True)
    return clean(exp_dir)


def clean(exp_dir: Path) -> list[str]:
    """Remove what a killed run left half written; returns the names of all that is incomplete.

    A folder without DONE under its final name is left where it is, and ignored.
    """
    names = []
    for path in exp_dir.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
            names.append(path.name)
    for path in _step_folders(exp_dir):
        if not (path / DONE).exists():
            names.append(path.name)
    return names


def read_state(folder: Path) -> State:
    """Read state.json. Raises ValueError when it does not fit this version."""
    path = folder / STATE
    row = json.loads(path.read_text(encoding="utf-8"))
    known = {part.name for part in dataclasses.fields(State)}
    if not isinstance(row, dict) or not set(row) <= known:
        odd = sorted(set(row) - known)
        raise ValueError(
            f"{path} holds fields this version does not know: {odd}; "
            "start a new --exp_dir with model.init_from"
        )
    return State(**row)


def save(
    exp_dir: Path,
    engine: dist.Engine,
    optimizer: CombinedOptimizer,
    template: Any,
    conf: TrainConfig,
    data: DataConfig,
    state: State,
) -> Path:
    """Write the checkpoint of ``state.step`` together with all processes; returns its folder.

    Of a complete one of that step only ``state`` is written again.
    """
    target = exp_dir / folder_name(state.step)
    temporary = exp_dir / f".{target.name}.tmp"
    if all(dist.gather((target / DONE).exists())):
        if engine.world.is_rank_zero:
            write_text(target / STATE, _state_text(state))
        dist.barrier()
        return target
    if engine.world.is_rank_zero:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    # All processes take part in gathering the weights, and each writes its own optimizer state.
    weights = engine.weights()
    dist.barrier()
    moments = _named_state(engine.module, optimizer)
    dcp.save(moments, checkpoint_id=str(temporary / TRAINER))

    if engine.world.is_rank_zero:
        _write_model(temporary, engine.module, weights, template)
        _write_books(temporary, conf, data, state)
        publish(temporary, target)
    dist.barrier()
    return target


def _write_model(
    folder: Path, module: nn.Module, weights: dict[str, Tensor] | None, template: Any
) -> None:
    """Write the model folder; ``weights`` as ``Engine.weights`` gives them."""
    given = {} if weights is None else {"state_dict": weights}
    module.save_pretrained(str(folder), **given)
    template.save(folder)


def _write_books(folder: Path, conf: TrainConfig, data: DataConfig, state: State) -> None:
    """Write the configuration as run, and where the run stands."""
    config.save(conf, folder / "train.yaml")
    config.save(data, folder / "data.yaml")
    write_text(folder / STATE, _state_text(state))


def _state_text(state: State) -> str:
    row = dataclasses.asdict(state)
    return json.dumps(row, ensure_ascii=False, indent=1)


def publish(temporary: Path, target: Path) -> None:
    """Mark a folder as complete, sync it to disk and rename it.

    What had the name before goes away.
    """
    (temporary / DONE).write_text("", encoding="utf-8")
    # The bytes reach the disk before the name does.
    for path in [*temporary.rglob("*"), temporary]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    if not target.exists():
        temporary.rename(target)
        return
    old = target.with_name(f".{target.name}.old.tmp")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    temporary.rename(target)
    shutil.rmtree(old)


def _named_state(module: nn.Module, optimizer: CombinedOptimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as ``parameter name/moment`` → tensor.

    Such names can be read, and do not depend on the order of groups.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    found = {}
    for parameter, state in fill_state(optimizer).items():
        name = names[parameter]
        for kind, value in state.items():
            found[f"{name}/{kind}"] = value
    return found


def load_trainer(folder: Path, engine: dist.Engine, optimizer: CombinedOptimizer) -> None:
    """Put the optimizer state of a checkpoint into the optimizer.

    Raises ValueError when it holds none, or when other parts were trained then.
    """
    if not (folder / TRAINER).exists():
        raise ValueError(
            f"{folder} has no {TRAINER}/ to go on from: the newest {RESUMABLE} checkpoints "
            "of a run keep it; bring those back, or start a new --exp_dir "
            f"with model.init_from {folder}"
        )
    # ``wanted`` holds the optimizer's own tensors: loading fills them in place.
    wanted = _named_state(engine.module, optimizer)
    reader = dcp.FileSystemReader(str(folder / TRAINER))
    stored = set(reader.read_metadata().state_dict_metadata)
    differing = sorted(stored ^ set(wanted))
    if differing:
        odd, _, _ = differing[0].rpartition("/")
        raise ValueError(
            f"{folder} was trained with other train_parts than this configuration "
            f"({odd!r} is in one only); go back to them, or start "
            "a new --exp_dir with model.init_from for another phase"
        )
    dcp.load(wanted, storage_reader=reader)


def rotate(exp_dir: Path, keep: int, best_step: int | None) -> list[Path]:
    """Remove all but the newest ``keep`` checkpoints and the best one; returns what was removed.

    Of those that stay the newest ``RESUMABLE`` keep their trainer state: it is most of a
    checkpoint, and runs go on from the newest.
    """
    best = None if best_step is None else folder_name(best_step)
    kept = max(1, keep)
    removed = []
    for path in complete(exp_dir)[:-kept]:
        if path.name != best:
            # Without DONE nobody takes it for complete, should the run be killed meanwhile.
            (path / DONE).unlink()
            shutil.rmtree(path)
            removed.append(path)

    for path in complete(exp_dir)[:-RESUMABLE]:
        if (path / TRAINER).exists():
            # Under a name that ``clean`` removes, should the run be killed meanwhile.
            going = exp_dir / f".{path.name}.{TRAINER}.tmp"
            shutil.rmtree(going, ignore_errors=True)
            (path / TRAINER).rename(going)
            shutil.rmtree(going)
    return removed


def finish(exp_dir: Path, source: Path) -> Path:
    """Make ``exp/<name>/final``, the model folder of a checkpoint without its trainer state.

    Weights are hard links where the disk can. Returns the folder.
    """
    temporary = exp_dir / f".{FINAL}.tmp"
    final = exp_dir / FINAL
    shutil.rmtree(temporary, ignore_errors=True)
    left_out = shutil.ignore_patterns(TRAINER, DONE)
    shutil.copytree(source, temporary, copy_function=_link_weights, ignore=left_out)
    publish(temporary, final)
    return final


def _link_weights(source: str, target: str) -> None:
    """Link a file of weights, copy any other."""
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:
            # Another disk, or one without links: it is copied.
            pass
    shutil.copy2(source, target)
