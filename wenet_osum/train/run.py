"""Set up a training run, and do everything that surrounds a step of the loop."""

from __future__ import annotations

import math
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from wenet_osum import dist
from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset.dataset import EpochLoader
from wenet_osum.models import build, trainable
from wenet_osum.records import Batch
from wenet_osum.train import checkpoint, progress, repeat_gate, resume, run_log
from wenet_osum.train.checkpoint import State
from wenet_osum.train.encode import open_data
from wenet_osum.train.evaluate import evaluate
from wenet_osum.train.optim import CombinedOptimizer, make_optimizer
from wenet_osum.train.rehearse import choose, rehearse, reset_peak
from wenet_osum.train.sanity import SanityChecks
from wenet_osum.train.schedule import epoch_length, set_length, task_tags
from wenet_osum.train.start import Interrupt, open_model, seed_everything
from wenet_osum.train.tally import Tally, scores
from wenet_osum.train.unfreeze import still_frozen

# Exit status after SIGTERM or SIGUSR1: saved, please start the same command again.
INTERRUPTED = 85
# Exit status when a sanity check failed; the checkpoints are there, ``final`` is not.
SANITY_FAILED = 3
# Steps in a row without a finite gradient that end a run.
BAD_STEPS = 20


class StepTotals(NamedTuple):
    """What all processes bring to one step."""

    loss_weight: float  # sum of the answer tokens' weights
    audio_s: float  # audio of the step, s
    seconds: float  # wall clock over all starts of this experiment, s


