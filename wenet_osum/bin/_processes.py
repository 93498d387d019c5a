"""The processes of one decoding run, as torchrun starts them: what they agree on and wait for."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from wenet_osum import lock

T = TypeVar("T")
# How long one waits for the others: they may finish far apart.
LONG_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. Alone it waits for nobody."""

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Return True on the process that prints and merges."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a remark to stderr, once for all processes."""
        if self.is_first:
            print(text, file=sys.stderr, flush=True)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def by_first(self, work: Callable[[], T]) -> T:
        """Do ``work`` in rank 0 alone.

        All processes get its value, or raise its ValueError or OSError.
        """
        if self.size == 1:
            return work()
        from wenet_osum.dist import from_rank_zero

        return from_rank_zero(work)

    def sum(self, counts: Counter) -> Counter:
        """Return the sum of the counts of all processes."""
        if self.size == 1:
            return counts
        import torch.distributed as dist

        every: list = [None] * self.size
        dist.all_gather_object(every, counts)
        return sum(every, Counter())

    @contextmanager
    def alone_in(self, folder: str) -> Iterator[None]:
        """Hold the lock of an output folder in rank 0.

        All processes raise ValueError when another run has it.
        """
        with ExitStack() as stack:
            self.by_first(lambda: stack.enter_context(lock.held(folder)))
            yield


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun has started; without torchrun there is one."""
    rank = int(os.environ.get("RANK", 0))
    size = int(os.environ.get("WORLD_SIZE", 1))
    processes = Processes(rank, size)
    if size == 1:
        yield processes
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=LONG_TIMEOUT)
    try:
        yield processes
    finally:
        dist.destroy_process_group()
