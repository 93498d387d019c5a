"""The indices of all shards of a list in one file, which every process of a machine maps.

    magic │ block, block, … │ tables │ header (JSON) │ where the header lies

A block is what ``Index`` holds of one shard, column after column, each in the smallest type that
fits; labels are numbers into tables of the list. A mapped file lies in memory once, however many
ranks and data processes read it, and pages that nobody reads are not there at all: keys are needed
only for utterances that are drawn.

Letters: n utterances of a block, B blocks, S shards of the list.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from wenet_osum.dataset.columns import Coded, distinct, join, narrow, split
from wenet_osum.dataset.drop import note
from wenet_osum.dataset.index import Index

MAGIC = b"wenet_osum list\n"
VERSION = 1  # raise it when what the file holds changes: older files are written anew
OPEN_BLOCKS = 64  # indices of shards kept at hand
# columns of a block beside the labels, with their widths
PARTS = ("blob", "ends", "offsets", "sizes", "durations", "lengths", "turns")
WIDTHS = {"lengths": 3, "turns": 4}
# what an Index has them as
WIDENED = {"offsets": np.int64, "sizes": np.int64, "lengths": np.int32, "turns": np.int32}
TYPES = ("none", "uint8", "uint16", "uint32", "uint64", "int64", "float32")
ALIGNED = 8  # bytes: where arrays begin
END = struct.Struct("<QQ16s")  # first byte and size of the header, magic
DUPLICATE = "duplicate key"  # a reason


class Block(NamedTuple):
    """What is written of one Index."""

    rows: int
    parts: dict[str, np.ndarray]  # PARTS → array
    labels: dict[str, tuple[list[str], np.ndarray]]  # column → values, place among them (n,)


def make_block(index: Index, columns: Sequence[str]) -> Block:
    """Put an index into the form in which it is written."""
    blob, ends = join(index.keys)
    parts = {
        "blob": blob,
        "ends": narrow(ends),
        "durations": index.durations,
    }
    for name in ("offsets", "sizes", "lengths"):
        parts[name] = narrow(getattr(index, name))
    if index.turns is not None:
        parts["turns"] = narrow(index.turns)
    labels = {}
    for name in columns:
        values, place = distinct(index.column(name))
        labels[name] = (values, narrow(place))
    return Block(len(index), parts, labels)


class Writer:
    """Write a file block by block, so that memory holds little beside the tables."""

    def __init__(self, out: BinaryIO, columns: Sequence[str]) -> None:
        self.out = out
        self.columns = columns
        self.tables: dict[str, dict[str, int]] = {name: {} for name in columns}
        self.places: list[list[int]] = []  # of a block: where its arrays begin
        self.types: list[list[int]] = []  # numbers in TYPES
        self.rows: list[int] = []
        self.shards: list[int] = []
        self.end: int | None = None  # of the blocks
        out.write(MAGIC)

    def add(self, block: Block, shard: int) -> None:
        """Write a block of shard number ``shard``."""
        arrays = [block.parts.get(name) for name in PARTS]
        for name in self.columns:
            values, place = block.labels[name]
            table = self.tables[name]
            codes = [
                table.setdefault(
                    value,
                    len(table),
                )
                for value in values
            ]
            of_value = np.array(codes, dtype=np.int64)
            arrays.append(narrow(of_value[place]))
        self.places.append([self._write(array) for array in arrays])
        self.types.append([TYPES.index(_type_name(array)) for array in arrays])
        self.rows.append(block.rows)
        self.shards.append(shard)

    def _write(self, array: np.ndarray | None) -> int:
        """Write an array; returns where it begins."""
        padding = -self.out.tell() % ALIGNED
        self.out.write(bytes(padding))
        at = self.out.tell()
        if array is not None:
            self.out.write(np.ascontiguousarray(array).data)
        return at

    def finish(self, meta: dict[str, Any], stamps: np.ndarray, gone: np.ndarray) -> None:
        """Write tables and header.

        ``stamps`` are (S, 2), ``gone`` the blocks and rows of keys that stood before, (m, 2).
        """
        # what an earlier call wrote is written over
        if self.end is None:
            self.end = self.out.tell()
        self.out.seek(self.end)
        self.out.truncate()
        arrays = self._arrays()
        arrays["stamps"] = stamps.astype(np.int64)
        arrays["gone"] = gone.astype(np.uint32)
        listed = {}
        for name, array in arrays.items():
            at = self._write(array)
            shape = [*array.shape]
            listed[name] = [at, array.dtype.name, shape]

        known = {
            "version": VERSION,
            "columns": [*self.columns],
            "arrays": listed,
        }
        raw = json.dumps(known | meta).encode("ascii")
        at = self.out.tell()
        self.out.write(raw)
        end = END.pack(at, len(raw), MAGIC)
        self.out.write(end)
        self.out.flush()

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return where the arrays of the blocks lie, and the tables of the labels."""
        shape = (len(self.rows), len(PARTS) + len(self.columns))
        places = np.array(self.places, dtype=np.uint64)
        types = np.array(self.types, dtype=np.uint8)
        arrays = {
            "places": places.reshape(shape),
            "types": types.reshape(shape),
            "rows": np.array(self.rows, dtype=np.uint32),
            "shards": np.array(self.shards, dtype=np.uint32),
        }
        for name, table in self.tables.items():
            blob, ends = join(table)
            arrays[f"table {name}"] = blob
            arrays[f"table ends {name}"] = ends
        return arrays


