"""Ways to do the same part of a step, checked and measured in turns: time and peak memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from phase_rate import seconds_of
from side_by_side import spread
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HEAD = ["| work | way | ms | times ours | peak MiB | times ours |", "|---|---|---|---|---|---|"]
MIB = 2**20


@dataclass
class Work:
    """Ways to do the same, the first of which is ours: each gives an output and its gradient."""

    name: str
    ways: dict[str, Callable[[], Tensor]]
    # Largest relative difference of outputs.
    tolerance: float
    timed: bool = True
    # Random masks differ between the ways.
    compared: bool = True


@dataclass
class Measured:
    """What a way took."""

    work: str
    way: str
    peak_mib: float = 0.0
    seconds: list[float] = field(default_factory=list)


class Peak(TorchDispatchMode):
    """Counts the bytes of storages that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._note(storage)
        self.most = max(self.most, self.now)
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        place = storage.data_ptr()
        size = storage.nbytes()
        if not size or place in self.known:
            return
        self.known.add(place)
        self.now += size
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


def peak_of(way: Callable[[], Any], device: torch.device) -> float:
    """Return the bytes that a way takes beyond what is there before, in MiB."""
    if device.type == "cpu":
        counted = Peak()
        with counted:
            way()
        return counted.most / MIB
    torch.accelerator.synchronize()
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    way()
    most = torch.accelerator.max_memory_allocated()
    return (most - before) / MIB


def both(run: Callable[[Tensor], Tensor], given: Tensor) -> Callable[[], Tensor]:
    """Return what runs forward and backward, and gives the output."""

    def way() -> Tensor:
        leaf = given.detach().requires_grad_()
        output = run(leaf)
        squares = output.float().square()
        squares.mean().backward()
        return output.detach()

    return way


def measure(work: Work, device: torch.device, rounds: int) -> list[Measured]:
    """Check the ways of a work, then measure them in turns."""
    outputs = [way() for way in work.ways.values()]
    if work.compared:
        check(work, outputs)
    outputs.clear()
    found = {}
    for name, way in work.ways.items():
        peak = peak_of(way, device)
        found[name] = Measured(work.name, name, peak)
    for _ in range(rounds if work.timed else 0):
        for name, way in work.ways.items():
            took = seconds_of(way, device)
            found[name].seconds.append(took)
    return list(found.values())


def check(work: Work, outputs: list[Tensor]) -> None:
    """Raise AssertionError where a way gives another output than ours."""
    ours, *others = outputs
    ours = ours.float()
    for other in others:
        gap = other.float() - ours
        difference = gap.norm() / ours.norm()
        assert difference <= work.tolerance, f"{work.name} differs by {difference:.3f}"


def rows(found: list[Measured]) -> list[str]:
    """Write table rows; ours is the first of each work."""
    ours: dict[str, Measured] = {}
    lines = []
    for one in found:
        first = ours.setdefault(one.work, one)
        cells = [one.work, one.way, *times(one, first)]
        cells.append(f"{one.peak_mib:.1f}")
        growth = one.peak_mib / first.peak_mib
        cells.append(f"{growth:.2f}")
        listed = " | ".join(cells)
        lines.append(f"| {listed} |")
    return lines


def times(one: Measured, first: Measured) -> list[str]:
    """Write the time of a way, and its ratio to ours within rounds."""
    if not one.seconds:
        return ["", ""]
    each = 1000 * np.array(one.seconds)
    took = spread(each, ".3g")
    ratios = np.divide(one.seconds, first.seconds)
    ratio = spread(ratios, ".2f")
    return [took, ratio]
