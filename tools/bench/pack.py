#!/usr/bin/env python3
"""How fast shards are packed, beside the plain way (tarfile.open, one addfile a member) and a plain
write of as many bytes.

    python tools/bench/pack.py --utterances 4000 --seconds 0.5 3 --rounds 5
    python tools/bench/pack.py --memory 20000 200000

The three take turns within each round; the table has the medians. Both ways begin with the same
rows and write the same members, which is checked; ours also makes the index, syncs to disk, finds
damaged audio and knows what an earlier run has packed. "per core" is by processor time, of the
process and the kernel on its behalf.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from wenet_osum.dataset.audio import write_wav  # noqa: E402
from wenet_osum.dataset.pack import pack  # noqa: E402
from wenet_osum.records import Utterance, Word  # noqa: E402

PER_SHARD = 1000


def corpus(folder: Path, count: int, seconds: float) -> list[Utterance]:
    """Recordings of noise with a transcript, labels and word times."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = [Word(f"word{i}", 0.1 * i, 0.1 * i + 0.1) for i in range(5)]
    rows = []
    for i in range(count):
        path = folder / f"{i:07d}.wav"
        path.write_bytes(write_wav(rng.normal(0, 0.1, round(16000 * seconds)).astype(np.float32)))
        rows.append(
            Utterance(
                f"utt{i:07d}",
                str(path),
                " ".join(w.text for w in words),
                lang="en",
                speaker=f"s{i % 99}",
                labels={"gender": "male"},
                words=words,
            )
        )
    return rows


def plain(rows: list[Utterance], out: Path) -> None:
    """The usual way: read each recording, write what is known of it as json, add each member with
    tarfile.
    """
    out.mkdir()
    for first in range(0, len(rows), PER_SHARD):
        with tarfile.open(out / f"{first // PER_SHARD:09d}.tar", "w") as tar:
            for row in rows[first : first + PER_SHARD]:
                with open(row.wav, "rb") as file:
                    audio = file.read()
                with wave.open(io.BytesIO(audio)) as sound:
                    seconds = sound.getnframes() / sound.getframerate()
                known = {
                    "lang": row.lang,
                    "speaker": row.speaker,
                    **row.labels,
                    "words": [[w.text, round(w.start, 3), round(w.end, 3)] for w in row.words],
                }
                texts = {
                    "txt": row.txt.encode(),
                    "json": json.dumps(
                        known | {"duration": round(seconds, 4)}, ensure_ascii=False
                    ).encode(),
                }
                for ext, data in ({"wav": audio} | texts).items():
                    info = tarfile.TarInfo(f"{row.key}.{ext}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def dump(rows: list[Utterance], out: Path) -> None:
    """As many bytes, written and synced as a copy of a file would be: the disk's own speed."""
    total = sum(os.path.getsize(row.wav) for row in rows)
    block = bytes(1 << 20)
    out.mkdir()
    with open(out / "bytes", "wb", buffering=0) as file:
        for _ in range(-(-total // len(block))):
            file.write(block)
        os.fsync(file.fileno())


def members(folder: Path) -> dict[str, str]:
    """Name → hash of every member of all tars."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {m.name: hashlib.sha1(tar.extractfile(m).read()).hexdigest() for m in tar}
    return found


def timed(work: Callable[[], object], out: Path) -> tuple[float, float]:
    """Wall and processor seconds of one run into a fresh folder."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def bench(args: argparse.Namespace, seconds: float, folder: Path) -> list[str]:
    """Rows of the table for recordings of one length."""
    rows = corpus(folder / "wav", args.utterances, seconds)
    size = sum(os.path.getsize(row.wav) for row in rows)
    out = {name: folder / name for name in ("packed", "plain", "bytes")}
    ours = lambda: pack(
        rows,
        out["packed"],
        PER_SHARD,
        log=lambda line: None,
        checked=True,
    )  # noqa: E731
    ways = {
        "packed": ours,
        "plain": lambda: plain(rows, out["plain"]),
        "bytes": lambda: dump(rows, out["bytes"]),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, work in ways.items():
            times[name].append(timed(work, out[name]))
    assert members(out["packed"]) == members(out["plain"]), (
        "the two ways must write the same members"
    )
    plain_cpu = statistics.median(cpu for _, cpu in times["plain"])
    lines = []
    for name, pairs in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        lines.append(
            f"| {seconds:g} s | {name} | {len(rows) / wall:.0f} | {size / wall / 1e6:.0f} | "
            f"{1e3 * cpu / len(rows):.3f} | {len(rows) / cpu:.0f} | {size / cpu / 1e6:.0f} | "
            f"{plain_cpu / cpu:.2f} |"
        )
    return lines


def memory(count: int, folder: Path) -> str:
    """A row: the peak memory of a process of its own that packs ``count`` utterances, every
    thousandth of which has no recording.
    """
    done = subprocess.run(
        [sys.executable, __file__, "--pack_only", str(count), "--dir", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(folder / "packed")
    return done.stdout.strip()


def pack_only(count: int, folder: Path) -> str:
    """Pack, and tell counts and peak memory."""
    (folder / "one.wav").write_bytes(write_wav(np.zeros(800, np.float32)))
    rows = (
        Utterance(
            f"utt{i:08d}",
            str(folder / ("none.wav" if i % 1000 == 7 else "one.wav")),
            "hello world",
            lang="en",
            speaker="s",
        )
        for i in range(count)
    )
    report = pack(
        rows,
        folder / "packed",
        PER_SHARD,
        log=lambda line: None,
        checked=True,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"| {count:,} | {sum(report.counts):,} | {report.dropped.total():,} | {peak:.0f} |"


def main(argv: list[str] | None = None) -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, default=4000)
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        default=[0.5, 3.0],
        help="lengths of the recordings, 16 kHz 16-bit",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--dir",
        help="where the files go (default: a temporary folder); its disk is what is measured",
    )
    parser.add_argument(
        "--memory",
        type=int,
        nargs="+",
        metavar="N",
        help="instead: the peak memory of packing N utterances",
    )
    parser.add_argument("--pack_only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.pack_only:
        print(pack_only(args.pack_only, Path(args.dir)))
        return 0
    if args.memory:
        print("| utterances | packed | left out | peak MiB |\n|---|---|---|---|")
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            for count in args.memory:
                print(memory(count, Path(folder)), flush=True)
        return 0
    print(
        "| recordings | way | utterances/s | MB/s | CPU ms an utterance | utterances/s per core | "
        "MB/s per core | times plain, per core |\n|---|---|---|---|---|---|---|---|"
    )
    for seconds in args.seconds:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            print(*bench(args, seconds, Path(folder)), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
