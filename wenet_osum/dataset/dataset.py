"""The whole data path on one page: lists → indices → pools → plan → samples → batches.

    load_list   what there is          (shard.py)
    build_pool  who can be drawn       (pool.py)
    Plan        who reads what, when   (plan.py)
    read        bytes of an utterance  (shard.py)
    make_sample features and ids       (sample.py)
    collate     a micro-batch          (batch.py)

The plan names every sample of every micro-batch; workers only fetch, decode and augment what they are told. So neither the number of workers
nor that of ranks changes what is trained on, and resuming is a seek.
"""

from __future__ import annotations

import atexit
import dataclasses
import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from wenet_osum.config import BatchConfig, DataConfig, FilterConfig, SourceConfig, TrainConfig
from wenet_osum.dataset import fingerprint, temperature
from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.plan import OPEN_FILES, Draws, Plan, count_draws, cut, files_needed
from wenet_osum.dataset.pool import Pool, TokenCounter, TokenEstimate, build_pool, published_rate
from wenet_osum.dataset.sample import (
    SampleConfig,
    Targets,
    make_sample,
    read_tags,
    silent_sample,
)
from wenet_osum.dataset.shard import Handles, load_list, read
from wenet_osum.dataset.states import StateStore
from wenet_osum.records import Batch, Sample, Utterance
from wenet_osum.tasks.base import Task
from wenet_osum.tasks.fields import REPLY_MARK
from wenet_osum.text.template import Template

__all__ = ["EpochLoader", "EvalLoader", "Mixture", "SpeechDataset", "eval_loader", "measure_tokens", "train_loader"]  # fmt: skip
MEASURED = 64  # utterances of a source whose texts are tokenized to learn tokens per byte
# of the least share that a measured target takes of its estimate: what is longer even so is not
# read at all
SURE = 0.9
PROMPTS_DRAWN = 64  # prompts of a task drawn to learn the longest


class SpeechDataset(Dataset):
    """Item i is the i-th micro-batch of this rank, a Batch. Any process may ask for any item: the answer is the same."""

    def __init__(
        self,
        pools: list[Pool],
        draws: np.ndarray,
        items: np.ndarray,
        template: Template,
        conf: SampleConfig,
        files: int = OPEN_FILES,
    ) -> None:
        """``draws`` (D, 5): source, shard, row, task, repeat. ``items`` (micro-batches, 2): first
        draw and end; an empty range is a filler.

        ``files`` are kept open at most.
        """
        self.pools, self.draws, self.items, self.template, self.conf = pools, draws, items, template, conf
        self.handles = Handles(files)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Batch:
        return self.batch(*self.items[i].tolist())

    def batch(self, first: int, end: int) -> Batch:
        """The draws from ``first`` to ``end`` as a Batch; a filler when none of them can be used."""
        samples, dropped = [], Counter()
        for draw in range(first, end):
            try:
                samples.append(self.sample(draw))
            except Drop as drop:
                dropped[drop.reason] += 1
        return collate(samples, dropped, None if samples else silent_sample(self.template, self.conf))

    def sample(self, draw: int) -> Sample:
        """Read one draw. Raises Drop."""
        source, shard, row, task, repeat = self.draws[draw].tolist()
        pool = self.pools[source]
        utterance, audio = read(pool.indices[shard], row, self.handles)
        return make_sample(utterance, audio, pool.tasks[task], self.template, self.conf, repeat)


class Loader:
    """The micro-batches of a dataset in order, with a count of what could not be read."""

    def __init__(self, dataset: SpeechDataset, workers: int, prefetch: int) -> None:
        self.dataset = dataset
        self.failed: Counter = Counter()  # utterances that could not be read in this pass on this rank, by reason
        self._loader = in_order(dataset, workers, prefetch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Batch]:
        self.failed.clear()
        others = set(multiprocessing.active_children())
        batches = iter(self._loader)
        workers = set(multiprocessing.active_children()) - others
        # At the end of a process that stops in the middle, Python asks its children to end by SIGTERM,
        # which these ignore, and would wait for them for ever.
        end_workers = partial(_kill, workers)
        atexit.register(end_workers)
        try:
            for batch in batches:
                self.failed.update(batch.dropped)
                yield batch
        except GeneratorExit:
            # stopped early: torch asks its workers to end and waits, then one that hangs in a read
            # must not hold up the exit
            del batches
            end_workers()
            raise
        finally:
            atexit.unregister(end_workers)


