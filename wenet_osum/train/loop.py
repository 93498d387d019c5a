"""The training loop: one optimizer step at a time, over all processes, resumable at every checkpoint.

A step takes ``accumulation`` micro-batches a process. Their losses are sums over answer tokens; the gradient is that of

    Σ weighted token loss ÷ Σ weights        over all processes and micro-batches of the step

The weights are known before the forward pass, so every backward pass is scaled right at once. DDP and FSDP average over
processes, hence the factor ``world.size``. Which samples make a micro-batch is the plan's business (dataset/plan.py), so that
processes always have equally many; random draws come from (seed, step, rank), so that nothing depends on what ran before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from wenet_osum import config
from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset.dataset import EpochLoader, Mixture
from wenet_osum.dataset.drop import table
from wenet_osum.dataset.pool import tell_long_targets
from wenet_osum.models import build, trainable
from wenet_osum.records import Batch
from wenet_osum.train import checkpoint, dist, encode, progress, resume
from wenet_osum.train.checkpoint import State
from wenet_osum.train.evaluate import dev_loaders, evaluate
from wenet_osum.train.sanity import SanityCheck, SanityChecks
from wenet_osum.train.optim import check_schedule, lr_scale, make_optimizer, set_learning_rates
from wenet_osum.train.rehearse import choose, rehearse, reset_peak
from wenet_osum.train.start import Interrupt, open_model, seed_everything, token_counter

INTERRUPTED = 85  # exit status after SIGTERM or SIGUSR1: saved, please start the same command again
SANITY_FAILED = 3  # exit status when a sanity check failed; the checkpoints are there, ``final`` is not
REQUEUE = "REQUEUE"  # file in exp_dir while an interrupted run waits for its next start (torchrun hides exit statuses)
BAD_STEPS = 20  # steps in a row without a finite gradient that end a run


def train(conf: TrainConfig, exp_dir: str | Path) -> int:
    """Train one phase in ``exp_dir``, from its last complete checkpoint if there is one. Returns the exit status: 0, 85 or 3.

    Raises ValueError for faults of configuration and data.
    """
    check_schedule(conf.optim, conf.max_steps, conf.max_epochs)
    data = config.load(conf.data, DataConfig) if conf.data else None
    if data is None or not data.train:
        raise ValueError(f"data {conf.data!r} names no training list; give --data a yaml with a train table")
    if conf.patience is not None and not data.dev:
        raise ValueError(f"patience {conf.patience} waits for a better dev loss, and data.dev is empty; give dev lists or drop patience")
    world = dist.start(conf.threads)
    try:
        with Interrupt() as interrupt:
            return Run(conf, data, Path(exp_dir), world, interrupt).run()
    finally:
        dist.stop()


class Run:
    """One start of a training: everything it holds, and the loop."""

    def __init__(self, conf: TrainConfig, data: DataConfig, exp_dir: Path, world: dist.World, interrupt: Interrupt) -> None:
        self.conf, self.data, self.exp_dir, self.world, self.interrupt = conf, data, exp_dir, world, interrupt
        self.progress = progress.Progress(exp_dir, world.is_rank_zero)
        self._prepare_folder()
        found = checkpoint.complete(exp_dir)
        self.source = found[-1] if found else None
        self.state = checkpoint.read_state(self.source) if self.source else State()
        torch.manual_seed(conf.seed)
        self.model, self.template = open_model(conf, self.source)
        trainable.apply_train_parts(self.model, conf.train_parts, conf.optim)  # freezes; the engine must know what trains
        if conf.model.lora:
            trainable.check_lora_trains(self.model, conf.train_parts)
        if conf.checkpointing:
            build.set_checkpointing(self.model)
        self._open_data()
        self.engine = dist.Engine(self.model, conf, world)
        groups = trainable.apply_train_parts(self.model, conf.train_parts, conf.optim)  # FSDP has put other tensors in place
        self.optimizer = make_optimizer(groups, conf.optim, world.device)
        self.groups = self.optimizer.param_groups
        if self.source:
            checkpoint.load_trainer(self.source, self.engine, self.optimizer)
        self.changes = resume.changed_keys(self.source, conf, data) if self.source else []
        self.meter = self._new_meter()
        self.keys = progress.KeyLog(exp_dir, world.rank, self.state.step) if conf.log_keys else None
        self.saved = self.source is not None  # the state of this moment lies in a checkpoint
        self.start_step, self.start_seconds, self.start_time = self.state.step, self.state.seconds, time.monotonic()
        self.bad_steps, self.rate, self.norm = 0, 0.0, 0.0

    def _open_data(self) -> None:
        """Load the lists, and compute states of the encoder that are to be on disk and are not.

        That takes the model as it was loaded, before an engine has moved or cut it.
        """
        model, conf, data = self.model, self.conf, self.data
        mels, states = model.encoder.mels, encode.open_store(model, conf)
        # Phase 1's decoder ends at its last position; an LLM is not asked.
        reach = getattr(model.config, "max_target_positions", None)
        facts = {"speech_tokens": token_counter(model), "reach": reach}
        facts |= {"targets": model.objective.targets, "states": states}
        self.mixture = Mixture(data, conf, self.template, mels, **facts)
        self.dev = dev_loaders(data, conf, self.template, mels, self.world, **facts)
        self.interrupted = False
        if states is not None:
            how = (self.world, self.progress.log, lambda: self.interrupt.seen)
            ended = encode.fill(states, model.encoder, self.mixture, self.dev.values(), *how)
            self.interrupted = not ended

    def _new_meter(self) -> progress.Meter:
        return progress.Meter(progress.Tally(lambda tags: self.template.task(tags).name))

    def _prepare_folder(self) -> None:
        if self.world.is_rank_zero:
            self.exp_dir.mkdir(parents=True, exist_ok=True)
            (self.exp_dir / REQUEUE).unlink(missing_ok=True)
            for name in checkpoint.clean(self.exp_dir):
                self.progress.log(f"ignored {name}: not complete, its writer was killed")
        dist.barrier()

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """From the first line of the log to the exit status."""
        if (reason := self.ended()) and (self.exp_dir / checkpoint.FINAL / checkpoint.DONE).exists():
            self.progress.log(f"nothing to do: {self.exp_dir} has reached {reason}; raise it to go on")
            return 0
        if self.interrupted:
            return self._requeue("while states of the encoder were computed; they are kept")
        self.changes += resume.follow(self.state, self.mixture.plan)
        loader = self._loader()
        self._set_length(loader)
        self.progress.open(self.state.step, self.state.total_steps)
        self._log_header(loader)
        part_of = {name: group["pattern"] for group in self.groups for name in group["names"]}
        self.sanity = SanityChecks(self.model, part_of, self.template.end_id)
        self.model.train()
        seed_everything(self.conf.seed, 0, self.world.rank)
        self.progress.log(rehearse(self.engine, choose(loader, self.conf.rehearsal), self.conf.batch, self.optimizer))
        reset_peak()
        self.meter = self._new_meter()
        while not self.interrupted and not self.ended():
            self._epoch(loader)
            loader = None if self.interrupted or self.ended() else self._loader()
        status = self._close()
        self.progress.close()
        return status

    def _epoch(self, loader: EpochLoader) -> None:
        """The rest of an epoch, or up to the end of the run."""
        for batches in self._steps(loader):
            self._step(batches)
            if self.state.step % self.conf.log_every == 0:
                self._log()
            if self.interrupted or self.ended():
                return
            if self.state.step % self.conf.eval_every == 0:
                self._evaluate_and_save()
                if self.ended():
                    return
        self._next_epoch()

    def _next_epoch(self) -> None:
        self.state.epoch, self.state.consumed, self.state.earlier = self.state.epoch + 1, 0, []

    def _steps(self, loader: EpochLoader) -> Iterator[list[Batch]]:
        """The micro-batches of each optimizer step; time spent here is time waited for data."""
        iterator, per_step = iter(loader), self.conf.optim.accumulation
        while True:
            before = time.monotonic()
            batches = [batch for _, batch in zip(range(per_step), iterator, strict=False)]
            self.meter.wait_s += time.monotonic() - before
            if not batches:
                return
            assert len(batches) == per_step, f"the plan must give whole steps of {per_step} micro-batches, got {len(batches)}"
            yield batches

    def _step(self, batches: list[Batch]) -> None:
        """One optimizer step."""
        state, step = self.state, self.state.step + 1
        seed_everything(self.conf.seed, step, self.world.rank)
        if self.keys:
            self.keys.add(step, state.epoch, batches)
        weight, audio_s, seconds = self._sum_over_ranks(batches)
        for number, batch in enumerate(batches, 1):
            with self.engine.accumulating(last=number == len(batches)):
                output = self.engine.loss(batch)
                (output.loss * (self.world.size / max(weight, 1e-8))).backward()
            self.meter.tally.add(batch, output)
            for reason, count in (output.left_out or {}).items():
                self.meter.dropped += Counter({reason: int(count)})
        self.rate = set_learning_rates(self.optimizer, lr_scale(step, self.conf.optim, state.total_steps))
        self.norm = self.engine.clip(self.conf.optim.clip)
        if self._usable(weight):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step, state.consumed, state.seconds = step, state.consumed + self.world.size * len(batches), seconds
        state.audio_s += audio_s
        self.saved = False
        self.progress.advance()

    def _sum_over_ranks(self, batches: list[Batch]) -> tuple[float, float, float]:
        """Sum loss weights and audio (s) over processes, agree on the clock (s) and on whether anybody was told to stop."""
        for batch in batches:
            self.meter.add(batch)
            self.sanity.watch(batch)
        clock = self.start_seconds + time.monotonic() - self.start_time if self.world.is_rank_zero else 0.0
        weight = sum(float(batch.answer_weights.sum(dtype=torch.float64)) for batch in batches if not batch.filler)
        audio_s = sum(sum(batch.audio_s) for batch in batches if not batch.filler)
        weight, audio_s, clock, stop = dist.sum_over_ranks([weight, audio_s, clock, float(self.interrupt.seen)])
        self.interrupted = stop > 0
        return weight, audio_s, clock

    def _usable(self, weight: float) -> bool:
        """False for a step without a finite gradient, or without a target: it is counted and left out. All processes see the same."""
        if np.isfinite(self.norm) and weight > 0:
            self.bad_steps = 0
            return True
        self.bad_steps += 1
        reason = "no target token" if weight <= 0 else f"gradient norm {self.norm}"
        self.meter.dropped[f"step: {reason}"] += self.world.is_rank_zero
        self.progress.log(f"step {self.state.step + 1}: {reason}, left out")
        if self.bad_steps >= BAD_STEPS:
            raise ValueError(f"{self.bad_steps} steps in a row had {reason}; lower optim.lr (now {self.conf.optim.lr}) or look at the data")
        return False

    def ended(self) -> str | None:
        """The limit that has been reached, from what a checkpoint stores alone: a restart comes to the same answer."""
        conf, state = self.conf, self.state
        limits = {
            f"max_steps {conf.max_steps}": conf.max_steps is not None and state.step >= conf.max_steps,
            f"max_epochs {conf.max_epochs}": conf.max_epochs is not None and state.epoch >= conf.max_epochs,
            f"max_hours {conf.max_hours}": conf.max_hours is not None and state.seconds >= conf.max_hours * 3600,
            f"patience {conf.patience}": conf.patience is not None and state.stale >= conf.patience,
        }
        return next((name for name, reached in limits.items() if reached), None)

    # -- around the steps -------------------------------------------------------------------------------------------

    def _loader(self) -> EpochLoader:
        """What remains of the current epoch for this process."""
        state, world = self.state, self.world
        loader = self.mixture.epoch(state.epoch, world.rank, world.size, state.consumed, state.earlier)
        if loader is None:  # nothing is left of an epoch that was begun under another plan
            self._next_epoch()
            return self._loader()
        return loader

    def _set_length(self, loader: EpochLoader) -> None:
        """Fix where the schedule ends: once a run, unless limits, plan or number of processes change."""
        conf, state = self.conf, self.state
        per_step = self.world.size * conf.optim.accumulation
        key = f"{conf.max_steps} steps, {conf.max_epochs} epochs, {per_step} micro-batches a step"
        if state.length_key == key:
            return
        batches_left = len(loader) * self.world.size
        before = state.total_steps
        if state.epoch_batches is None:
            # what is left of an epoch stands for all of it
            draws = sum(len(pool) * pool.source.weight for pool in self.mixture.pools)
            whole = not state.consumed and not state.earlier
            state.epoch_batches = batches_left if whole else round(len(loader.plan) * draws / len(loader.plan.row))
        ends = [] if conf.max_steps is None else [conf.max_steps]
        if conf.max_epochs is not None:
            later = max(0, conf.max_epochs - state.epoch - 1) * state.epoch_batches
            ends.append(state.step + -(-(batches_left + later) // per_step))
        state.total_steps, state.length_key = min(ends, default=None), key
        if self.source and state.total_steps != before:
            self.changes.append(f"the schedule of the learning rate ends at step {state.total_steps}, no longer at {before}")

    def _log_header(self, loader: EpochLoader) -> None:
        """The first lines of the log: what trains, on what, from where."""
        say, world, state = self.progress.log, self.world, self.state
        accumulation = self.conf.optim.accumulation
        say(f"{world.size} × {world.device.type}, engine {self.conf.engine}, {self.conf.dtype}, {accumulation} micro-batches a step and process")
        if self.source:
            say(f"resumed from {self.source.name}: epoch {state.epoch}, micro-batch {state.consumed}")
            for line in self.changes:
                say(f"changed: {line}")
            if state.world_size != world.size:
                say(f"it was written by {state.world_size} processes: no sample is lost or repeated, sums differ in their last bits")
        say(trainable.table(self.model, self.groups))
        hours = loader.plan.expected_hours()
        rows = ", ".join(f"{name} {h:.3g}" for name, h in sorted(hours.items()))
        padding = 100 * loader.plan.padding_share()
        say(f"epoch {state.epoch}, hours as planned by list/task: {rows}; total {sum(hours.values()):.3g}; padding {padding:.1f}%")
        for line in tell_long_targets(loader.plan.pools):
            say(line)
        for title, counts in (("utterances left out", loader.plan.dropped), ("utterances not asked a task", loader.plan.restricted)):
            if counts:
                say(f"{title}:\n{table(counts)}")
                self.progress.count(state.step, title, counts)
        self.promised = sorted({name.rpartition("/")[2] for name in hours})
        state.world_size = world.size

    def _log(self) -> None:
        """One line of progress, from all processes together."""
        state, stats = self.state, progress.summary(dist.gather(self.meter.stats()))
        tasks, dropped = stats.pop("tasks"), stats.pop("dropped")
        state.dropped = dict(Counter(state.dropped) + dropped)
        left = None
        if state.total_steps and state.step > self.start_step:
            left = (time.monotonic() - self.start_time) / (state.step - self.start_step) * (state.total_steps - state.step)
        self.progress.log(progress.line(state.step, state.total_steps, state.epoch, self.rate, self.norm, stats | {"tasks": tasks}, left))
        if dropped:
            self.progress.log("left out so far: " + ", ".join(f"{reason} {count}" for reason, count in sorted(state.dropped.items())))
        rates = {group["pattern"]: group["lr"] for group in reversed(self.groups)}
        self.progress.record(state.step, "train", tasks, lr=rates, grad_norm=self.norm, epoch=state.epoch, dropped=state.dropped, **stats)
        self.meter = self._new_meter()

    def _evaluate_and_save(self) -> None:
        if self.dev:
            self._note_dev(evaluate(self.engine, self.dev, self.data))
            self.model.train()
        self._save()

    def _note_dev(self, dev: dict[str, dict[str, float]]) -> None:
        """Keep the books on the best dev loss: the mean over tasks, so that a long list does not drown a short one."""
        state = self.state
        state.dev = {task: row["loss"] for task, row in dev.items()}
        mean = sum(state.dev.values()) / len(state.dev)
        if state.best_loss is None or mean < state.best_loss:
            state.best_loss, state.best_step, state.stale = mean, state.step, 0
        else:
            state.stale += 1
        self.progress.log(f"dev at step {state.step}: mean loss {mean:.4f} (best {state.best_loss:.4f} at {state.best_step})  {progress.scores(dev)}")
        self.progress.record(state.step, "dev", dev, loss=mean)

    def _save(self) -> None:
        folder = checkpoint.save(self.exp_dir, self.engine, self.optimizer, self.template, (self.conf, self.data), self.state)
        self.saved = True
        self.progress.log(f"saved {folder}")
        if self.world.is_rank_zero:
            checkpoint.rotate(self.exp_dir, self.conf.keep, self.state.best_step)

    def _requeue(self, where: str) -> int:
        """Leave the mark of an interrupted run; returns its exit status."""
        if self.world.is_rank_zero:
            (self.exp_dir / REQUEUE).touch()
        self.progress.log(f"interrupted {where}; the same command goes on from here")
        return INTERRUPTED

    def _judge(self) -> list[SanityCheck]:
        steps = self.state.step - self.start_step
        whole_epoch = steps * self.world.size * self.conf.optim.accumulation >= (self.state.epoch_batches or 0)
        return self.sanity.judge(dist.gather, steps, [self.template.task(name).tags for name in self.promised], whole_epoch)

    def _close(self) -> int:
        """Save what is not saved, judge the sanity checks, leave ``final`` behind."""
        if self.meter.padded:
            self._log()
        if self.interrupted and not self.ended():
            self._save()
            return self._requeue(f"at step {self.state.step} and saved")
        if not self.saved:
            self._evaluate_and_save()
        checks = self._judge()
        for check in checks:
            self.progress.log(str(check))
        if not all(check.passed for check in checks):
            return SANITY_FAILED
        if self.world.is_rank_zero:
            early = self.conf.patience is not None and self.state.stale >= self.conf.patience
            step = self.state.best_step if early else self.state.step
            final = checkpoint.finish(self.exp_dir, self.exp_dir / checkpoint.folder_name(step))
            self.progress.log(f"done: {self.ended()} reached; {final} is step {step}")
        dist.barrier()
        return 0
