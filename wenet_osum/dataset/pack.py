"""Pack recordings into tar shards, each with its index: a shard appears whole or not at all, and a second run goes on where the first stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.audio import convert, cut, read_duration, whole_duration
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.layout import LAYOUTS, member_parts
from wenet_osum.dataset.manifest import from_row, reason_of
from wenet_osum.dataset.remote import fetch, is_url
from wenet_osum.dataset.scan import scan_file
from wenet_osum.dataset.tar import AUDIO, END
from wenet_osum.records import Utterance

_MAGIC = ((b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"FORM", "aiff"), (b"NIST_1A", "sph"))


@dataclass
class Report:
    """What a packing made."""

    paths: list[str] = field(default_factory=list)  # tars in order; shards that would be empty are not written
    counts: list[int] = field(default_factory=list)  # utterances in each
    dropped: Dropped = field(default_factory=Dropped)  # utterances left out, by reason


@dataclass(frozen=True)
class _Job:
    path: str
    utterances: tuple[Utterance, ...]
    layout: str
    resample: int | None  # Hz
    checked: bool  # the utterances come from a reader that has checked them


Row = tuple[Utterance, int, int, float]  # of an index: utterance, first byte, bytes, s


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
) -> Report:
    """Pack utterances into ``out_dir/prefix_000000000.tar`` and so on, ``per_shard`` each, with ``jobs`` processes.

    Audio is copied byte for byte unless a segment is cut out (bit-exact for integer samples) or ``resample`` (Hz) asks for another rate
    (then 16-bit mono WAV). Shards that an earlier run finished from the same input are kept. What cannot be packed is in the report's
    ``dropped``. ``log`` gets a line of progress; default: stderr. Raises ValueError for bad arguments; a failed worker fails the call.

    ``part`` (n, m), counted from 1, makes every m-th shard only: m machines that are given the same utterances make the shards of one. What is left out
    before shards are made (a key that stands twice) is counted by part 1. Memory holds the keys and the shards under way, whatever the length of the input.
    ``checked``: the utterances come from ``read_manifest`` or ``read_kaldi`` and need no second look.
    """
    if not 1 <= part[0] <= part[1]:
        raise ValueError(f"part {part[0]} of {part[1]}: parts are counted from 1")
    if layout not in LAYOUTS or per_shard < 1 or jobs < 1 or (resample is not None and resample < 1000):
        faults = f"layout {layout!r} (json or osum), per_shard {per_shard} (≥ 1), jobs {jobs} (≥ 1), resample {resample} (Hz ≥ 1000)"
        raise ValueError(f"cannot pack with these arguments: {faults}; correct the one outside its range")
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    report = Report()
    total = len(utterances) if hasattr(utterances, "__len__") else None
    progress = _Progress(total, log)
    chunks = _chunks(_unique(utterances, report.dropped if part[0] == 1 else Dropped()), per_shard)
    mine = ((i, chunk) for i, chunk in enumerate(chunks) if i % part[1] == part[0] - 1)
    work = (_Job(str(Path(out_dir) / f"{prefix}_{i:09d}.tar"), tuple(chunk), layout, resample, checked) for i, chunk in mine)
    for path, count, faults, reused in _run(work, jobs):
        if count:
            report.paths.append(path)
            report.counts.append(count)
        for key, reason in faults:
            note(report.dropped, key, reason)
        progress.add(count + len(faults), reused)
    progress.close()
    return report


def _unique(utterances: Iterable[Utterance], dropped: Dropped) -> Iterator[Utterance]:
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.key in seen:
            note(dropped, utterance.key, "duplicate key")
            continue
        seen.add(utterance.key)
        yield utterance


def _chunks(utterances: Iterator[Utterance], size: int) -> Iterator[list[Utterance]]:
    while chunk := list(itertools.islice(utterances, size)):
        yield chunk


def _run(work: Iterator[_Job], jobs: int) -> Iterator[tuple]:
    """Results in order; a few jobs are ahead at a time, so that an endless input does not fill the memory."""
    if jobs == 1:
        yield from map(_pack_shard, work)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = deque(pool.submit(_pack_shard, job) for job in itertools.islice(work, 2 * jobs))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(_pack_shard, job) for job in itertools.islice(work, 1))
        except BrokenProcessPool:
            raise ValueError("a packing process was killed, most likely for memory; finished shards are kept: run again with fewer jobs") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _pack_shard(job: _Job) -> tuple[str, int, list[tuple[str, str]], bool]:
    """One shard: (path, utterances in it, (key, reason) left out, whether it was there already)."""
    lines = [utterance.to_dict() for utterance in job.utterances]
    source = _fingerprint(job, lines)
    if os.path.isfile(job.path):
        # a task added since does not make the shard another one: reading builds its index anew
        done = indices.restore(job.path, indices.stamp_of(job.path), needed=())
        if done and done[2] == source:
            return job.path, len(done[0]), [], True
    temporary = job.path + ".tmp"
    try:
        rows, faults = _write(temporary, job, lines)
        if rows:
            _publish(temporary, job, rows, source if not faults else "")  # a shard with losses is packed again: its input may be mended
    finally:
        Path(temporary).unlink(missing_ok=True)
    return job.path, len(rows), faults, False


def _write(path: str, job: _Job, lines: list[dict]) -> tuple[list[Row], list[tuple[str, str]]]:
    """Write the tar; gives what its index holds, and (key, reason) of what was left out."""
    rows: list[Row] = []
    faults: list[tuple[str, str]] = []
    at = 0
    with open(path, "wb", buffering=0) as out:
        for utterance, line in zip(job.utterances, lines, strict=True):
            try:
                parts, packed = _members(utterance, line, job)
            except Drop as drop:
                faults.append((utterance.key, drop.reason))
                continue
            size = sum(map(len, parts))
            _write_all(out.fileno(), parts, size)
            rows.append((packed, at, size, packed.duration))
            at += size
        _write_all(out.fileno(), [END], len(END))
        os.fsync(out.fileno())
    return rows, faults


def _write_all(descriptor: int, parts: list[bytes], size: int) -> None:
    """Write without joining: a copy of the audio less. A write cut short, by a signal or a full disk, is gone on with; the next one says why."""
    done = os.writev(descriptor, parts)
    rest = memoryview(b"".join(parts) if done < size else b"")[done:]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _publish(temporary: str, job: _Job, rows: list[Row], source: str) -> None:
    if job.layout == "json":  # what is in the tar is known; a composed target is read back, for it may hide a field
        index, faults = indices.build(job.path, "tar", rows), []
    else:
        index, faults = scan_file(temporary, job.path)
    assert not faults and len(index) == len(rows), f"{job.path}: what was packed cannot be read back: {faults[:3]}"
    indices.save(index, faults, indices.stamp_of(temporary), source, to=job.path + indices.SUFFIX)  # a rename keeps the time stamp
    os.replace(temporary, job.path)


def _fingerprint(job: _Job, lines: list[dict]) -> str:
    """Changes with the manifest rows, the recordings' sizes and times, and the way of packing."""
    digest = hashlib.sha1(f"{job.layout} {job.resample}".encode())
    for line in lines:
        digest.update(repr(line).encode("utf-8", "surrogatepass"))
        with contextlib.suppress(OSError, ValueError):
            digest.update(str(indices.stamp_of(line["wav"])).encode())
    return digest.hexdigest()


