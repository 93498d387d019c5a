"""States of a frozen encoder on disk: computed once, read in every epoch (``features: encoded``).

    <dir>/<fingerprint>/key.json            what the states depend on beside the audio
    <dir>/<fingerprint>/part-<name>/states.bin   states of many utterances, end to end
    <dir>/<fingerprint>/part-<name>/index.npz    whose they are, and where

The fingerprint is a hash of key.json: other weights or settings have a folder of their own, so no
state is ever read that they did not make. Inside it an utterance is known by a digest of the bytes
of its audio, not by its path: audio that changes is not found, and computed again.

A part is written under another name and renamed when it is whole. Nobody changes a part, so any
number of processes may read and write one folder; what two compute at once is there twice.

Letters: n utterances of a part, R states of a part, D width.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wenet_osum.dataset.drop import Drop

COLUMNS = {
    "digests": np.uint64,  # (n, 2), the digest as two numbers
    "first": np.int64,  # where the states begin, rows
    "rows": np.int32,  # states on disk, with those of silence behind the speech
    "length": np.int32,  # states of the speech
    "source_s": np.float64,  # duration as recorded, s
    "audio_s": np.float64,  # after a change of speed, s
    "speed": np.float64,  # factor
}
STATES, INDEX, TEMPORARY = "states.bin", "index.npz", ".tmp"
STALE_S = 3600.0  # a half-written part that nobody has touched for so long has lost its writer


class Encoded(NamedTuple):
    """What is kept of an utterance, or of one of its augmented versions."""

    states: np.ndarray  # (rows, D)
    length: int  # states of the speech; the others are of silence behind it
    source_s: float  # duration as recorded, s
    audio_s: float  # after a change of speed, s
    speed: float  # factor


@dataclass(frozen=True)
class Layout:
    """The shape of what is kept."""

    after: int  # layers of the encoder below the states
    width: int  # channels
    dtype: str  # float16 or float32
    min_rows: int = 0  # states kept of an utterance at least
    states_a_second: float = 50.0

    @property
    def row_bytes(self) -> int:
        """Bytes of one state."""
        return self.width * np.dtype(self.dtype).itemsize

    def bytes_of(self, seconds: np.ndarray) -> int:
        """Bytes of utterances of so many seconds (n,), about."""
        rows = np.ceil(seconds * self.states_a_second).clip(min=self.min_rows)
        return int(rows.sum()) * self.row_bytes


class StateStore:
    """One folder of states, by digest. It may be opened before anything is in it."""

    def __init__(
        self,
        root: str | Path,
        key: dict[str, Any],
        layout: Layout,
        variants: int = 1,
        recipe: str = "",
    ) -> None:
        """``key`` is all that states depend on beside the audio; ``recipe`` says how ``variants``
        of an utterance are drawn (empty: nothing is drawn).
        """
        self.layout, self.variants, self.recipe = layout, variants, recipe
        text = json.dumps(
            key | {"dtype": layout.dtype},
            sort_keys=True,
            indent=1,
        )
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.folder = Path(root) / self.fingerprint
        self._key = text
        self.refresh()

    def make_folder(self) -> None:
        """Create the folder with its key, and remove what killed writers have left in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        named = self.folder / f"key.json.{uuid.uuid4().hex}"
        named.write_text(self._key + "\n", encoding="utf-8")
        os.replace(named, self.folder / "key.json")
        for left in self.folder.glob(f"*{TEMPORARY}"):
            if time.time() - _last_change(left) > STALE_S:
                shutil.rmtree(left, ignore_errors=True)

    def refresh(self) -> None:
        """Read the indices of all parts that are there now."""
        there = sorted(self.folder.glob(f"part-*/{INDEX}"))
        self._parts = [path for path in there if path.parent.suffix != TEMPORARY]
        self._maps: dict[int, np.ndarray] = {}
        columns = [_read_index(path) for path in self._parts]
        together = columns or [{name: _empty(name) for name in COLUMNS}]
        joined = {}
        for name in COLUMNS:
            joined[name] = np.concatenate([part[name] for part in together])
        part = np.repeat(
            np.arange(len(columns)),
            [len(part["rows"]) for part in columns],
        )
        order = np.lexsort(joined["digests"].T[::-1])
        self._columns = {name: values[order] for name, values in joined.items()}
        self._part = (
            part[order]
            if len(columns)
            else np.empty(
                0,
                dtype=np.int64,
            )
        )
        self._high = np.ascontiguousarray(self._columns["digests"][:, 0])

    def __len__(self) -> int:
        return len(self._high)

    def digest(self, data: bytes, key: str = "", variant: int | None = None) -> bytes:
        """Name the states of an audio file's bytes, 16 bytes.

        Version ``variant`` of the utterance ``key`` has another name than the audio as it is
        (None), and so has another recipe.
        """
        hashed = hashlib.blake2b(data, digest_size=16)
        if variant is not None and self.recipe:
            hashed.update(
                f"|{self.recipe}|{variant}|{key}".encode(
                    "utf-8",
                    "surrogatepass",
                )
            )
        return hashed.digest()

    def variant(self, epoch: int, repeat: int) -> int:
        """Choose the version for an epoch, and for a further draw in the same epoch the next."""
        return (epoch + repeat) % self.variants

    def __contains__(self, digest: bytes) -> bool:
        return self._find(digest) is not None

    def _find(self, digest: bytes) -> int | None:
        high, low = np.frombuffer(digest, dtype=np.uint64)
        at = int(np.searchsorted(self._high, high))
        while at < len(self) and self._high[at] == high:
            if self._columns["digests"][at, 1] == low:
                return at
            at += 1
        return None

    def read(self, digest: bytes) -> Encoded:
        """Bring what is kept under a digest. Raises Drop when there is nothing."""
        at = self._find(digest)
        if at is None:
            why = "its audio has changed since the run began; start it again"
            raise Drop("states: not on disk", f"{self.folder}: {why}")
        row = {name: self._columns[name][at] for name in COLUMNS}
        first, rows = int(row["first"]), int(row["rows"])
        states = np.array(self._map(int(self._part[at]))[first : first + rows])
        times = (
            float(row[name])
            for name in (
                "source_s",
                "audio_s",
                "speed",
            )
        )
        return Encoded(states, int(row["length"]), *times)

    def _map(self, part: int) -> np.ndarray:
        """States (R, D) of a part, mapped into memory."""
        if part not in self._maps:
            path = self._parts[part].with_name(STATES)
            flat = np.memmap(path, dtype=self.layout.dtype, mode="r")
            self._maps[part] = flat.reshape(
                -1,
                self.layout.width,
            )
        return self._maps[part]

    def check_room(self, needed: int) -> str:
        """Say how many bytes are needed and free. Raises ValueError when the disk has less."""
        free = shutil.disk_usage(self.folder).free
        there = f"{self.folder}, where {free / 1e9:.3g} GB are free"
        said = f"{needed / 1e9:.3g} GB of states in {there}"
        if needed > free:
            raise ValueError(
                f"features: encoded needs {said}; make room, set cache.dir to a larger disk, "
                "or cache.dtype: float16, or fewer cache.variants"
            )
        return said


