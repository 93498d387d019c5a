"""Neighboring indices of a list as one, so that a list of many shards is judged in few calls.

A call of numpy costs about as much as the work on a shard of a thousand utterances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from wenet_osum.dataset.columns import Coded, distinct
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.list_file import ListFile

ROWS = 32_000  # utterances that are judged together, at least


class Stretch(NamedTuple):
    """Neighboring indices, joined as far as they are needed to judge utterances."""

    first: int  # number of the first index
    sizes: np.ndarray  # of the indices, utterances
    index: Index  # without keys and places where there are several

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the indices that rows of the whole lie in, and their rows there."""
        ends = np.cumsum(self.sizes)
        number = np.searchsorted(ends, rows, side="right")
        begins = ends - self.sizes
        return self.first + number, rows - begins[number]


def sizes_of(indices: Sequence[Index]) -> np.ndarray:
    """Count the utterances of each index."""
    if isinstance(indices, ListFile):
        return indices.sizes
    sizes = [len(index) for index in indices]
    return np.array(sizes, dtype=np.int64)


def values_of(indices: Sequence[Index], name: str) -> set[str]:
    """Return the values of a column that occur."""
    found = set()
    for stretch in stretches(indices):
        values, _ = distinct(stretch.index.column(name))
        found.update(values)
    return found


def stretches(indices: Sequence[Index]) -> Iterator[Stretch]:
    """Yield all indices in their order: those of a mapped file joined, others one by one."""
    sizes = sizes_of(indices)
    if not isinstance(indices, ListFile):
        for number, index in enumerate(indices):
            yield Stretch(
                number,
                sizes[number : number + 1],
                index,
            )
        return
    first, rows = 0, 0
    for number, size in enumerate(sizes.tolist(), 1):
        rows += size
        if rows >= ROWS or number == len(sizes):
            together = [indices[one] for one in range(first, number)]
            yield Stretch(
                first,
                sizes[first:number],
                _join(together),
            )
            first, rows = number, 0


def _join(indices: list[Index]) -> Index:
    """Join indices of one file, without keys and places."""
    if len(indices) == 1:
        return indices[0]
    rows = sum(len(index) for index in indices)
    columns = {}
    for name, column in indices[0].columns.items():
        codes = [index.columns[name].codes for index in indices]
        columns[name] = Coded(np.concatenate(codes), column.table)
    turns = None
    if any(index.turns is not None for index in indices):
        turns = np.concatenate([_turns(index) for index in indices])
    nothing = np.broadcast_to(np.int64(0), rows)
    return Index(
        path="",
        keys=np.broadcast_to(np.str_(""), rows),
        offsets=nothing,
        sizes=nothing,
        durations=np.concatenate([index.durations for index in indices]),
        columns=columns,
        lengths=np.concatenate([index.lengths for index in indices]),
        kind=indices[0].kind,
        turns=turns,
    )


def _turns(index: Index) -> np.ndarray:
    """Return ``Index.turns``, zeros where there are none."""
    if index.turns is not None:
        return index.turns
    return np.zeros((len(index), 4), dtype=np.int32)
