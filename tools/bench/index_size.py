#!/usr/bin/env python3
"""Bytes of an index, and what it takes to plan an epoch for many ranks, beside the way it was.

    python tools/bench/index_size.py --rows 1000000 --ways plain ours
    python tools/bench/index_size.py --rows 50000000

An index of so many utterances is made up: shards of 1,000, keys of 24 letters, speakers of 16,
labels, 2 to 15 s of audio. ``plain`` keeps keys and columns as arrays of fixed width and the plan
as ten columns (plain_plan.py); both must give the same order. Each way runs in a process of its
own, and its peak is what that process held at most, pages of the mapped file included. Times are
CPU seconds of it. Prints markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plain_plan import plain_plan  # noqa: E402

from wenet_osum.config import BatchConfig, FilterConfig, SourceConfig  # noqa: E402
from wenet_osum.dataset.index import Index, column_names  # noqa: E402
from wenet_osum.dataset.list_file import Block, ListFile, Writer  # noqa: E402
from wenet_osum.dataset.plan import Plan  # noqa: E402
from wenet_osum.dataset.pool import Pool, build_pool  # noqa: E402

PER_SHARD = 1000
SPEAKERS = 100_000
KEY, DIGITS = b"corpus-speech-", 10
LABELS = {
    "task": [""],
    "lang": ["zh", "en"],
    "gender": ["female", "male", ""],
    "age": ["", "child", "adult", "old", "34", "61"],
    "emotion": ["", "happy", "neutral", "sad", "anger"],
}
LENGTHS = [200, 40, 200]  # most UTF-8 bytes of txt, words, bytes of reply
HEAD = (
    "| utterances | way | index, bytes each | loading + pool, CPU s | plan, CPU s "
    "| plan, bytes a draw | peak, GiB |",
    "|---|---|---|---|---|---|---|",
)
Row = tuple[str, str]  # of the table, and a digest of the order


def blocks(rows: int) -> Iterator[Block]:
    """Make up the shards of a list, always the same ones."""
    rng = np.random.default_rng(rows)
    for first in range(0, rows, PER_SHARD):
        yield _block(
            first,
            min(PER_SHARD, rows - first),
            rng,
        )


def _block(first: int, size: int, rng: np.random.Generator) -> Block:
    """Make up a shard whose utterances are numbered from ``first``."""
    blob = _keys(first, size)
    numbers = np.arange(1, size + 1)
    ends = numbers * blob.shape[1]
    lengths = rng.integers(0, LENGTHS, (size, 3))
    lengths[:, 0] += 1
    sizes = rng.integers(60_000, 480_000, size)
    parts = {
        "blob": blob.reshape(-1),
        "ends": ends.astype(np.uint16),
        "offsets": (np.cumsum(sizes) - sizes).astype(np.uint32),
        "sizes": sizes.astype(np.uint32),
        "durations": rng.uniform(
            2.0,
            15.0,
            size,
        ).astype(np.float32),
        "lengths": lengths.astype(np.uint8),
    }
    speakers = rng.integers(0, SPEAKERS, 20)
    names = [f"speaker-{number:08d}" for number in speakers]
    known = LABELS | {"speaker": names}
    labels = {}
    for name in column_names():
        values = known.get(name, [""])
        place = rng.integers(0, len(values), size)
        labels[name] = (values, place)
    return Block(size, parts, labels)


def _keys(first: int, size: int) -> np.ndarray:
    """Write keys of a name and a number, (size, letters) uint8."""
    numbers = first + np.arange(size)
    powers = 10 ** np.arange(DIGITS)[::-1]
    digits = numbers[:, None] // powers % 10
    digits += ord("0")
    name = np.frombuffer(KEY, dtype=np.uint8)
    names = np.tile(name, (size, 1))
    return np.hstack([names, digits.astype(np.uint8)])


def write(rows: int, path: Path) -> None:
    """Write the list's file."""
    with open(path, "w+b") as out:
        writer = Writer(out, column_names())
        count = 0
        for block in blocks(rows):
            writer.add(block, count)
            count += 1
        paths = [f"shards/{number:06d}.tar" for number in range(count)]
        meta = {"paths": paths, "kind": "tar", "faults": []}
        writer.finish(
            meta,
            np.zeros((count, 2)),
            np.zeros((0, 2)),
        )


