"""Micro-batches in order, from any number of data processes, with a count of what was lost."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import DataLoader, Dataset

from wenet_osum.dataset.store_faults import FaultLimit, StoreError
from wenet_osum.records import Batch

# What launchers send to all processes to end a run.
IGNORED = (signal.SIGTERM, signal.SIGUSR1)


class Loader:
    """The micro-batches of a dataset in order, with a count of what could not be read."""

    def __init__(
        self, dataset: Dataset, workers: int, prefetch: int, max_faults: float = 1.0
    ) -> None:
        """Load ``dataset``; stores may fail to give the share ``max_faults`` of the utterances."""
        self.dataset = dataset
        # utterances that could not be read in this pass on this rank, by reason
        self.failed: Counter = Counter()
        self.max_faults = max_faults
        self._loader = make_data_loader(dataset, workers, prefetch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the micro-batches. Raises StoreError when stores fail to give too many."""
        self.failed.clear()
        limit = FaultLimit(self.max_faults)
        others = set(multiprocessing.active_children())
        # A signal that comes while workers start is held back until they ignore it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        try:
            batches = iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        workers = set(multiprocessing.active_children()) - others

        # At the end of a process that stops in the middle, Python asks its children to end by
        # SIGTERM, which these ignore, and would wait for them for ever.
        end_workers = partial(_kill, workers)
        atexit.register(end_workers)
        try:
            for batch in batches:
                self.failed.update(batch.dropped)
                limit.count(batch)
                yield batch
        except (GeneratorExit, StoreError):
            # stopped early: torch asks its workers to end and waits, then one that hangs in a read
            # must not hold up the exit
            del batches
            end_workers()
            raise
        finally:
            atexit.unregister(end_workers)


def _kill(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def make_data_loader(dataset: Dataset, workers: int, prefetch: int) -> DataLoader:
    """Load items in order. A failed worker fails the loop."""
    # workers are forked: templates hold caches, which do not pickle
    processes = {}
    if workers:
        processes = {"prefetch_factor": prefetch, "multiprocessing_context": "fork"}
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=range(len(dataset)),
        num_workers=workers,
        worker_init_fn=_ignore_signals,
        # transfers then overlap with work
        pin_memory=torch.accelerator.is_available(),
        **processes,
    )


def _ignore_signals(worker: int) -> None:
    """Leave SIGTERM and SIGUSR1 to the main process, which saves and then ends its workers.

    torchrun and SLURM send them to whole process groups; a worker that died of one would take the
    main process along before it has saved. Programs that a worker runs inherit this. A worker whose
    main process is gone notices within seconds and ends.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