class Run:
    """The model, the data and the books of one start."""

    def __init__(
        self,
        conf: TrainConfig,
        data: DataConfig,
        exp_dir: Path,
        world: dist.World,
        interrupt: Interrupt,
    ) -> None:
        """Open everything, from the last complete checkpoint in ``exp_dir`` if there is one."""
        self.conf, self.data, self.exp_dir = conf, data, exp_dir
        self.world, self.interrupt = world, interrupt
        self.progress = progress.Progress(exp_dir, world.is_rank_zero)
        self._prepare_folder()
        found = checkpoint.complete(exp_dir)
        self.resumed_from = found[-1] if found else None
        self.state = State()
        if self.resumed_from:
            self.state = checkpoint.read_state(self.resumed_from)

        # The model, and what of it trains.
        torch.manual_seed(conf.seed)
        self.model, self.template = open_model(conf, self.resumed_from, data)
        if not self.resumed_from:
            repeat_gate.check_new(conf, data, self.model, self.template, world, self.progress.log)
        self._choose_what_trains()
        self.sanity: SanityChecks | None = None  # its fingerprints are those of the first step

        # The data, before an engine moves or cuts the model, for states of the encoder may have to
        # be computed. ``batches`` runs through what is left of an epoch.
        opened = open_data(
            self.model,
            self.template,
            conf,
            data,
            world,
            say=self.progress.log,
            stopped=lambda: interrupt.seen,
        )
        self.mixture, self.dev = opened.mixture, opened.dev
        self.interrupted = opened.interrupted
        self.engine, self.optimizer = self._make_engine()
        self.groups = self.optimizer.param_groups
        if self.resumed_from:
            checkpoint.load_trainer(self.resumed_from, self.engine, self.optimizer)
        if conf.model.lora:
            trainable.check_lora_trains(self.model, conf.train_parts)
        self.loader: EpochLoader | None = None
        self.batches: Any = None
        self.promised: list[str] = []  # tags of the tasks that the plan holds
        self.changes = resume.changed_keys(self.resumed_from, conf, data)

        # What is measured, and how far this start has come.
        self.meter = self._new_meter()
        self.keys = None
        if conf.log_keys:
            self.keys = progress.KeyLog(exp_dir, world.rank, self.state.step)
        self.start_step, self.start_seconds = self.state.step, self.state.seconds
        self.start_time = time.monotonic()
        self.saved = self.resumed_from is not None  # whether the present state lies in a checkpoint
        self.bad_steps, self.lr, self.grad_norm = 0, 0.0, 0.0

    # -- opening ------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        if self.world.is_rank_zero:
            for name in checkpoint.prepare(self.exp_dir):
                self.progress.log(f"ignored {name}: not complete, its writer was killed")
        dist.barrier()

    def _choose_what_trains(self) -> None:
        """Freeze what no pattern names."""
        conf = self.conf
        trainable.apply_train_parts(self.model, conf.train_parts, conf.optim)
        if conf.checkpointing:
            build.set_checkpointing(self.model)

    def _make_engine(self) -> tuple[dist.Engine, CombinedOptimizer]:
        """Spread the model over the processes, make the optimizer."""
        conf = self.conf
        engine = dist.Engine(self.model, conf, self.world)
        # Once more, for FSDP has put other tensors in the place of the parameters.
        groups = trainable.apply_train_parts(self.model, conf.train_parts, conf.optim)
        return engine, make_optimizer(groups, conf.optim, self.world.device)

    def _new_meter(self) -> progress.Meter:
        def name_of(tags: str) -> str:
            return self.template.task(tags).name

        tally = Tally(name_of)
        return progress.Meter(tally, self.state.step)

    # -- beginning ----------------------------------------------------------------------------

    def finished_before(self) -> bool:
        """Return True, and log it, if an earlier start finished the run."""
        reason = self.reached_limit()
        final = self.exp_dir / checkpoint.FINAL / checkpoint.DONE
        if reason is None or not final.exists():
            return False
        self.progress.log(f"nothing to do: {self.exp_dir} has reached {reason}; raise it to go on")
        return True

    def begin(self) -> None:
        """Open the epoch, write the head of the log, and rehearse the largest micro-batches."""
        conf, state = self.conf, self.state
        self.changes += resume.follow(state, self.mixture.plan_fingerprint)
        self.loader = self._open_epoch()
        pools, accumulation = self.mixture.pools, conf.optim.accumulation
        length = epoch_length(state, self.loader, pools, self.world.size, accumulation)
        changed = set_length(state, conf.max_steps, conf.max_epochs, length)
        if self.resumed_from and changed:
            self.changes.append(changed)
        hours = self.loader.plan.expected_hours()
        self.promised = task_tags(hours, self.template)
        self.progress.open(state.step, state.total_steps)
        run_log.header(self, hours)
        state.world_size = self.world.size

        # Nothing of a rehearsal stays: no gradient, no weight, no random draw.
        self.sanity = self._make_sanity_checks()
        self.model.train()
        seed_everything(conf.seed, 0, self.world.rank)
        largest = choose(self.loader, conf.rehearsal)
        self.progress.log(rehearse(self.engine, largest, conf.batch, self.optimizer))
        reset_peak()
        self.meter = self._new_meter()

    def _make_sanity_checks(self) -> SanityChecks:
        part_of = {}
        for group in self.groups:
            part_of |= dict.fromkeys(group["names"], group["pattern"])
        return SanityChecks(self.model, part_of, self.template.end_id)

    # -- loading ------------------------------------------------------------------------------

    def next_batches(self) -> list[Batch]:
        """Return the micro-batches of one step. The time spent here is time waited for data."""
        if self.batches is None:
            self.loader = self.loader or self._open_epoch()
            self.batches = iter(self.loader)
        before = time.monotonic()
        per_step = self.conf.optim.accumulation
        batches = list(islice(self.batches, per_step))
        self.meter.wait_s += time.monotonic() - before
        assert len(batches) == per_step, f"{len(batches)} micro-batches, not {per_step}"
        self.loader.steps_left -= 1
        return batches

    def end_epoch(self) -> None:
        """Turn to the next epoch; it is opened when its first step is asked for."""
        self.batches = self.loader = None
        state = self.state
        state.epoch += 1
        state.consumed = 0
        state.earlier = []

    def _open_epoch(self) -> EpochLoader:
        """Open what remains of the current epoch for this process."""
        state, world = self.state, self.world
        while True:
            loader = self.mixture.epoch(
                state.epoch, world.rank, world.size, start=state.consumed, earlier=state.earlier
            )
            if loader is not None and loader.steps_left:
                return loader
            # Nothing is left of an epoch that was begun under another plan, or read to its end.
            self.end_epoch()

    # -- stepping -----------------------------------------------------------------------------

    def count_batches(self, step: int, batches: list[Batch]) -> None:
        """Count micro-batches that are still on the CPU, and log their keys."""
        if self.keys:
            self.keys.add(step, self.state.epoch, batches)
        for batch in batches:
            self.meter.add(batch)
            self.sanity.watch(batch)

    def sum_step(self, batches: list[Batch]) -> StepTotals:
        """Add up the step over all processes, and agree on whether anybody was told to stop."""
        weight = audio_s = 0.0
        for batch in batches:
            if batch.filler:
                continue
            total = batch.answer_weights.sum(dtype=torch.float64)
            weight += float(total)
            audio_s += sum(batch.audio_s)

        # All processes go by the clock of the first.
        seconds = self.start_seconds + time.monotonic() - self.start_time
        clock = seconds if self.world.is_rank_zero else 0.0
        asked_to_stop = float(self.interrupt.seen)
        own = [weight, audio_s, clock, asked_to_stop]
        weight, audio_s, clock, stop = dist.sum_over_ranks(own)
        self.interrupted = stop > 0
        return StepTotals(weight, audio_s, clock)

    def accept_step(self, loss_weight: float) -> bool:
        """Return False for a step without a finite gradient or a target, and count it.

        All processes see the same. Raises ValueError after too many such steps in a row.
        """
        if math.isfinite(self.grad_norm) and loss_weight > 0:
            self.bad_steps = 0
            return True
        self.bad_steps += 1
        reason = "no target token" if loss_weight <= 0 else f"gradient norm {self.grad_norm}"
        self.meter.dropped[f"step: {reason}"] += self.world.is_rank_zero
        self.progress.log(f"step {self.state.step + 1}: {reason}, left out")
        if self.bad_steps >= BAD_STEPS:
            raise ValueError(
                f"{self.bad_steps} steps in a row had {reason}; "
                f"lower optim.lr (now {self.conf.optim.lr}) or look at the data"
            )
        return False

    # -- logging, evaluating, saving ----------------------------------------------------------

    def collect_stats(self) -> dict[str, Any]:
        """Gather what all processes measured since the last time, and begin to measure anew."""
        own = self.meter.stats()
        stats = progress.summary(dist.gather(own))
        self.meter = self._new_meter()
        dropped = stats.pop("dropped")
        total = Counter(self.state.dropped) + dropped
        self.state.dropped = dict(total)
        stats["dropped_now"] = bool(dropped)
        return stats

    def evaluate(self) -> None:
        """Measure the dev losses, note and log them."""
        if not self.dev:
            return
        dev = evaluate(self.engine, self.dev, self.data)
        self.model.train()
        state = self.state
        losses = {}
        for task, row in dev.items():
            losses[task] = row["loss"]
        mean = state.note_dev(losses)
        listed = scores(dev)
        best = f"best {state.best_loss:.4f} at {state.best_step}"
        self.progress.log(f"dev at step {state.step}: mean loss {mean:.4f} ({best})  {listed}")
        self.progress.record(state.step, "dev", dev, loss=mean)

    def save(self) -> None:
        """Write a checkpoint, and remove those that are too many."""
        folder = checkpoint.save(
            self.exp_dir,
            self.engine,
            self.optimizer,
            self.template,
            self.conf,
            self.data,
            self.state,
        )
        self.saved = True
        self.progress.log(f"saved {folder}")
        if self.world.is_rank_zero:
            keep, best = self.conf.keep, self.state.best_step
            checkpoint.rotate(self.exp_dir, keep, best)

    # -- ending -------------------------------------------------------------------------------

    def stopping(self) -> bool:
        """Return whether the run is to stop, by a limit or by a signal."""
        if self.interrupted:
            return True
        return self.reached_limit() is not None

    def reached_limit(self) -> str | None:
        """Name the limit that is reached, by what a checkpoint stores, so that a restart agrees."""
        conf, state = self.conf, self.state
        hours = state.seconds / 3600
        limits = [
            ("max_steps", conf.max_steps, state.step),
            ("max_epochs", conf.max_epochs, state.epoch),
            ("max_hours", conf.max_hours, hours),
            ("patience", conf.patience, state.stale),
        ]
        for name, limit, value in limits:
            if limit is not None and value >= limit:
                return f"{name} {limit}"
        return None

    def finish(self) -> int:
        """Save what is not saved, check it, leave ``final`` behind; returns the exit status."""
        self.batches = None  # ends the data processes
        if self.state.step > self.meter.since:
            run_log.progress_line(self, self.collect_stats())
        if self.interrupted and self.reached_limit() is None:
            self.save()
            status = self.requeue(f"at step {self.state.step} and saved")
        else:
            status = self._complete()
        self.progress.close()
        return status

    def requeue(self, where: str) -> int:
        """Leave the mark of an interrupted run; returns its exit status."""
        if self.world.is_rank_zero:
            (self.exp_dir / checkpoint.REQUEUE).touch()
        self.progress.log(f"interrupted {where}; the same command goes on from here")
        return INTERRUPTED

    def _complete(self) -> int:
        if not self.saved:
            self.evaluate()
            self.save()
        if not self._is_sane():
            return SANITY_FAILED
        if self.world.is_rank_zero:
            self._write_final()
        dist.barrier()
        return 0

    def _is_sane(self) -> bool:
        """Make the sanity checks and log each."""
        state = self.state
        steps = state.step - self.start_step
        accumulation = self.conf.optim.accumulation
        seen = steps * self.world.size * accumulation
        whole_epoch = seen >= (state.epoch_batches or 0)
        late = still_frozen(
            self.conf.train_parts,
            state.step,
            state.total_steps,
            state.begun,
        )
        checks = self.sanity.judge(dist.gather, steps, self.promised, whole_epoch, late)
        sane = True
        for check in checks:
            self.progress.log(str(check))
            sane = sane and check.passed
        return sane

    def _write_final(self) -> None:
        """Make ``final`` of the last checkpoint, or of the best where patience ended the run."""
        state, patience = self.state, self.conf.patience
        step = state.step
        if patience is not None and state.stale >= patience:
            step = state.best_step
        name = checkpoint.folder_name(step)
        final = checkpoint.finish(self.exp_dir, self.exp_dir / name)
        limit = self.reached_limit()
        self.progress.log(f"done: {limit} reached; {final} is step {step}")
