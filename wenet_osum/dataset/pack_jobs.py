"""Packing shared out to several machines.

Each writes its part of the list, and whoever finds all parts there writes the whole. The part of
job 2 of 4 of ``data.list`` is ``data.list.part2of4``: a line with the digest of what is packed and
how, then a line ``<shard>`` for each shard; only parts of one digest are joined. Beside a list lies
``data.list.left_out`` with a line ``key<tab>reason`` for each utterance that is not in it.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.manifest import parse_line, reason_of
from wenet_osum.dataset.shard import write_list
from wenet_osum.files import write_text
from wenet_osum.records import Utterance


def part_of(path: str, job: int, num_jobs: int) -> str:
    """Return where a job writes its part of the list at ``path``; a single one writes the list."""
    if num_jobs == 1:
        return path
    return f"{path}.part{job}of{num_jobs}"


def digest_of(files: Iterable[str], options: dict[str, object]) -> str:
    """Hash the files that are packed, and the options of packing."""
    digest = hashlib.blake2b(repr(options).encode(), digest_size=16)
    for name in files:
        with open(name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def clear(path: str, job: int, num_jobs: int) -> None:
    """Take away what an earlier run of this job wrote, so that nobody joins it with what comes."""
    own = part_of(path, job, num_jobs)
    for name in {path, own}:
        Path(name).unlink(missing_ok=True)


def finish(
    path: str, job: int, num_jobs: int, shards: list[str], dropped: Dropped, digest: str = ""
) -> int:
    """Write this job's part, and the whole list when no part of this digest is missing.

    Returns how many of these are there.
    """
    own = part_of(path, job, num_jobs)
    lines = []
    for key, reason in dropped.pairs:
        lines.append(f"{_on_one_line(key)}\t{reason}\n")
    # the list comes last: where it is, the rest is
    write_text(f"{own}.left_out", "".join(lines))
    if num_jobs == 1:
        write_list(own, shards)
        return 1
    write_list(own, [digest, *shards])

    there = {}
    for number in range(1, num_jobs + 1):
        part = part_of(path, number, num_jobs)
        if not Path(part).exists():
            continue
        first, *lines = Path(part).read_text(encoding="utf-8").splitlines() or [""]
        if first == digest:
            there[part] = lines
    if len(there) == num_jobs:
        _join(path, there)
    return len(there)


def _join(path: str, parts: dict[str, list[str]]) -> None:
    """Write the list of all parts, of which the shards are given, and what they have left out."""
    shards = []
    left_out = []
    for part, lines in parts.items():
        shards += lines
        beside = Path(f"{part}.left_out")
        left_out.append(beside.read_text(encoding="utf-8"))
    write_text(f"{path}.left_out", "".join(left_out))
    write_list(path, sorted(shards))


def _on_one_line(key: str) -> str:
    """Return a key that a text file can hold."""
    printable = key.encode("utf-8", "backslashreplace").decode()
    return " ".join(printable.split())


def read_shuffled(path: str, seed: int, dropped: Dropped) -> Iterator[Utterance]:
    """Yield the utterances of a manifest in an order drawn from ``seed``.

    They are read by seeking: eight bytes of memory per line.
    """
    with open(path, "rb") as lines:
        starts = _starts(lines)
        random.Random(seed).shuffle(starts)
        for start in starts:
            lines.seek(start)
            try:
                yield parse_line(lines.readline())
            except ValueError as error:
                reason = "manifest: " + reason_of(error)
                note(dropped, f"{path} byte {start}", reason)


def _starts(lines: BinaryIO) -> array:
    """Return where the lines begin that are not blank, bytes."""
    starts = array("q")
    at = 0
    for line in lines:
        if line.strip():
            starts.append(at)
        at += len(line)
    return starts
