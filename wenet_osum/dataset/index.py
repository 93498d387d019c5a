"""The index of a shard or raw list: what is in it and where.

So an epoch can be planned without reading audio.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wenet_osum import tasks
from wenet_osum.dataset.columns import Column, Texts, distinct
from wenet_osum.files import replaced
from wenet_osum.records import Utterance
from wenet_osum.tasks import Task

SUFFIX = ".index.npz"
_VERSION = 2  # raise it when what the file holds changes: older files are rebuilt


def column_names() -> tuple[str, ...]:
    """Name what an index says of each utterance: task, language, speaker, labels of known tasks."""
    return ("task", "lang", "speaker", *tasks.label_names())


# Columns of ``Index.turns``: earlier turns of a conversation; its recordings; ms of the longest;
# UTF-8 bytes of what the user's own words and the earlier answers hold.
TURNS, RECORDINGS, LONGEST_MS, SPOKEN_BYTES = range(4)
WORD_BYTES = 16  # what both times of a word add to its text


@dataclass
class Index:
    """One shard, or up to 1,000 lines of a raw list, as columns. Letter: n utterances."""

    path: str  # tar path, URL or pipe, or the raw list
    keys: np.ndarray | Texts  # (n,) str
    # (n,) int64, bytes: the first member's header in the tar, or the line in the raw list
    offsets: np.ndarray
    sizes: np.ndarray  # (n,) int64, bytes up to the end of the last member, or of the line
    durations: np.ndarray  # (n,) float32, s, of all recordings of an utterance
    # column_names() → (n,) str, "" = unknown; age as written, of a free text its UTF-8 bytes
    columns: dict[str, Column]
    # (n, 3) int32: UTF-8 bytes of txt, number of words with times, UTF-8 bytes of reply
    lengths: np.ndarray
    kind: str  # "tar" | "raw"
    # (n, 4) int32, see TURNS; None: no utterance has earlier turns or words of the user's own
    turns: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def column(self, name: str) -> Column:
        """Give a column, (n,) str.

        Raises ValueError when a task that needs it came after the index was loaded.
        """
        if name not in self.columns:
            why = "it was loaded before a task with this label was known; load the list again"
            raise ValueError(f"the index of {self.path} has no column {name!r}: {why}")
        return self.columns[name]

    def text_bytes(self, name: str) -> np.ndarray:
        """Give the UTF-8 bytes of a free text, (n,) int64; 0 where there is none."""
        values, place = distinct(self.column(name))
        sizes = [int(value or 0) for value in values]
        return np.array(sizes, dtype=np.int64)[place]

    def bytes_of_texts(self, task: Task) -> dict[str, np.ndarray]:
        """Give the same of each free text that a task asks for, by its name."""
        attributes = [part.attribute for part in task.fields]
        found = {}
        for name in tasks.free_texts(attributes):
            found[name] = self.text_bytes(name)
        return found

    def of_turns(self, column: int) -> np.ndarray:
        """Give a column of ``turns``, (n,) int64; zeros where there are none."""
        if self.turns is None:
            return np.zeros(len(self), dtype=np.int64)
        found = self.turns[:, column]
        return found.astype(np.int64)

    def recordings(self) -> np.ndarray:
        """Count the recordings of each utterance, (n,) int64."""
        counted = self.of_turns(RECORDINGS)
        return np.maximum(counted, 1)

    def longest(self) -> np.ndarray:
        """Give the duration of each utterance's longest recording, (n,) float32, s."""
        seconds = self.of_turns(LONGEST_MS) / 1000
        several = self.recordings() > 1
        longest = np.where(several, seconds, self.durations)
        return longest.astype(np.float32)

    def select(self, rows: np.ndarray | slice) -> Index:
        """Return the index of some of its utterances; ``rows`` is a mask, positions or a slice."""
        own = {
            name: getattr(self, name)[rows]
            for name in ("keys", "offsets", "sizes", "durations", "lengths")
        }
        if self.turns is not None:
            own["turns"] = self.turns[rows]
        return dataclasses.replace(
            self, **own, columns={k: v[rows] for k, v in self.columns.items()}
        )


def build(path: str, kind: str, rows: Iterable[tuple[Utterance, int, int, float]]) -> Index:
    """Build the index of rows (utterance, offset, size, duration in s)."""
    rows = list(rows)
    utterances = [r[0] for r in rows]
    columns = {}
    names = column_names()
    texts = tasks.free_texts(names)
    for name in names:
        values = [u.get(name) for u in utterances]
        if name in texts:
            values = [value and _bytes(str(value)) for value in values]
        cells = list(map(_cell, values))
        columns[name] = np.array(cells, dtype=np.str_)
    lengths = [
        (
            len((u.txt or "").encode()),
            len(u.words or ()),
            len((u.reply or "").encode()),
        )
        for u in utterances
    ]
    return Index(
        path=path,
        keys=np.array([u.key for u in utterances], dtype=np.str_),
        offsets=np.array([r[1] for r in rows], dtype=np.int64),
        sizes=np.array([r[2] for r in rows], dtype=np.int64),
        durations=np.array([r[3] for r in rows], dtype=np.float32),
        columns=columns,
        lengths=np.array(lengths, dtype=np.int32).reshape(-1, 3),
        kind=kind,
        turns=_turns(utterances),
    )