def _kill(processes: Iterable[multiprocessing.process.BaseProcess]) -> None:
    for process in processes:
        process.kill()


class EpochLoader(Loader):
    """The micro-batches of one rank in one epoch, from ``start`` on. ``plan`` says what they hold."""

    def __init__(self, dataset: SpeechDataset, plan: Plan, workers: int = 0, prefetch: int = 4) -> None:
        super().__init__(dataset, workers, prefetch)
        self.plan = plan
        self.steps = len(dataset) // plan.accumulation  # optimizer steps

    def rehearsal(self, n: int = 1) -> Iterator[Batch]:
        """The largest micro-batches of the whole epoch by each budget, at the slowest speed: what memory must hold. The same on every rank."""
        conf = self.dataset.conf
        slow = dataclasses.replace(conf, augment=dataclasses.replace(conf.augment, speeds=[min(conf.augment.speeds)]))
        whole = SpeechDataset(self.dataset.pools, self.dataset.draws, self.dataset.items, self.dataset.template, slow)
        for g in self.plan.longest(n):
            yield whole.batch(int(self.plan.bounds[g]), int(self.plan.bounds[g + 1]))


class Mixture:
    """The training data, loaded and judged once; ``epoch`` makes the loader of any epoch. Raises ValueError for data that cannot be used."""

    def __init__(
        self,
        data: DataConfig,
        conf: TrainConfig,
        template: Template,
        mels: int,
        speech_tokens: TokenCounter = published_rate,
        reach: int | None = None,
        targets: Targets | None = None,
        states: StateStore | None = None,
    ) -> None:
        """Load the lists and judge their utterances.

        ``speech_tokens`` and ``reach`` are facts of the model, as in ``build_pool``; ``targets``
        makes what further losses need. ``states`` are read in the place of features.
        """
        if not data.train:
            raise ValueError("data.train has no sources; give it rows {name, list, weight, tasks}")
        self.conf, self.template, self.mels = conf, template, mels
        self.speech_tokens, self.reach, self.targets, self.states = speech_tokens, reach, targets, states
        _check_tasks(conf.filter, template)
        self.dropped: Counter = Counter()  # what the readers left out, by reason
        self.sources = data.train
        self.listed = [load_list(source.list, self.dropped) for source in data.train]
        self.temperature = data.mixture.temperature  # of each epoch
        self.pools = self._judge(conf)
        # what the order of its epochs depends on
        self.plan = fingerprint.fingerprint(conf, self.pools, reach, self.temperature)

    def _judge(self, conf: TrainConfig) -> list[Pool]:
        """The sources by the filter and the budgets of ``conf``."""
        return [self._pool(source, indices, conf) for source, indices in zip(self.sources, self.listed, strict=True)]

    def _pool(self, source: SourceConfig, indices: list[Index], conf: TrainConfig) -> Pool:
        estimate = partial(measure_tokens, indices, self.template)
        slowest, parse = min(conf.augment.speeds), self.template.task
        rules = (conf.batch, conf.filter, estimate, slowest, parse)
        return build_pool(source, indices, *rules, self.speech_tokens, self.reach)

    def epoch(
        self, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0, earlier: Sequence[dict[str, Any]] = ()
    ) -> EpochLoader | None:
        """Open this rank's part of an epoch after ``start`` micro-batches over all ranks are done.

        ``earlier`` are parts of the epoch that were read under other plans, each with its ``plan``
        (a fingerprint) and the micro-batches ``consumed`` of it; the plan is then that of the rest,
        None when nothing is left. Raises ValueError when lists have changed meanwhile.
        """
        conf, dropped = self.conf, Counter(self.dropped)
        left = self._left_over(epoch, earlier, dropped) if earlier else None
        if left is not None and not count_draws(left):
            return None
        pools = temperature.apply(self.pools, self.temperature, epoch)
        plan = Plan(pools, conf.batch, conf.seed, epoch, world_size, conf.optim.accumulation, left)
        plan.dropped.update(dropped)
        draws = np.stack([plan.source, plan.shard, plan.row, plan.task, plan.repeat], axis=1)
        how = {"on_device": conf.features == "device", "targets": self.targets, "states": self.states}
        rules = (self.mels, conf.filter, conf.augment, conf.seed, epoch, self.reach)
        sampling = SampleConfig(*rules, **how)
        files = files_needed(conf.batch.window, len(self.pools))
        dataset = SpeechDataset(self.pools, draws, plan.items(rank, start), self.template, sampling, files)
        return EpochLoader(dataset, plan, conf.workers, conf.prefetch)

    def _left_over(self, epoch: int, earlier: Sequence[dict[str, Any]], dropped: Counter) -> list[Draws]:
        """Find the draws of an epoch that the parts before have not read, by planning those again."""
        draws = None
        confs = [fingerprint.settings(part["plan"], self.conf) for part in earlier]
        judged = [*map(self._judge, confs), self.pools]
        for number, (part, conf) in enumerate(zip(earlier, confs, strict=True)):
            pools = judged[number]
            if changed := fingerprint.changed_lists(part["plan"], pools):
                raise ValueError(
                    f"train: the lists of {', '.join(changed)} hold other utterances, lengths or labels than when epoch {epoch} began, "
                    "so what it has read cannot be told; bring back the old lists, or go on in a new --exp_dir with model.init_from"
                )
            pools = temperature.apply(pools, fingerprint.temperature(part["plan"]), epoch)
            plan = Plan(pools, conf.batch, conf.seed, epoch, draws=draws)
            draws = fingerprint.rest(plan, part["consumed"], judged[number + 1], dropped)
        return draws


