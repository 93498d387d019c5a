"""The whole data path on one page: lists → indices → pools → plan → samples → batches.

    load_list       what there is          (list_index.py)
    build_pool      who can be drawn       (pool.py)
    Plan            who reads what, when   (plan.py)
    SpeechDataset   a micro-batch of it    (speech_dataset.py)
    read_utterance  bytes of an utterance  (shard.py)
    make_sample     features and ids       (sample.py; the steps of its sound: steps.py;
                    several turns: conversation.py)
    collate         a micro-batch          (batch.py)

The sound of a training utterance goes through these steps (the list ``STEPS`` of steps.py is what
runs), in this order:

    decode           file → mono, 16 kHz
    check_duration   filter.min_s, filter.max_s
    speed_perturb    augment.speeds
    reverberate      augment.reverb
    add_noise        augment.noise
    apply_effects    augment.effects, a file each in effects/
    change_gain      augment.gain_db
    compute_log_mel  samples → frames, mel bins
    spec_augment     augment.spec_augment

The plan names every sample of every micro-batch; workers only fetch, decode and augment what they
are told. So neither the number of workers nor that of ranks changes what is trained on, and
resuming is a seek.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any

from wenet_osum.config import (
    BatchConfig,
    DataConfig,
    FilterConfig,
    SourceConfig,
    StoreConfig,
    TrainConfig,
)
from wenet_osum.dataset import fingerprint, temperature
from wenet_osum.dataset.arrange import files_needed
from wenet_osum.dataset.compose import cut
from wenet_osum.dataset.context import Bank, ContextDraws
from wenet_osum.dataset.dev_order import from_long_to_short, share_out
from wenet_osum.dataset.draw import Draws, count_draws
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.loader import Loader
from wenet_osum.dataset.measure import BANK, measure_tokens, read_bank
from wenet_osum.dataset.plan import Plan
from wenet_osum.dataset.pool import Pool, TokenCounter, build_pool, published_rate
from wenet_osum.dataset.retry import DEFAULT_STORE
from wenet_osum.dataset.sample_config import SampleConfig, Targets
from wenet_osum.dataset.shard import load_list
from wenet_osum.dataset.speech_dataset import SpeechDataset
from wenet_osum.dataset.states import StateStore
from wenet_osum.records import Batch
from wenet_osum.text.template import Template


class EpochLoader(Loader):
    """The micro-batches of one rank in one epoch, from ``start`` on.

    ``plan`` says what they hold.
    """

    def __init__(
        self, dataset: SpeechDataset, plan: Plan, workers: int = 0, prefetch: int = 4
    ) -> None:
        super().__init__(dataset, workers, prefetch, dataset.store.max_faults)
        self.plan = plan
        # optimizer steps that are still to come
        self.steps_left = len(dataset) // plan.accumulation

    def rehearsal(self) -> Iterator[Batch]:
        """Yield the largest micro-batches of the whole epoch by each budget, at the slowest speed.

        They are what memory must hold, and the same on every rank.
        """
        dataset = self.dataset
        slowest = min(dataset.conf.augment.speeds)
        slow = dataclasses.replace(dataset.conf.augment, speeds=[slowest])
        conf = dataclasses.replace(dataset.conf, augment=slow)
        whole = SpeechDataset(
            dataset.pools,
            dataset.draws,
            dataset.items,
            dataset.template,
            conf,
            store=dataset.store,
        )
        for number in self.plan.longest():
            first, end = self.plan.bounds[number : number + 2].tolist()
            yield whole.batch(first, end)


class Mixture:
    """The training data, loaded and judged once; ``epoch`` makes the loader of any epoch.

    Raises ValueError for data that cannot be used.
    """

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
        self.conf = conf
        self.template = template
        self.mels = mels
        self.speech_tokens = speech_tokens
        self.reach = reach
        self.targets = targets
        self.states = states
        _check_tasks(conf.filter, template)
        # what the readers left out, by reason
        self.dropped: Counter = Counter()
        self.sources = data.train
        self.listed = [load_list(source.list, self.dropped) for source in data.train]
        self.temperature = data.mixture.temperature  # of each epoch
        self.pools = self._judge(conf)
        # what the order of its epochs depends on
        self.plan_fingerprint = fingerprint.fingerprint(conf, self.pools, reach, self.temperature)

    def _judge(self, conf: TrainConfig) -> list[Pool]:
        """Judge the sources by the filter and the budgets of ``conf``."""
        pools = []
        for source, indices in zip(self.sources, self.listed, strict=True):
            pools.append(self._pool(source, indices, conf))
        return pools

    def _pool(self, source: SourceConfig, indices: list[Index], conf: TrainConfig) -> Pool:
        return build_pool(
            source,
            indices,
            conf.batch,
            conf.filter,
            estimate=partial(measure_tokens, indices, self.template, context=self._context(conf)),
            slowest=min(conf.augment.speeds),
            parse=self.template.task,
            speech_tokens=self.speech_tokens,
            reach=self.reach,
        )

    @cached_property
    def bank(self) -> Bank:
        """Read what hotwords are drawn from, once a configuration draws any."""
        return read_bank(self.listed, BANK)

    def _context(self, conf: TrainConfig) -> ContextDraws | None:
        """Return what draws the context of samples, None where prompts have none."""
        return ContextDraws(conf.context, self.bank) if conf.context else None

    def epoch(
        self,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        earlier: Sequence[dict[str, Any]] = (),
    ) -> EpochLoader | None:
        """Open this rank's part of an epoch after ``start`` micro-batches over all ranks are done.

        ``earlier`` lists the parts of this epoch that were read under other plans, each a
        fingerprint ``plan`` and the micro-batches ``consumed`` of it; only the rest is planned.
        Returns None when nothing is left. Raises ValueError when the lists have changed since.
        """
        conf = self.conf
        dropped = Counter(self.dropped)
        left = None
        if earlier:
            left = self._left_over(epoch, earlier, dropped)
            if not count_draws(left):
                return None
        accumulation = conf.optim.accumulation
        pools = temperature.apply(self.pools, self.temperature, epoch)
        plan = Plan(pools, conf.batch, conf.seed, epoch, world_size, accumulation, left)
        plan.dropped.update(dropped)

        dataset = SpeechDataset(
            self.pools,
            plan.draws(),
            plan.items(rank, start),
            self.template,
            self._sampling(epoch),
            files=files_needed(conf.batch.window, len(self.pools)),
            store=conf.store,
        )
        return EpochLoader(dataset, plan, conf.workers, conf.prefetch)

    def _sampling(self, epoch: int) -> SampleConfig:
        """Say how the samples of an epoch are made."""
        return SampleConfig(
            mels=self.mels,
            filter=self.conf.filter,
            augment=self.conf.augment,
            seed=self.conf.seed,
            epoch=epoch,
            reach=self.reach,
            on_device=self.conf.features == "device",
            targets=self.targets,
            states=self.states,
            context=self._context(self.conf),
        )

    def _left_over(
        self, epoch: int, earlier: Sequence[dict[str, Any]], dropped: Counter
    ) -> list[Draws]:
        """Find the draws of an epoch that the parts before have not read.

        Those parts are planned again, each by its own settings.
        """
        draws = None
        confs = [fingerprint.settings(part["plan"], self.conf) for part in earlier]
        judged = [*map(self._judge, confs), self.pools]
        for number, part in enumerate(earlier):
            pools, after = judged[number : number + 2]
            conf = confs[number]
            if changed := fingerprint.changed_lists(part["plan"], pools):
                raise ValueError(
                    f"train: the lists of {', '.join(changed)} hold other utterances, lengths or "
                    f"labels than when epoch {epoch} began, so what it has read cannot be told; "
                    "bring back the old lists, or go on in a new --exp_dir with model.init_from"
                )
            pools = temperature.apply(pools, fingerprint.temperature(part["plan"]), epoch)
            plan = Plan(pools, conf.batch, conf.seed, epoch, draws=draws)
            draws = fingerprint.rest(plan, part["consumed"], after, dropped)
        return draws


def _check_tasks(limits: FilterConfig, template: Template) -> None:
    """Raise ValueError for a task in the table of limits that is not known."""
    if not isinstance(limits.max_target_tokens, dict):
        return
    for name in limits.max_target_tokens.keys() - {"default"}:
        try:
            template.task(name)
        except ValueError as error:
            raise ValueError(f"filter.max_target_tokens: {error}") from None


class EvalLoader(Loader):
    """Every utterance of a list once, from long to short.

    They are shared out among the ranks in equal numbers of batches, with fillers at the end.
    """

    def __init__(self, dataset: SpeechDataset, dropped: Counter, workers: int = 0) -> None:
        super().__init__(dataset, workers, 2, dataset.store.max_faults)
        self.dropped = dropped  # left out by the reader and the filters, by reason


def eval_loader(
    list_path: str,
    task: str | None,
    template: Template,
    batch: BatchConfig,
    mels: int,
    rank: int = 0,
    world_size: int = 1,
    max_utterances: int | None = None,
    filter_conf: FilterConfig | None = None,
    workers: int = 0,
    speech_tokens: TokenCounter = published_rate,
    reach: int | None = None,
    targets: Targets | None = None,
    states: StateStore | None = None,
    store: StoreConfig = DEFAULT_STORE,
) -> EvalLoader:
    """Make batches with answers for a dev list, asked ``task`` (None: each utterance's own).

    ``max_utterances`` are kept, evenly spread. Nothing is augmented; prompts are the scoring ones.
    Raises ValueError when the list or the task cannot be used.
    """
    dropped = Counter()
    filter_conf = filter_conf or FilterConfig()
    tasks = {task: 1.0} if task else {}
    source = SourceConfig(name=f"dev {task or 'list'}", list=str(list_path), tasks=tasks)
    indices = load_list(source.list, dropped)
    pool = build_pool(
        source,
        indices,
        batch,
        filter_conf,
        estimate=partial(measure_tokens, indices, template),
        parse=template.task,
        speech_tokens=speech_tokens,
        reach=reach,
    )
    dropped.update(pool.dropped)

    draws, costs = from_long_to_short(pool, max_utterances)
    items = share_out(cut(costs, batch), len(draws), world_size)
    own_items = items[rank::world_size]
    sampling = SampleConfig(mels, filter_conf, reach=reach, targets=targets, states=states)
    dataset = SpeechDataset([pool], draws, own_items, template, sampling, store=store)
    return EvalLoader(dataset, dropped, workers)
