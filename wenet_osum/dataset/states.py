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
from typing import Any, BinaryIO, NamedTuple

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
    """The stored states of an utterance, or of one of its augmented versions."""

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
        """Return the bytes of one state."""
        return self.width * np.dtype(self.dtype).itemsize

    def bytes_of(self, seconds: np.ndarray) -> int:
        """Return the bytes of utterances of so many seconds (n,), about."""
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
        """Open the folder of ``key``, which is all that states depend on beside the audio.

        ``recipe`` says how ``variants`` of an utterance are drawn (empty: nothing is drawn).
        """
        self.layout = layout
        self.variants = variants
        self.recipe = recipe
        whole = key | {"dtype": layout.dtype}
        self._key = json.dumps(whole, sort_keys=True, indent=1)
        hashed = hashlib.blake2b(self._key.encode(), digest_size=8)
        self.fingerprint = hashed.hexdigest()
        self.folder = Path(root) / self.fingerprint
        self._catalog = _read_catalog(self.folder)
        self._maps: dict[int, np.ndarray] = {}  # parts that have been read from, by number

    def make_folder(self) -> None:
        """Create the folder with its key, and remove what killed writers have left in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        named = self.folder / f"key.json.{uuid.uuid4().hex}"
        named.write_text(self._key + "\n", encoding="utf-8")
        named.replace(self.folder / "key.json")

        now = time.time()
        for left in self.folder.glob(f"*{TEMPORARY}"):
            untouched_s = now - _last_change(left)
            if untouched_s > STALE_S:
                shutil.rmtree(left, ignore_errors=True)

    def refresh(self) -> None:
        """Read the indices of all parts that are there now."""
        self._catalog = _read_catalog(self.folder)
        self._maps = {}

    def __len__(self) -> int:
        return len(self._catalog.high)

    def digest(self, data: bytes, key: str = "", variant: int | None = None) -> bytes:
        """Name the states of an audio file's bytes, 16 bytes.

        Version ``variant`` of the utterance ``key`` has another name than the audio as it is
        (None), and so has another recipe.
        """
        hashed = hashlib.blake2b(data, digest_size=16)
        if variant is not None and self.recipe:
            version = f"|{self.recipe}|{variant}|{key}"
            hashed.update(version.encode("utf-8", "surrogatepass"))
        return hashed.digest()

    def variant(self, epoch: int, repeat: int) -> int:
        """Choose the version for an epoch, and for a further draw in the same epoch the next."""
        return (epoch + repeat) % self.variants

    def __contains__(self, digest: bytes) -> bool:
        return self._find(digest) is not None

    def _find(self, digest: bytes) -> int | None:
        """Return the row of a digest; None: there is none."""
        high, low = np.frombuffer(digest, dtype=np.uint64)
        catalog = self._catalog
        digests = catalog.columns["digests"]
        # rows are in the order of the first half; several may share it
        row = int(np.searchsorted(catalog.high, high))
        while row < len(self) and catalog.high[row] == high:
            if digests[row, 1] == low:
                return row
            row += 1
        return None

    def read(self, digest: bytes) -> Encoded:
        """Bring what is kept under a digest. Raises Drop when there is nothing."""
        row = self._find(digest)
        if row is None:
            why = "its audio has changed since the run began; start it again"
            raise Drop("states: not on disk", f"{self.folder}: {why}")
        kept = {}
        for name, values in self._catalog.columns.items():
            kept[name] = values[row]
        first = int(kept["first"])
        end = first + int(kept["rows"])
        part = int(self._catalog.part[row])
        return Encoded(
            states=np.array(self._map(part)[first:end]),
            length=int(kept["length"]),
            source_s=float(kept["source_s"]),
            audio_s=float(kept["audio_s"]),
            speed=float(kept["speed"]),
        )

    def _map(self, part: int) -> np.ndarray:
        """Return the states (R, D) of a part, mapped into memory."""
        if part not in self._maps:
            path = self._catalog.paths[part].with_name(STATES)
            flat = np.memmap(path, dtype=self.layout.dtype, mode="r")
            self._maps[part] = flat.reshape(-1, self.layout.width)
        return self._maps[part]

    def check_room(self, needed: int) -> str:
        """Say how many bytes are needed and free. Raises ValueError when the disk has less."""
        free = shutil.disk_usage(self.folder).free
        free_gb, needed_gb = free / 1e9, needed / 1e9
        there = f"{self.folder}, where {free_gb:.3g} GB are free"
        said = f"{needed_gb:.3g} GB of states in {there}"
        if needed > free:
            raise ValueError(
                f"features: encoded needs {said}; make room, set cache.dir to a larger disk, "
                "or cache.dtype: float16, or fewer cache.variants"
            )
        return said


class PartWriter:
    """Writes one part after the other; each is there for readers once ``close`` has named it."""

    def __init__(self, store: StateStore) -> None:
        self.folder = store.folder
        self.layout = store.layout
        # the open part: its folder, its file, the rows of its index and the states in it
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._rows: list[tuple] = []
        self._end = 0

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
        # in the order of COLUMNS
        row = (
            np.frombuffer(digest, dtype=np.uint64),
            self._end,
            len(states),
            encoded.length,
            encoded.source_s,
            encoded.audio_s,
            encoded.speed,
        )
        self._rows.append(row)
        self._end += len(states)

    @property
    def size(self) -> int:
        """Return the bytes of states in the open part."""
        if self._path is None:
            return 0
        return self._end * self.layout.row_bytes

    def _open(self) -> None:
        """Begin a part, under a name that no reader takes."""
        self._rows = []
        self._end = 0
        name = f"part-{uuid.uuid4().hex}{TEMPORARY}"
        self._path = self.folder / name
        self._path.mkdir()
        # close ends it
        path = self._path / STATES
        self._file = open(path, "wb")  # noqa: SIM115

    def close(self) -> None:
        """Name the open part, if there is one. Raises ValueError when the disk is full."""
        if self._path is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            np.savez(self._path / INDEX, **_columns_of(self._rows))
            whole = self._path.with_suffix("")
            self._path.replace(whole)
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
    """Return the states in ``dtype``. Raises ValueError when they are not finite in it."""
    with np.errstate(over="ignore"):
        narrow = states.astype(dtype)
    if not np.isfinite(narrow).all():
        largest = float(np.abs(states).max())
        raise ValueError(
            f"features: encoded: a state of size {largest:.3g} does not fit {dtype}; "
            "set cache.dtype: float32"
        )
    return narrow


def _columns_of(rows: list[tuple]) -> dict[str, np.ndarray]:
    """Turn the rows of an index into its columns."""
    columns = {}
    values = zip(*rows, strict=True)
    for name, column in zip(COLUMNS, values, strict=True):
        columns[name] = np.array(column, dtype=COLUMNS[name])
    return columns


class _Catalog(NamedTuple):
    """The contents of all parts of a folder, in the order of digests. Letter: n utterances."""

    paths: list[Path]  # of the parts' indices
    columns: dict[str, np.ndarray]  # COLUMNS, (n, …)
    part: np.ndarray  # (n,) int64, the number of its part
    high: np.ndarray  # (n,) uint64, the first half of its digest


def _read_catalog(folder: Path) -> _Catalog:
    """Read the indices of all parts that are whole."""
    paths = []
    for path in sorted(folder.glob(f"part-*/{INDEX}")):
        if path.parent.suffix != TEMPORARY:
            paths.append(path)

    # an empty part first, so that there is something to join
    nothing = {name: _empty(name) for name in COLUMNS}
    parts = [nothing, *map(_read_index, paths)]
    joined = {}
    for name in COLUMNS:
        joined[name] = np.concatenate([part[name] for part in parts])
    sizes = [len(part["rows"]) for part in parts[1:]]
    numbers = np.arange(len(paths))
    part = np.repeat(numbers, sizes)

    # by the first half of the digest, then by the second
    high, low = joined["digests"].T
    order = np.lexsort((low, high))
    columns = {}
    for name, values in joined.items():
        columns[name] = values[order]
    first_half = np.ascontiguousarray(columns["digests"][:, 0])
    return _Catalog(paths, columns, part[order], first_half)


def _read_index(path: Path) -> dict[str, np.ndarray]:
    """Read the index of a part."""
    with np.load(path) as columns:
        return dict(columns)


def _empty(name: str) -> np.ndarray:
    """Return a column of no utterances."""
    shape = (0, 2) if name == "digests" else 0
    return np.empty(shape, dtype=COLUMNS[name])


def _last_change(folder: Path) -> float:
    """Return when a folder or a file in it was last written, s; now, when it is gone."""
    try:
        times = [folder.stat().st_mtime]
        for path in folder.iterdir():
            times.append(path.stat().st_mtime)
        return max(times)
    except OSError:
        return time.time()
