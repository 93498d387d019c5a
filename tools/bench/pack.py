#!/usr/bin/env python3
"""How fast shards are packed, beside the plain way and a plain write of as many bytes.

    python tools/bench/pack.py --utterances 4000 --seconds 0.5 3 --rounds 5
    python tools/bench/pack.py --memory 20000 200000

The plain way is tarfile.open and one addfile per member. The three take turns within each round;
the table has the medians. Both ways begin with the same rows and write the same members, which is
checked; ours also makes the index, syncs to disk, finds damaged audio and knows what an earlier run
has packed. "per core" is by processor time, of the process and the kernel on its behalf.
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
    """Pack the usual way: read each recording, write what is known as json, add each member."""
    out.mkdir()
    for first in range(0, len(rows), PER_SHARD):
        with tarfile.open(out / f"{first // PER_SHARD:09d}.tar", "w") as tar:
            for row in rows[first : first + PER_SHARD]:
                for ext, data in parts(row).items():
                    info = tarfile.TarInfo(f"{row.key}.{ext}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def parts(row: Utterance) -> dict[str, bytes]:
    """Return the members of an utterance by their extension."""
    with open(row.wav, "rb") as file:
        audio = file.read()
    with wave.open(io.BytesIO(audio)) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    words = [[word.text, round(word.start, 3), round(word.end, 3)] for word in row.words]
    known = {
        "lang": row.lang,
        "speaker": row.speaker,
        **row.labels,
        "words": words,
        "duration": round(seconds, 4),
    }
    return {
        "wav": audio,
        "txt": row.txt.encode(),
        "json": json.dumps(known, ensure_ascii=False).encode(),
    }


def bytes_of(rows: list[Utterance]) -> int:
    """Add up the sizes of the recordings."""
    return sum(Path(row.wav).stat().st_size for row in rows)


def dump(rows: list[Utterance], out: Path) -> None:
    """Write and sync as many bytes as a copy of a file would: the disk's own speed."""
    block = bytes(1 << 20)
    blocks = -(-bytes_of(rows) // len(block))
    out.mkdir()
    with open(out / "bytes", "wb", buffering=0) as file:
        for _ in range(blocks):
            file.write(block)
        os.fsync(file.fileno())


def members(folder: Path) -> dict[str, str]:
    """Return the hash of every member of all tars by its name."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member).read()
                found[member.name] = hashlib.sha1(content).hexdigest()
    return found


def timed(work: Callable[[], object], out: Path) -> tuple[float, float]:
    """Return the wall and processor seconds of one run into a fresh folder."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    wall = time.perf_counter()
    cpu = time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def bench(args: argparse.Namespace, seconds: float, folder: Path) -> list[str]:
    """Return the rows of the table for recordings of one length."""
    rows = corpus(folder / "wav", args.utterances, seconds)
    packed = folder / "packed"
    plainly = folder / "plain"
    dumped = folder / "bytes"

    def ours() -> None:
        pack(rows, packed, PER_SHARD, log=lambda line: None, checked=True)

    ways = {
        "packed": (ours, packed),
        "plain": (lambda: plain(rows, plainly), plainly),
        "bytes": (lambda: dump(rows, dumped), dumped),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, (work, out) in ways.items():
            times[name].append(timed(work, out))
    assert members(packed) == members(plainly), "the two ways must write the same members"

    plain_cpu = statistics.median(cpu for _, cpu in times["plain"])
    size_mb = bytes_of(rows) / 1e6
    lines = []
    for name, pairs in times.items():
        wall = statistics.median(each for each, _ in pairs)
        cpu = statistics.median(each for _, each in pairs)
        cells = [
            f"{seconds:g} s",
            name,
            f"{len(rows) / wall:.0f}",
            f"{size_mb / wall:.0f}",
            f"{1e3 * cpu / len(rows):.3f}",
            f"{len(rows) / cpu:.0f}",
            f"{size_mb / cpu:.0f}",
            f"{plain_cpu / cpu:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
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
    args = parser().parse_args(argv)
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
        "| recordings | way | utterances/s | MB/s | CPU ms per utterance | utterances/s per core | "
        "MB/s per core | times plain, per core |\n|---|---|---|---|---|---|---|---|"
    )
    for seconds in args.seconds:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            print(*bench(args, seconds, Path(folder)), sep="\n", flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("--utterances", type=int, default=4000)
    args.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        default=[0.5, 3.0],
        help="lengths of the recordings, 16 kHz 16-bit",
    )
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument(
        "--dir",
        help="where the files go (default: a temporary folder); its disk is what is measured",
    )
    args.add_argument(
        "--memory",
        type=int,
        nargs="+",
        metavar="N",
        help="instead: the peak memory of packing N utterances",
    )
    args.add_argument("--pack_only", type=int, help=argparse.SUPPRESS)
    return args


if __name__ == "__main__":
    sys.exit(main())