def train_loader(
    data: DataConfig, conf: TrainConfig, template: Template, mels: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0
) -> EpochLoader:
    """One epoch's loader; a run over several epochs keeps a ``Mixture`` and loads the lists once."""
    return Mixture(data, conf, template, mels).epoch(epoch, rank, world_size, start)


class EvalLoader(Loader):
    """Every utterance of a list once, from long to short, shared out among the ranks in equal numbers of batches (fillers at the end)."""

    def __init__(self, dataset: SpeechDataset, dropped: Counter, workers: int = 0) -> None:
        super().__init__(dataset, workers, prefetch=2)
        self.dropped = dropped  # left out by the reader and the filters, by reason


def eval_loader(
    list_path: str,
    task: str | None,
    template: Template,
    conf_batch: BatchConfig,
    mels: int,
    rank: int = 0,
    world_size: int = 1,
    prompt_lang: str = "zh",
    limit: int | None = None,
    limits: FilterConfig | None = None,
    workers: int = 0,
    speech_tokens: TokenCounter = published_rate,
    reach: int | None = None,
    targets: Targets | None = None,
    states: StateStore | None = None,
) -> EvalLoader:
    """Batches with answers for a dev list, asked ``task`` (None: each utterance's own). ``limit`` keeps that many, evenly spread.

    Nothing is augmented; prompts are the scoring ones. Raises ValueError when the list or the task cannot be used.
    """
    dropped, limits = Counter(), limits or FilterConfig()
    source = SourceConfig(name=f"dev {task or 'list'}", list=str(list_path), tasks={task: 1.0} if task else {})
    indices = load_list(source.list, dropped)
    measure = partial(measure_tokens, indices, template)
    facts = {"parse": template.task, "speech_tokens": speech_tokens, "reach": reach}
    pool = build_pool(source, indices, conf_batch, limits, measure, **facts)
    dropped.update(pool.dropped)
    chosen = np.arange(len(pool)) if not limit or limit >= len(pool) else np.linspace(0, len(pool) - 1, limit).round().astype(int)
    order = chosen[np.argsort(-pool.frames[chosen], kind="stable")]
    asked = pool.eligible[order].argmax(axis=1)
    starts = cut(pool.frames[order], pool.tokens[order, asked], [len(order)], conf_batch)
    fillers = -len(starts) % world_size
    items = np.array([*zip(starts, [*starts[1:], len(order)], strict=True), *[(len(order),) * 2] * fillers], dtype=np.int64)
    zero = np.zeros(len(order), dtype=np.int64)
    draws = np.stack([zero, pool.shard[order], pool.row[order], asked, zero], axis=1)
    how = {"reach": reach, "targets": targets, "prompt_lang": prompt_lang, "states": states}
    sampling = SampleConfig(mels, limits, **how)
    return EvalLoader(SpeechDataset([pool], draws, items[rank::world_size], template, sampling), dropped, workers)


