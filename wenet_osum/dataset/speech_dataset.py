"""The micro-batches of a plan, made when they are asked for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import numpy as np
from torch.utils.data import Dataset, get_worker_info

from wenet_osum.config import StoreConfig
from wenet_osum.dataset.arrange import OPEN_FILES
from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.conversation import make_conversation
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.pool import Pool
from wenet_osum.dataset.ranges import Part
from wenet_osum.dataset.retry import DEFAULT_STORE
from wenet_osum.dataset.sample import make_sample, silent_sample
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.dataset.shard import Handles, read_utterance
from wenet_osum.records import Batch, Sample
from wenet_osum.text.template import Template


class SpeechDataset(Dataset):
    """Item i is the i-th micro-batch of this rank, a Batch.

    Any process may ask for any item: the answer is the same.
    """

    def __init__(
        self,
        pools: list[Pool],
        draws: np.ndarray,
        items: np.ndarray,
        template: Template,
        conf: SampleConfig,
        files: int = OPEN_FILES,
        store: StoreConfig = DEFAULT_STORE,
    ) -> None:
        """Take what is drawn and cut already.

        ``draws`` (D, 5): source, shard, row, task, repeat. ``items`` (micro-batches, 2): first
        draw and end; an empty range is a filler. ``files`` are kept open at most. ``store`` says
        how often a store is asked.
        """
        self.pools = pools
        self.draws = draws
        self.items = items
        self.template = template
        self.conf = conf
        self.store = store
        self.handles = Handles(files, store)
        for pool in pools:
            self.handles.hold(index.path for index in pool.indices)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Batch:
        item = self.items[i]
        first, end = item.tolist()
        ahead = self._parts_ahead(i)
        return self.batch(first, end, ahead)

    def _parts(self, first: int, end: int) -> Iterable[Part]:
        """Say where the bytes of draws lie, for each when it is asked."""
        return map(self._part, range(first, end))

    def _parts_ahead(self, i: int) -> Iterable[Part]:
        """Say where the bytes of the micro-batch lie that this process is asked for after i."""
        worker = get_worker_info()
        following = i + 1
        if worker:
            following = i + worker.num_workers
        if following >= len(self):
            return []
        first, end = self.items[following].tolist()
        return self._parts(first, end)

    def batch(self, first: int, end: int, ahead: Iterable[Part] = ()) -> Batch:
        """Make a Batch of the draws from ``first`` to ``end``; a filler when none can be used.

        ``ahead`` is what will be read next.
        """
        samples, dropped = [], Counter()
        parts = self._parts(first, end)
        self.handles.expect(parts, ahead)
        for draw in range(first, end):
            try:
                sample = self.sample(draw)
                samples.append(sample)
            except Drop as drop:
                dropped[drop.reason] += 1
        filler = None
        if not samples:
            filler = silent_sample(self.template, self.conf)
        return collate(samples, dropped, filler)

    def _part(self, draw: int) -> Part:
        """Say where the bytes of a draw lie."""
        source, shard, row, *_ = self.draws[draw].tolist()
        pool = self.pools[source]
        index = pool.indices[shard]
        offset = int(index.offsets[row])
        size = int(index.sizes[row])
        return index.path, offset, size

    def sample(self, draw: int) -> Sample:
        """Read one draw. Raises Drop."""
        source, shard, row, task, repeat = self.draws[draw].tolist()
        pool = self.pools[source]
        index = pool.indices[shard]
        asked = pool.tasks[task]
        utterance, audio = read_utterance(index, row, self.handles)
        empty = utterance.txt == "" and not utterance.turns
        if empty and not pool.source.without_speech:
            # An empty transcript counts as missing unless the source sets without_speech.
            utterance = dataclasses.replace(utterance, txt=None)

        make = make_conversation if utterance.turns else make_sample
        return make(
            utterance,
            audio,
            asked,
            self.template,
            self.conf,
            repeat,
        )