class PartWriter:
    """Writes one part after the other; each is there for readers once ``close`` has named it."""

    def __init__(self, store: StateStore) -> None:
        self.folder, self.layout = store.folder, store.layout
        self._path: Path | None = None

    def add(self, digest: bytes, encoded: Encoded) -> None:
        """Append an utterance.

        Raises ValueError when the disk is full, and for states that the dtype cannot hold.
        """
        states = _narrow(encoded.states, self.layout.dtype)
        try:
            if self._path is None:
                self._open()
            self._file.write(states.tobytes())
        except OSError as error:
            raise self._fault(error) from None
        numbers = (encoded.length, encoded.source_s, encoded.audio_s, encoded.speed)
        name = np.frombuffer(digest, dtype=np.uint64)
        self._rows.append(
            (
                name,
                self._end,
                len(states),
                *numbers,
            )
        )
        self._end += len(states)

    @property
    def size(self) -> int:
        """Bytes of states in the open part."""
        return 0 if self._path is None else self._end * self.layout.row_bytes

    def _open(self) -> None:
        self._rows: list[tuple] = []
        self._end = 0
        self._path = self.folder / f"part-{uuid.uuid4().hex}{TEMPORARY}"
        self._path.mkdir()
        self._file = open(self._path / STATES, "wb")

    def close(self) -> None:
        """Name the open part, if there is one. Raises ValueError when the disk is full."""
        if self._path is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            columns = zip(*self._rows, strict=True)
            typed = zip(COLUMNS.items(), columns, strict=True)
            arrays = {
                name: np.array(
                    values,
                    dtype=dtype,
                )
                for (name, dtype), values in typed
            }
            np.savez(self._path / INDEX, **arrays)
            os.replace(self._path, self._path.with_suffix(""))
        except OSError as error:
            raise self._fault(error) from None
        self._path = None

    def _fault(self, error: OSError) -> ValueError:
        """Take away the open part, which cannot be ended, and say what was wrong."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None
        return ValueError(
            f"features: encoded: cannot write to {self.folder} ({error.strerror}); what was "
            "written before is kept: make room, or set cache.dir to a larger disk, and start again"
        )


def _narrow(states: np.ndarray, dtype: str) -> np.ndarray:
    """The states in ``dtype``. Raises ValueError when they are not finite in it."""
    with np.errstate(over="ignore"):
        narrow = states.astype(dtype)
    if not np.isfinite(narrow).all():
        largest = float(np.abs(states).max())
        raise ValueError(
            f"features: encoded: a state of size {largest:.3g} does not fit {dtype}; "
            "set cache.dtype: float32"
        )
    return narrow


def _read_index(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as columns:
        return dict(columns)


def _empty(name: str) -> np.ndarray:
    return np.empty(
        (0, 2) if name == "digests" else 0,
        dtype=COLUMNS[name],
    )


def _last_change(folder: Path) -> float:
    """Time at which a folder or a file in it was last written, s; now, when it is gone."""
    try:
        return max(
            path.stat().st_mtime
            for path in (
                folder,
                *folder.iterdir(),
            )
        )
    except OSError:
        return time.time()
