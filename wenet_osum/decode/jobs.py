"""The utterances of a list as jobs, and jobs in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from wenet_osum.dataset import shard
from wenet_osum.dataset.drop import Drop, Dropped
from wenet_osum.dataset.manifest import parse_line
from wenet_osum.dataset.remote import is_url
from wenet_osum.dataset.scan import find, line_key
from wenet_osum.decode import longform
from wenet_osum.records import FRAME_S, Utterance

# An utterance with its audio: a whole file's bytes, or a path; of a conversation the bytes of each.
Source = tuple[Utterance, bytes | Path | list[bytes]]


@dataclass
class Job:
    """One utterance of the list."""

    # its place in the list
    index: int
    key: str
    seconds: float
    # raises Drop for what cannot be read
    read: Callable[[], Source]
    # what was found wrong with it before reading
    error: str | None = None
    # of a conversation: how many recordings it has, and the longest of them, s
    recordings: int = 1
    longest_s: float = 0.0

    @property
    def padded_s(self) -> float:
        """Return the seconds that each of its recordings is padded to, if it is alone."""
        return self.longest_s or self.seconds

    def is_long(self, whole_s: float) -> bool:
        """Tell whether it is decoded in pieces, which a conversation never is."""
        return self.seconds > whole_s and self.recordings == 1


def read_list(path: str | Path) -> tuple[list[Job], Dropped]:
    """Read the jobs of a list of shards or a raw list, in its order, and what was wrong with it.

    A line that cannot be used is a job with an error; a key that stood before in the list is only
    counted, for answers go by key.
    """
    dropped = Dropped()
    try:
        indices = shard.load_list(path, dropped)
    except ValueError:
        if not dropped.pairs:
            raise
        indices = []

    handles = shard.Handles()
    jobs = []
    for index in indices:
        recordings = index.recordings()
        longest = index.longest()
        for i in range(len(index)):
            key = str(index.keys[i])
            seconds = float(index.durations[i])
            job = Job(0, key, seconds, _reader(index, i, handles))
            job.recordings = int(recordings[i])
            job.longest_s = float(longest[i])
            jobs.append(job)

    faults = [(key, reason) for key, reason in dropped.pairs if reason != "duplicate key"]
    for key, reason in faults:
        jobs.append(Job(0, key, 0.0, _unreadable, error=reason))

    # In a raw list, what cannot be used stands at its own place.
    if faults and shard.list_paths(str(path)) is None:
        order = _line_numbers(str(path))
        jobs.sort(key=lambda job: order.get(job.key, len(order)))
    for place, job in enumerate(jobs):
        job.index = place
    return jobs, dropped


def _reader(index: shard.Index, i: int, handles: shard.Handles) -> Callable[[], Source]:
    """Make what reads row ``i`` of an index. Long recordings of raw lists are not read whole."""

    def read() -> Source:
        is_long = float(index.durations[i]) > longform.WHOLE_S
        if index.kind == "raw" and is_long:
            line = handles.read(index.path, int(index.offsets[i]), int(index.sizes[i]))
            utterance = parse_line(line)
            has_file = not is_url(utterance.wav)
            if has_file and not utterance.turns:
                wav = find(utterance.wav, index.path)
                return utterance, Path(wav)
        # What there is of a segment is answered, and flagged.
        return shard.read_utterance(index, i, handles, whole=False)

    return read


def _unreadable() -> Source:
    raise Drop("cannot be read")


def _line_numbers(path: str) -> dict[str, int]:
    """Map the keys of a raw list to their lines.

    A line without a readable key goes by the name its fault has.
    """
    order: dict[str, int] = {}
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            name = line_key(path, number)
            order.setdefault(name, number)
            try:
                key = parse_line(line).key
            except ValueError:
                continue
            order.setdefault(key, number)
    return order


def group_jobs(
    jobs: Iterable[Job], batch_size: int, max_frames: int, whole_s: float = longform.WHOLE_S
) -> list[list[Job]]:
    """Make batches of jobs of similar length, longest first.

    A batch has at most ``batch_size`` utterances and ``max_frames`` frames, padding included. What
    is longer than ``whole_s`` is a batch alone: of its pieces.
    """
    groups: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: (-job.padded_s, job.index)):
        if not groups or not _fits(job, groups[-1], batch_size, max_frames, whole_s):
            groups.append([])
        groups[-1].append(job)
    return groups


def _fits(job: Job, group: list[Job], batch_size: int, max_frames: int, whole_s: float) -> bool:
    """Return whether a job may join a group, none of whose jobs is shorter."""
    # The longest stands first, and all are padded to its length.
    longest_s = group[0].padded_s
    if longest_s > whole_s or len(group) == batch_size:
        return False
    recordings = job.recordings
    recordings += sum(one.recordings for one in group)
    frames = recordings * longest_s / FRAME_S
    return frames <= max_frames
