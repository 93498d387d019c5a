"""Packing shared out to several machines: each writes its part of the list, and whoever finds all parts there writes the whole.

The part of job 2 of 4 of ``data.list`` is ``data.list.part2of4``: a line ``<shard>`` for each shard. Beside a list lies ``data.list.left_out`` with a line
``key<tab>reason`` for each utterance that is not in it.
"""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Iterator
from pathlib import Path

from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.manifest import parse_line, reason_of
from wenet_osum.dataset.shard import write_list
from wenet_osum.files import write_text
from wenet_osum.records import Utterance


def part_of(path: str, job: int, num_jobs: int) -> str:
    """Where a job writes its part of the list at ``path``; the list itself when there is one job."""
    return path if num_jobs == 1 else f"{path}.part{job}of{num_jobs}"


def clear(path: str, job: int, num_jobs: int) -> None:
    """Take away what an earlier run of this job wrote, so that nobody joins it with what comes now."""
    for name in {path, part_of(path, job, num_jobs)}:
        Path(name).unlink(missing_ok=True)


def finish(path: str, job: int, num_jobs: int, shards: list[str], dropped: Dropped) -> int:
    """Write this job's part, and the whole list when no part is missing. Returns how many parts are there."""
    own = part_of(path, job, num_jobs)
    _write(f"{own}.left_out", "".join(f"{_line(key)}\t{reason}\n" for key, reason in dropped.pairs))
    write_list(own, shards)
    parts = [part_of(path, n, num_jobs) for n in range(1, num_jobs + 1)]
    there = [part for part in parts if os.path.exists(part)]
    if num_jobs > 1 and len(there) == num_jobs:
        found = sorted(line for part in parts for line in Path(part).read_text(encoding="utf-8").splitlines())
        _write(f"{path}.left_out", "".join(Path(f"{part}.left_out").read_text(encoding="utf-8") for part in parts))
        write_list(path, found)
    return len(there)


def _line(key: str) -> str:
    return " ".join(key.encode("utf-8", "backslashreplace").decode().split())


def _write(path: str, text: str) -> None:
    write_text(path, text)


def read_shuffled(path: str, seed: int, dropped: Dropped) -> Iterator[Utterance]:
    """The utterances of a manifest in an order drawn from ``seed``, read by seeking: eight bytes of memory a line."""
    starts = array("q")
    with open(path, "rb") as lines:
        at = 0
        for line in lines:
            if line.strip():
                starts.append(at)
            at += len(line)
        random.Random(seed).shuffle(starts)
        for start in starts:
            lines.seek(start)
            try:
                yield parse_line(lines.readline())
            except ValueError as error:
                note(dropped, f"{path} byte {start}", "manifest: " + reason_of(error))
