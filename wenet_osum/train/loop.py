"""The training loop: one optimizer step at a time, over all processes.

A step takes ``optim.accumulation`` micro-batches per process. Their losses are sums over answer
tokens, and the gradient is that of

    Σ weighted token loss ÷ Σ weights        over all processes and micro-batches of the step

The weights are known before the forward pass, so every backward pass is scaled right at once. DDP
and FSDP average over processes, hence the factor ``world.size``. Which utterances make a
micro-batch is decided by the plan (dataset/plan.py), so that processes always have equally many.
Random draws come from (seed, step, rank): a run that goes on from a checkpoint draws as one that
never stopped.

What surrounds the loop, such as opening the model, logging, evaluating and saving, is train/run.py.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from wenet_osum import config, dist, lock
from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.records import Batch
from wenet_osum.train import resume, run_log
from wenet_osum.train.checkpoint import STOP
from wenet_osum.train.optim import check_schedule, lr_scale, set_learning_rates
from wenet_osum.train.run import Run
from wenet_osum.train.start import Interrupt, seed_everything
from wenet_osum.train.unfreeze import drop_frozen_gradients


def train(conf: TrainConfig, exp_dir: str | Path) -> int:
    """Train one phase in ``exp_dir``, from its last complete checkpoint if there is one.

    Returns the exit status: 0 done, 85 interrupted and saved, 3 a sanity check failed. Raises
    ValueError for faults of configuration and data and when another run trains in ``exp_dir``, and
    ConnectionError when another process of the run is lost.
    """
    data = _read_data(conf)
    exp_dir = Path(exp_dir)
    world = dist.start(conf.threads, conf.step_timeout_s)
    stop = exp_dir / STOP if world.is_rank_zero else None
    try:
        with Interrupt(stop) as interrupt, ExitStack() as stack:
            # Two runs in one folder would end in a mixture of both.
            alone = lock.held_on_this_host(exp_dir)
            dist.from_rank_zero(lambda: stack.enter_context(alone))
            return train_steps(Run(conf, data, exp_dir, world, interrupt))
    except RuntimeError as error:
        if not dist.is_lost_connection(error):
            raise
        raise ConnectionError(_lost(error)) from error
    finally:
        dist.stop()


def train_steps(run: Run) -> int:
    """Train until a limit is reached or somebody asks to stop; returns the exit status."""
    conf, state = run.conf, run.state
    if run.finished_before():
        return 0
    if run.interrupted:
        return run.requeue("while states of the encoder were computed; they are kept")
    run.begin()
    if run.resumed_from and resume.lacks_dev(state, conf.eval_every):
        run.evaluate()
        run.save()

    while not run.stopping():
        # Load the micro-batches of one optimizer step.
        batches = run.next_batches()

        # Forward, backward, update.
        take_step(run, batches)

        # Log, evaluate, save: none of it changes what is trained.
        if state.step % conf.log_every == 0:
            run_log.progress_line(run, run.collect_stats())
        if run.loader.steps_left == 0:
            run.end_epoch()
        if state.step % conf.eval_every == 0 and not run.stopping():
            run.evaluate()
            run.save()

    return run.finish()


def take_step(run: Run, batches: list[Batch]) -> None:
    """Take one optimizer step on the micro-batches of this process."""
    conf, state, engine = run.conf, run.state, run.engine
    step = state.step + 1
    seed_everything(conf.seed, step, run.world.rank)
    run.count_batches(step, batches)
    totals = run.sum_step(batches)

    # Each backward pass is scaled by the loss weights of the whole step. DDP exchanges gradients in
    # the last one only.
    scale = run.world.size / max(totals.loss_weight, 1e-8)
    for number, batch in enumerate(batches, 1):
        with engine.accumulating(last=number == len(batches)):
            output = engine.loss(batch)
            (output.loss * scale).backward()
        run.meter.add_output(batch, output)

    # Parts that are still frozen (train_parts: unfreeze) were computed with gradients: drop them.
    parts, begun = conf.train_parts, state.begun
    for pattern in drop_frozen_gradients(run.groups, parts, step, state.total_steps, begun):
        run.progress.log(f"step {step}: {pattern} begins to train")
        state.begun.append(pattern)

    # The learning rate is a function of the step alone. A gradient that is not finite is left out.
    run.lr = set_learning_rates(run.optimizer, lr_scale(step, conf.optim, state.total_steps))
    run.grad_norm = engine.clip(conf.optim.clip)
    if run.accept_step(totals.loss_weight):
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)

    state.step = step
    state.dev = {}  # no dev losses at this step yet
    state.consumed += run.world.size * len(batches)
    state.seconds = totals.seconds
    state.audio_s += totals.audio_s
    run.saved = False
    run.progress.advance()


def _lost(error: RuntimeError) -> str:
    """Say what to do when another process of the run is lost."""
    said = str(error).strip().splitlines()[0]
    return (
        f"another process of this run cannot be reached: {said}. It was stopped, or its machine or "
        "the network failed. Start the same command again; training goes on from the last "
        "checkpoint"
    )


def _read_data(conf: TrainConfig) -> DataConfig:
    """Read the data tables that ``conf`` names, and check both together."""
    check_schedule(conf.optim, conf.max_steps, conf.max_epochs)
    data = config.load(conf.data, DataConfig) if conf.data else DataConfig()
    if not data.train:
        raise ValueError(
            f"data {conf.data!r} names no training list; give --data a yaml with a train table"
        )
    if conf.patience is not None and not data.dev:
        raise ValueError(
            f"patience {conf.patience} waits for a better dev loss, and data.dev is empty; "
            "give dev lists or drop patience"
        )
    return data
