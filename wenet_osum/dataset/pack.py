"""Pack recordings into tar shards, each with its index: a shard appears whole or not at all, and a second run goes on where the first stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.audio import check_whole, convert, cut, read_duration
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.layout import LAYOUTS, write_members
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


def pack(
    utterances: Iterable[Utterance],
    out_dir: str | Path,
    per_shard: int = 1000,
    prefix: str = "shards",
    layout: str = "json",
    jobs: int = 1,
    resample: int | None = None,
    log: Callable[[str], None] | None = None,
) -> Report:
    """Pack utterances into ``out_dir/prefix_000000000.tar`` and so on, ``per_shard`` each, with ``jobs`` processes.

    Audio is copied byte for byte unless a segment is cut out (bit-exact for integer samples) or ``resample`` (Hz) asks for another rate
    (then 16-bit mono WAV). Shards that an earlier run finished from the same input are kept. What cannot be packed is in the report's
    ``dropped``. ``log`` gets a line of progress; default: stderr. Raises ValueError for bad arguments; a failed worker fails the call.
    """
    if layout not in LAYOUTS or per_shard < 1 or jobs < 1 or (resample is not None and resample < 1000):
        faults = f"layout {layout!r} (json or osum), per_shard {per_shard} (≥ 1), jobs {jobs} (≥ 1), resample {resample} (Hz ≥ 1000)"
        raise ValueError(f"cannot pack with these arguments: {faults}; correct the one outside its range")
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    report = Report()
    total = len(utterances) if hasattr(utterances, "__len__") else None
    progress = _Progress(total, log)
    chunks = _chunks(_unique(utterances, report.dropped), per_shard)
    work = (_Job(str(Path(out_dir) / f"{prefix}_{i:09d}.tar"), tuple(c), layout, resample) for i, c in enumerate(chunks))
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
    source = _fingerprint(job)
    if os.path.isfile(job.path):
        done = indices.restore(job.path, indices.stamp_of(job.path))
        if done and done[2] == source:
            return job.path, len(done[0]), [], True
    faults: list[tuple[str, str]] = []
    temporary = job.path + ".tmp"
    count = 0
    try:
        with open(temporary, "wb") as out:
            for utterance in job.utterances:
                try:
                    out.write(_members(utterance, job))
                    count += 1
                except Drop as drop:
                    faults.append((utterance.key, drop.reason))
            out.write(END)
            out.flush()
            os.fsync(out.fileno())
        if count:
            _publish(temporary, job.path, source if not faults else "")  # a shard with losses is packed again: its input may be mended
    finally:
        Path(temporary).unlink(missing_ok=True)
    return job.path, count, faults, False


def _publish(temporary: str, path: str, source: str) -> None:
    index, faults = scan_file(temporary, path)
    assert not faults, f"{path}: what was packed cannot be read back: {faults[:3]}"
    indices.save(index, faults, indices.stamp_of(temporary), source, to=path + indices.SUFFIX)  # a rename keeps the time stamp
    os.replace(temporary, path)


def _fingerprint(job: _Job) -> str:
    """Changes with the manifest rows, the recordings' sizes and times, and the way of packing."""
    digest = hashlib.sha1(f"{job.layout} {job.resample}".encode())
    for utterance in job.utterances:
        digest.update(utterance.to_json().encode("utf-8", "surrogatepass"))
        if os.path.exists(utterance.wav):
            digest.update(str(indices.stamp_of(utterance.wav)).encode())
    return digest.hexdigest()


def _members(utterance: Utterance, job: _Job) -> bytes:
    try:
        from_row(utterance.to_dict())  # what could not be read back is not written
    except ValueError as error:
        raise Drop("manifest: " + reason_of(error), str(error)) from None
    audio = recording(utterance, utterance.wav)
    check_whole(audio)
    audio = convert(audio, job.resample) if job.resample else audio
    packed = dataclasses.replace(utterance, start=None, end=None, duration=round(read_duration(audio), 4))
    try:
        return write_members(packed, audio, _extension(utterance.wav, audio), job.layout)
    except UnicodeEncodeError as error:
        raise Drop("text is not valid Unicode", f"{ascii(utterance.key)}: {error.reason}") from None


def recording(utterance: Utterance, path: str) -> bytes:
    """The bytes of a recording at a path or URL, the utterance's segment cut out where it has one. Raises Drop."""
    segment = utterance.start is not None or utterance.end is not None
    if is_url(path):
        audio = fetch(path)
        return cut(audio, utterance.start, utterance.end) if segment else audio
    try:
        return cut(path, utterance.start, utterance.end) if segment and os.stat(path) else Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, Drop):
            raise
        missing = isinstance(error, FileNotFoundError)
        raise Drop("audio: file not found" if missing else "audio: unreadable", f"{utterance.key!r}: {path}: {error}") from None


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