def _members(utterance: Utterance, line: dict, job: _Job) -> tuple[list[bytes], Utterance]:
    """The members of an utterance in pieces, and the utterance as they will be read. Raises Drop."""
    try:
        checked = utterance if job.checked else from_row(line)  # what could not be read back is not written
    except ValueError as error:
        raise Drop("manifest: " + reason_of(error), str(error)) from None
    audio = recording(utterance, utterance.wav)
    seconds = whole_duration(audio)
    if job.resample:
        audio = convert(audio, job.resample)
        seconds = read_duration(audio)
    changes = {"start": None, "end": None, "duration": round(seconds, 4)}
    packed = dataclasses.replace(utterance, **changes)
    try:
        row = {k: v for k, v in line.items() if k != "extra"} | {"duration": changes["duration"]}
        row |= {"extra": line["extra"]} if "extra" in line else {}  # last, as in every row
        parts = member_parts(packed, audio, _extension(utterance.wav, audio), job.layout, row)
    except UnicodeEncodeError as error:
        raise Drop("text is not valid Unicode", f"{ascii(utterance.key)}: {error.reason}") from None
    return parts, packed if job.checked else dataclasses.replace(checked, **changes)


def recording(utterance: Utterance, path: str) -> bytes:
    """The bytes of a recording at a path or URL, the utterance's segment cut out where it has one. Raises Drop."""
    segment = utterance.start is not None or utterance.end is not None
    if is_url(path):
        audio = fetch(path)
        return cut(audio, utterance.start, utterance.end) if segment else audio
    try:
        return cut(path, utterance.start, utterance.end) if segment and os.stat(path) else _read_file(path)
    except (OSError, ValueError) as error:
        if isinstance(error, Drop):
            raise
        missing = isinstance(error, FileNotFoundError)
        raise Drop("audio: file not found" if missing else "audio: unreadable", f"{utterance.key!r}: {path}: {error}") from None


def _read_file(path: str) -> bytes:
    """The file's bytes with three system calls."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):  # beyond 2 GiB the system reads in pieces
            data += more
        return data
    finally:
        os.close(descriptor)


def _extension(wav: str, audio: bytes) -> str:
    """By content first: files are often named for what they once were."""
    by_content = next((ext for magic, ext in _MAGIC if audio.startswith(magic)), None)
    by_name = wav.rpartition(".")[2].lower()
    return by_content or (by_name if by_name in AUDIO else "wav")


class _Progress:
    """Utterances, rate and time left: one line rewritten on a terminal, a plain line every 10 s elsewhere."""

    def __init__(self, total: int | None, log: Callable[[str], None] | None):
        self.total, self.done, self.log = total, 0, log
        self.started = self.shown = time.monotonic()
        self.live = log is None and sys.stderr.isatty()

    def add(self, count: int, reused: bool) -> None:
        """Count utterances of a finished shard."""
        self.done += count
        if self.live or time.monotonic() - self.shown >= 10:
            self._show("\r" if self.live else "")

    def close(self) -> None:
        """Print the last line."""
        self._show("\r" if self.live else "", "\n")

    def _show(self, begin: str = "", end: str = "") -> None:
        self.shown = time.monotonic()
        rate = self.done / max(self.shown - self.started, 1e-6)
        left = f", {(self.total - self.done) / max(rate, 1e-6):.0f} s left" if self.total and self.done < self.total else ""
        line = f"packed {self.done}{f' of {self.total}' if self.total else ''} utterances, {rate:.0f}/s{left}"
        if self.log:
            self.log(line)
        else:
            print(f"{begin}{line}", end=end or ("" if self.live else "\n"), file=sys.stderr, flush=True)