def _turns(utterances: list[Utterance]) -> np.ndarray | None:
    """Return ``Index.turns``; the recordings of conversations have their durations."""
    if not any(u.turns or u.prompt for u in utterances):
        return None
    rows = []
    for utterance in utterances:
        turns = utterance.turns or []
        recordings = utterance.recordings()
        longest = 0.0
        for one in recordings:
            longest = max(longest, one.duration or 0.0)
        spoken = _bytes(utterance.prompt)
        spoken += sum(map(_turn_bytes, turns))
        row = (
            len(turns),
            len(recordings),
            math.ceil(1000 * longest),
            spoken,
        )
        rows.append(row)
    return np.array(rows, dtype=np.int32)


def _turn_bytes(turn: Utterance) -> int:
    """Count the bytes that a turn's own words and its answer take."""
    size = _bytes(turn.prompt)
    if turn.task:
        words = turn.words or ()
        size += _bytes(turn.txt)
        size += _bytes(turn.reply)
        size += WORD_BYTES * len(words)
        for name in tasks.free_texts(turn.labels):
            size += _bytes(str(turn.labels[name]))
    return size


def _bytes(text: str | None) -> int:
    written = text or ""
    return len(written.encode())


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def save(
    index: Index,
    faults: list[tuple[str, str]],
    stamp: list[int],
    source: str = "",
    to: Path | str | None = None,
) -> bool:
    """Store an index beside its file; False where the folder is read-only.

    ``faults`` are the (key, reason) left out of it, ``stamp`` is [bytes, mtime_ns] of the file,
    ``source`` what a packer made it from.
    """
    target = Path(to or index.path + SUFFIX)
    names, known = [*index.columns], [*index.columns.values()]
    made = {"stamp": stamp, "source": source, "faults": faults}
    meta = json.dumps({"version": _VERSION, "kind": index.kind, "columns": names} | made)
    table = (
        np.stack(known)
        if len(index)
        else np.zeros(
            (len(names), 0),
            np.str_,
        )
    )
    turns = {} if index.turns is None else {"turns": index.turns}
    try:
        # Few arrays: each costs when a list of 50,000 shards is loaded.
        with replaced(target) as temporary, open(temporary, "wb") as out:
            places = np.stack([index.offsets, index.sizes])
            np.savez(
                out,
                meta=np.array(meta),
                keys=index.keys,
                places=places,
                durations=index.durations,
                columns=table,
                lengths=index.lengths,
                **turns,
            )
    except OSError:
        return False
    return True


class Stored(NamedTuple):
    """What a file holds: an index and what was known when it was made."""

    index: Index
    faults: list[tuple[str, str]]  # (key, reason) of what was left out
    source: str  # what a packer made the shard from
    stamp: list[int]  # [bytes, mtime_ns] of the shard; empty for addresses and programs


def restore(
    path: str, stamp: list[int] | None, file: Any = None, needed: Sequence[str] | None = None
) -> tuple[Index, list[tuple[str, str]], str] | None:
    """Load the index of ``path``: (index, faults, source).

    Gives None when ``read`` does, and when the file has changed since.
    """
    stored = read(path, file, needed)
    if stored is None or (stamp is not None and stored.stamp != stamp):
        return None
    return stored[:3]


def read(path: str, file: Any = None, needed: Sequence[str] | None = None) -> Stored | None:
    """Load the index of ``path`` with the stamp that its shard had.

    Gives None when there is none, it is damaged or of another version, or one of the columns
    ``needed`` is missing; default: all that the known tasks have. So the label of a task that was
    added later makes the index be built anew, and is never taken for unknown.
    """
    needed = column_names() if needed is None else needed
    try:
        with np.load(file or path + SUFFIX, allow_pickle=False) as stored:
            meta = json.loads(str(stored["meta"]))
            names = meta["columns"]
            if meta["version"] != _VERSION or not set(needed) <= set(names):
                return None
            places, table = stored["places"], stored["columns"]
            columns = {name: table[i] for i, name in enumerate(names)}
            arrays = (
                stored["keys"],
                places[0],
                places[1],
                stored["durations"],
                columns,
                stored["lengths"],
            )
            turns = stored["turns"] if "turns" in stored.files else None
            index = Index(path, *arrays, kind=meta["kind"], turns=turns)
            faults = [tuple(f) for f in meta["faults"]]
            return Stored(index, faults, meta["source"], meta["stamp"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def stamp_of(path: str | Path) -> list[int]:
    """Return [bytes, mtime_ns] of a file, which change with it."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns]