def _type_name(array: np.ndarray | None) -> str:
    return "none" if array is None else array.dtype.name


class ListFile(Sequence[Index]):
    """A mapped file: the indices of its shards, of which none is empty."""

    def __init__(self, file: Path | BinaryIO) -> None:
        """Map a file. Raises OSError and ValueError for one that cannot be used."""
        mapped = np.memmap(file, dtype=np.uint8, mode="r")
        self.map = np.asarray(mapped)
        self.meta = _header(self.map)
        self.columns: list[str] = self.meta["columns"]
        self.stamps = self._named("stamps")
        self._places = self._named("places")
        self._types = self._named("types")
        self._rows = self._named("rows")
        self._shards = self._named("shards")
        self._tables = {}
        for name in self.columns:
            blob = self._named(f"table {name}")
            ends = self._named(f"table ends {name}")
            self._tables[name] = split(blob, ends)
        self._open = lru_cache(OPEN_BLOCKS)(self._read)
        self._gone = self._named("gone")

        # (B,) each: the blocks that have utterances left, and how many
        blocks = self._gone[:, 0]
        lost = np.bincount(blocks, minlength=len(self._rows))
        kept = self._rows - lost
        self._blocks = np.flatnonzero(kept > 0)
        self.sizes = kept[self._blocks]

    def restamp(self, path: Path, stamps: np.ndarray) -> None:
        """Put other stamps into the file at ``path``, which must be this one."""
        at, kind, shape = self.meta["arrays"]["stamps"]
        raw = stamps.reshape(shape).astype(kind)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(raw.tobytes())

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, number: int) -> Index:
        """Return an index, whose columns lie in the mapped file."""
        return self._open(int(self._blocks[number]))

    def _read(self, block: int) -> Index:
        index = self.whole(block)
        rows = self._rows_gone(block)
        if not len(rows):
            return index
        keep = np.ones(len(index), dtype=bool)
        keep[rows] = False
        return index.select(keep)

    def whole(self, block: int) -> Index:
        """Return the index of a block with the rows that are left out."""
        rows = int(self._rows[block])
        places = self._places[block].tolist()
        types = self._types[block].tolist()
        ends = self._array(
            places[1],
            types[1],
            rows,
        )
        size = int(ends[-1])
        blob = self._array(
            places[0],
            types[0],
            size,
        )
        parts = {}
        for number in range(2, len(PARTS)):
            name = PARTS[number]
            width = WIDTHS.get(name, 1)
            found = self._array(
                places[number],
                types[number],
                width * rows,
            )
            parts[name] = _as_in_index(name, found, rows)

        columns = {}
        for number, name in enumerate(self.columns, len(PARTS)):
            codes = self._array(
                places[number],
                types[number],
                rows,
            )
            columns[name] = Coded(codes, self._tables[name])
        shard = self._shards[block]
        return Index(
            path=self.meta["paths"][shard],
            keys=split(blob, ends),
            columns=columns,
            kind=self.meta["kind"],
            **parts,
        )

    def _rows_gone(self, block: int) -> np.ndarray:
        """Return the rows of a block that are left out."""
        blocks = self._gone[:, 0]
        first, end = np.searchsorted(
            blocks,
            [block, block + 1],
        )
        return self._gone[first:end, 1]

    def _array(self, at: int, kind: int, size: int) -> np.ndarray | None:
        """Return an array that lies in the file; ``kind`` is a number in TYPES."""
        if TYPES[kind] == "none":
            return None
        dtype = np.dtype(TYPES[kind])
        end = at + size * dtype.itemsize
        raw = self.map[at:end]
        return raw.view(dtype)

    def _named(self, name: str) -> np.ndarray:
        """Return an array of the header's table."""
        at, kind, shape = self.meta["arrays"][name]
        size = int(np.prod(shape))
        found = self._array(
            at,
            TYPES.index(kind),
            size,
        )
        return found.reshape(shape)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (key, reason) of what was left out, keys that stood before last."""
        yield from self.meta["faults"]
        for block in np.unique(self._gone[:, 0]).tolist():
            keys = self.whole(block).keys
            for row in self._rows_gone(block).tolist():
                yield keys[row], DUPLICATE

    def note_faults(self, dropped: Any) -> None:
        """Count what was left out; a ``Dropped`` keeps the keys."""
        for key, reason in self.faults():
            note(dropped, key, reason)


def _header(mapped: np.ndarray) -> dict[str, Any]:
    """Read the header of a mapped file. Raises ValueError for one that cannot be used."""
    if len(mapped) < len(MAGIC) + END.size:
        raise ValueError("too short")
    last = mapped[-END.size :].tobytes()
    at, size, magic = END.unpack(last)
    if magic != MAGIC:
        raise ValueError("not whole, or no index of a list")
    raw = mapped[at : at + size].tobytes()
    header = json.loads(raw)
    if header["version"] != VERSION:
        raise ValueError("of another version")
    return header


def _as_in_index(name: str, found: np.ndarray | None, rows: int) -> np.ndarray | None:
    """Return a column in the shape and type that an Index has it in."""
    if found is None:
        return None
    if name in WIDTHS:
        found = found.reshape(rows, WIDTHS[name])
    if name in WIDENED:
        return found.astype(WIDENED[name])
    return found


def open_file(path: Path) -> ListFile | None:
    """Map a file; None where there is none that can be used."""
    try:
        return ListFile(path)
    except (OSError, ValueError, KeyError, struct.error):
        return None