def fixed_width(file: ListFile) -> list[Index]:
    """Give the indices as arrays of fixed width, as files beside shards hold them."""
    found = []
    for index in file:
        columns = [np.array(index.columns[name].tolist()) for name in file.columns]
        table = np.stack(columns)
        known = dict(zip(file.columns, table, strict=True))
        keys = np.array(index.keys.tolist())
        whole = (
            index.offsets,
            index.sizes,
            index.durations.copy(),
            known,
            index.lengths,
        )
        found.append(
            Index(
                index.path,
                keys,
                *whole,
                kind="tar",
            )
        )
    return found


def bytes_of(indices: list[Index]) -> int:
    """Count the bytes of the arrays of indices."""
    total = 0
    for index in indices:
        arrays = (
            index.keys,
            index.offsets,
            index.sizes,
            index.durations,
            index.lengths,
        )
        total += sum(array.nbytes for array in (*arrays, *index.columns.values()))
    return total


def pool_of(indices: Sequence[Index]) -> Pool:
    """Judge the list as the only source."""
    source = SourceConfig("speech", "speech.list", tasks={"asr": 1.0, "ser": 0.5})
    return build_pool(source, indices, BatchConfig(), FilterConfig())


def ours(path: Path, ranks: int) -> Row:
    """Map the file and plan an epoch for so many ranks."""
    begin = time.process_time()
    pool = pool_of(ListFile(path))
    judged = time.process_time()
    plan = Plan(
        [pool],
        BatchConfig(),
        1,
        0,
        ranks,
    )
    items = plan.items(ranks - 1)
    planned, peak = time.process_time(), peak_gib()
    assert len(items) == -(-len(plan) // ranks)
    columns = (plan.source, plan.position, plan.task, plan.repeat)
    size = sum(column.nbytes for column in columns) / len(plan.position)
    cells = f"ours | {path.stat().st_size / sum(pool.indices.sizes):.0f}"
    times = f"{judged - begin:.1f} | {planned - judged:.1f} | {size:.0f} | {peak:.2f}"
    order = order_of(plan.column("shard"), plan.column("row"), plan.task, plan.bounds)
    return f"{cells} | {times}", order


def plain(path: Path, ranks: int) -> Row:
    """Hold all columns in arrays and plan an epoch."""
    indices = fixed_width(ListFile(path))
    begin = time.process_time()
    pool = pool_of(indices)
    judged = time.process_time()
    draws, bounds = plain_plan(
        [pool],
        BatchConfig(),
        1,
        0,
    )
    planned, peak = time.process_time(), peak_gib()
    # source, shard, row, task and repeat once more, as rows
    size = sum(column.itemsize for column in draws.values()) + 20
    rows = sum(len(index) for index in indices)
    cells = f"plain | {bytes_of(indices) / rows:.0f}"
    times = f"{judged - begin:.1f} | {planned - judged:.1f} | {size} | {peak:.2f}"
    return f"{cells} | {times}", order_of(draws["shard"], draws["row"], draws["task"], bounds)


def peak_gib() -> float:
    """Return what this process held at most so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def order_of(*columns: np.ndarray) -> str:
    """Hash the order of an epoch."""
    hashed = hashlib.blake2b(digest_size=16)
    for column in columns:
        hashed.update(np.ascontiguousarray(column, dtype=np.int64).data)
    return hashed.hexdigest()


WAYS: dict[str, Callable[[Path, int], Row]] = {"plain": plain, "ours": ours}


def main(argv: list[str] | None = None) -> int:
    """Print a table; 1 when the ways give different orders or one fails."""
    args = parser().parse_args(argv)
    context = multiprocessing.get_context("spawn")
    orders = set()
    print(*HEAD, sep="\n", flush=True)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        path = Path(folder) / "speech.index.bin"
        write(args.rows, path)
        for name in args.ways:
            results = context.SimpleQueue()
            process = context.Process(
                target=measured,
                args=(name, path, args.ranks, results),
            )
            process.start()
            process.join()
            if process.exitcode:
                return 1
            cells, order = results.get()
            orders.add(order)
            print(f"| {args.rows:,} | {cells} |", flush=True)
    return int(len(orders) > 1)


def measured(name: str, path: Path, ranks: int, results: multiprocessing.SimpleQueue) -> None:
    """Run a way in this process and send its row of the table with the order."""
    results.put(WAYS[name](path, ranks))


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("--rows", type=int, default=1_000_000, help="utterances")
    args.add_argument("--ranks", type=int, default=256)
    args.add_argument(
        "--ways",
        nargs="+",
        choices=[*WAYS],
        default=["ours"],
    )
    args.add_argument("--dir", help="where the list's file is written; default: TMPDIR")
    return args


if __name__ == "__main__":
    sys.exit(main())
