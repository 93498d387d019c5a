"""Pack recordings into tar shards, each with its index.

A shard appears whole or not at all, and a second run goes on where the first stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.layout import LAYOUTS
from wenet_osum.dataset.manifest import from_row, reason_of, unique
from wenet_osum.dataset.packed import pack_conversation, pack_one
from wenet_osum.dataset.scan import located, scan_file
from wenet_osum.dataset.tar import END
from wenet_osum.progress import ProgressBar
from wenet_osum.records import Utterance

AHEAD = 2  # shards under way per process
Row = tuple[Utterance, int, int, float]  # of an index: utterance, first byte, bytes, s
Faults = list[tuple[str, str]]  # (key, reason) of what was left out


@dataclass
class Report:
    """The result of packing."""

    # tars in order; shards that would be empty are not written
    paths: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # utterances in each
    dropped: Dropped = field(default_factory=Dropped)  # utterances left out, by reason


@dataclass(frozen=True)
class _Job:
    """One shard to make."""

    path: str
    utterances: tuple[Utterance, ...]
    layout: str
    resample: int | None  # Hz
    checked: bool  # the utterances come from a reader that has checked them


class _Made(NamedTuple):
    """One shard that is there."""

    path: str
    count: int  # utterances in it
    faults: Faults


def pack(
    utterances: Iterable[Utterance],
    out_dir: str | Path,
    per_shard: int = 1000,
    prefix: str = "shards",
    layout: str = "json",
    jobs: int = 1,
    resample: int | None = None,
    log: Callable[[str], None] | None = None,
    part: tuple[int, int] = (1, 1),
    checked: bool = False,
    list_path: str = "",
) -> Report:
    """Pack utterances into ``out_dir/prefix_000000000.tar`` and so on, ``per_shard`` each.

    ``jobs`` processes do so. Audio is copied byte for byte unless a segment is cut out (bit-exact
    for integer samples) or ``resample`` (Hz) asks for another rate (then 16-bit mono WAV). Shards
    that an earlier run finished from the same input are kept. What cannot be packed is in the
    report's ``dropped``. ``log`` takes the lines of progress in place of stderr. Raises
    ValueError for bad arguments; a failed worker fails the call.

    ``part`` (n, m), counted from 1, makes every m-th shard only: m machines that are given the same
    utterances make the shards of one. What is left out before shards are made (a key that stands
    twice) is counted by part 1. Memory holds the keys and the shards under way, whatever the length
    of the input. ``checked``: the utterances come from ``read_manifest`` or ``read_kaldi`` and need
    no second look. Relative paths of recordings count as in a list at ``list_path``.
    """
    _check(per_shard, layout, jobs, resample, part)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    report = Report()
    total = len(utterances) if hasattr(utterances, "__len__") else None
    progress = ProgressBar(total, title="pack", log=log)

    number, parts = part
    twice = report.dropped if number == 1 else Dropped()
    chunks = _chunks(unique(utterances, twice), per_shard)
    mine = itertools.islice(enumerate(chunks), number - 1, None, parts)
    work = (
        _Job(
            str(folder / f"{prefix}_{i:09d}.tar"),
            tuple(located(chunk, list_path)),
            layout,
            resample,
            checked,
        )
        for i, chunk in mine
    )
    for made in _run(work, jobs):
        if made.count:
            report.paths.append(made.path)
            report.counts.append(made.count)
        for key, reason in made.faults:
            note(report.dropped, key, reason)
        progress.add(made.count + len(made.faults))
    progress.close()
    return report


def _check(
    per_shard: int, layout: str, jobs: int, resample: int | None, part: tuple[int, int]
) -> None:
    """Raise ValueError for arguments outside their ranges."""
    number, parts = part
    if not 1 <= number <= parts:
        raise ValueError(f"part {number} of {parts}: parts are counted from 1")
    slow = resample is not None and resample < 1000
    if layout in LAYOUTS and per_shard >= 1 and jobs >= 1 and not slow:
        return
    given = [
        f"layout {layout!r} (json or osum)",
        f"per_shard {per_shard} (≥ 1)",
        f"jobs {jobs} (≥ 1)",
        f"resample {resample} (Hz ≥ 1000)",
    ]
    faults = ", ".join(given)
    advice = "correct the one outside its range"
    raise ValueError(f"cannot pack with these arguments: {faults}; {advice}")


def _chunks(utterances: Iterator[Utterance], size: int) -> Iterator[list[Utterance]]:
    """Yield the utterances of each shard."""
    while chunk := list(itertools.islice(utterances, size)):
        yield chunk


def _run(work: Iterator[_Job], jobs: int) -> Iterator[_Made]:
    """Yield results in order.

    A few jobs are ahead at a time, so that an endless input does not fill the memory.
    """
    if jobs == 1:
        yield from map(_pack_shard, work)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = deque()
        for job in itertools.islice(work, AHEAD * jobs):
            waiting.append(pool.submit(_pack_shard, job))
        try:
            while waiting:
                yield waiting.popleft().result()
                for job in itertools.islice(work, 1):
                    waiting.append(pool.submit(_pack_shard, job))
        except BrokenProcessPool:
            told = "a packing process was killed, most likely for memory"
            advice = "finished shards are kept: run again with fewer jobs"
            raise ValueError(f"{told}; {advice}") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _pack_shard(job: _Job) -> _Made:
    """Make one shard, unless it is there."""
    lines = [utterance.to_dict() for utterance in job.utterances]
    source = _fingerprint(job, lines)
    if Path(job.path).is_file():
        # a task added since does not make the shard another one: reading builds its index anew
        done = indices.restore(job.path, indices.stamp_of(job.path), needed=())
        if done and done[2] == source:
            return _Made(job.path, len(done[0]), [])
    temporary = job.path + ".tmp"
    try:
        rows, faults = _write(temporary, job, lines)
        if rows:
            # a shard with losses is packed again: its input may be mended
            _publish(temporary, job, rows, "" if faults else source)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return _Made(job.path, len(rows), faults)


def _write(path: str, job: _Job, lines: list[dict]) -> tuple[list[Row], Faults]:
    """Write the tar. Returns what its index holds, and what was left out."""
    rows: list[Row] = []
    faults: Faults = []
    at = 0
    with open(path, "wb", buffering=0) as out:
        descriptor = out.fileno()
        for utterance, line in zip(job.utterances, lines, strict=True):
            try:
                parts, packed = _members(utterance, line, job)
            except Drop as drop:
                faults.append((utterance.key, drop.reason))
                continue
            size = sum(map(len, parts))
            _write_all(descriptor, parts, size)
            recordings = packed.recordings()
            seconds = sum(one.duration for one in recordings)
            rows.append((packed, at, size, seconds))
            at += size
        _write_all(descriptor, [END], len(END))
        os.fsync(descriptor)
    return rows, faults


def _write_all(descriptor: int, parts: list[bytes], size: int) -> None:
    """Write without joining: a copy of the audio less."""
    done = os.writev(descriptor, parts)
    if done == size:
        return
    # A write cut short, by a signal or a full disk, is gone on with; the next one says why.
    rest = memoryview(b"".join(parts))[done:]
    while rest:
        done = os.write(descriptor, rest)
        rest = rest[done:]


def _publish(temporary: str, job: _Job, rows: list[Row], source: str) -> None:
    """Give a finished tar its index and its name."""
    # What is in the tar is known. Only a composed target is read back, for it may hide a field.
    faults: Faults = []
    if job.layout == "json":
        index = indices.build(job.path, "tar", rows)
    else:
        index, faults = scan_file(temporary, job.path)
    whole = not faults and len(index) == len(rows)
    assert whole, f"{job.path}: what was packed cannot be read back: {faults[:3]}"

    # a rename keeps the time stamp
    stamp = indices.stamp_of(temporary)
    indices.save(index, faults, stamp, source, to=job.path + indices.SUFFIX)
    Path(temporary).replace(job.path)


def _fingerprint(job: _Job, lines: list[dict]) -> str:
    """Hash the manifest rows, the recordings' sizes and times, and the way of packing."""
    way = f"{job.layout} {job.resample}"
    digest = hashlib.sha1(way.encode())
    for line in lines:
        row = repr(line)
        digest.update(row.encode("utf-8", "surrogatepass"))
        earlier = line.get("turns", ())
        for turn in (line, *earlier):
            wav = turn.get("wav", "")
            with contextlib.suppress(OSError, ValueError):
                stamp = str(indices.stamp_of(wav))
                digest.update(stamp.encode())
    return digest.hexdigest()


def _members(utterance: Utterance, line: dict, job: _Job) -> tuple[list[bytes], Utterance]:
    """Return an utterance's members in pieces, and the utterance as they will be read.

    Raises Drop.
    """
    # what could not be read back is not written
    read_back = utterance
    if not job.checked:
        try:
            read_back = from_row(line)
        except ValueError as error:
            raise Drop("manifest: " + reason_of(error), str(error)) from None

    try:
        if utterance.turns:
            return pack_conversation(read_back, job.layout, job.resample)
        return pack_one(utterance, line, read_back, job.layout, job.resample)
    except UnicodeEncodeError as error:
        told = f"{ascii(utterance.key)}: {error.reason}"
        raise Drop("text is not valid Unicode", told) from None