def measure_tokens(indices: list[Index], template: Template, tasks: list[Task]) -> TokenEstimate:
    """Learn from a few evenly spread utterances how many tokens a byte of text takes at most; prompts, times and labels are encoded."""
    measured = list(_some_utterances(indices))
    texts = [text for utterance, _ in measured for text in (utterance.txt, utterance.reply) if text]
    prompts = [template.draw_prompt_ids(task, 0, 0, str(n)) for task in tasks for n in range(PROMPTS_DRAWN)]
    estimate = TokenEstimate(
        prompt=max(map(len, prompts), default=0) + len(template.suffix_ids),
        per_byte=max((len(template.encode(text)) / len(text.encode()) for text in texts), default=0.0) or 1.0,
        per_word=2 * len(template.encode("<12.34>")),
        label=max([len(template.encode(REPLY_MARK)), *(_label_tokens(task, template) for task in tasks)]),
    )
    shares = {task.tags: _target_shares(measured, estimate, template, task) for task in tasks}
    return dataclasses.replace(estimate, measured={tags: share for tags, share in shares.items() if share})


def _some_utterances(indices: list[Index]) -> Iterator[tuple[Utterance, np.ndarray]]:
    """``MEASURED`` utterances, evenly spread, with their (3,) lengths of the index."""
    ends, handles = np.cumsum([len(index) for index in indices]), Handles()
    for i in np.unique(np.linspace(0, ends[-1] - 1, MEASURED).astype(int)).tolist():
        shard = int(np.searchsorted(ends, i, side="right"))
        row = i - int(ends[shard]) + len(indices[shard])
        try:
            yield read(indices[shard], row, handles)[0], indices[shard].lengths[row]
        except Drop:  # counted when it is drawn
            continue


def _target_shares(
    measured: list[tuple[Utterance, np.ndarray]],
    estimate: TokenEstimate,
    template: Template,
    task: Task,
) -> tuple[float, float] | None:
    """Measure the share of the estimate that targets of a task take: the least one, and all together.

    None where none of the utterances can be asked the task.
    """
    rows = []
    for utterance, lengths in measured:
        utterance = read_tags(utterance, task, template)
        if task.present(utterance):
            rows.append((len(template.target(task, utterance).ids), int(estimate.answer(task, lengths[None])[0])))
    if not rows:
        return None
    # short texts, of which ends and labels are a large part, tell little about those near a limit
    longer = sorted(rows, key=lambda row: row[1])[len(rows) // 2 :]
    least = SURE * min(true / bound for true, bound in longer)
    return least, sum(true for true, _ in longer) / sum(bound for _, bound in longer)


def _check_tasks(limits: FilterConfig, template: Template) -> None:
    """Raises ValueError for a task in the table of limits that is not known."""
    for name in limits.max_target_tokens if isinstance(limits.max_target_tokens, dict) else ():
        if name != "default":
            try:
                template.task(name)
            except ValueError as error:
                raise ValueError(f"filter.max_target_tokens: {error}") from None


def _label_tokens(task: Task, template: Template) -> int:
    return max((len(ids) for f in task.label_fields for ids in template.label_ids(f).values()), default=0)


def in_order(dataset: Dataset, workers: int, prefetch: int) -> DataLoader:
    """Items in order. A failed worker fails the loop."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=range(len(dataset)),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        multiprocessing_context="fork" if workers else None,  # templates hold caches, which do not pickle
        worker_init_fn=_ignore_signals,
        pin_memory=torch.accelerator.is_available()  # transfers then overlap with work,
    )


def _ignore_signals(worker: int) -> None:
    """Leave SIGTERM and SIGUSR1 to the main process, which saves and then ends its workers.

    torchrun and SLURM send them to whole process groups; a worker that died of one would take the
    main process along before it has saved. Programs that a worker runs inherit this. A worker whose
    main process is gone notices within seconds and ends.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
