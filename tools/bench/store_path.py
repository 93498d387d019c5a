#!/usr/bin/env python3
"""The whole loader from a file server against the same from a local disk.

    python tools/bench/store_path.py --utterances 2000 --rounds 5

The server (range_server.py) is another process on loopback. Each round reads an epoch in every
way, in turns; a share is taken within its round. Batches are checked to be the same before. Shares
are of utterances per second on the clock, and of CPU time of the process that loads, the server's
left out. The audio is noise bursts of 2 to 12 s.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from noise_corpus import MELS, NoiseCorpus, same_features  # noqa: E402
from side_by_side import spread  # noqa: E402

from wenet_osum.config import DataConfig, SourceConfig  # noqa: E402
from wenet_osum.dataset.dataset import Mixture  # noqa: E402
from wenet_osum.dataset.shard import write_list  # noqa: E402

SERVER = Path(__file__).with_name("range_server.py")
LOCAL = "local disk"
FAULTS = {"file server": 0.0, "file server, 5 % of answers 503": 0.05}
HEAD = [
    "| shards from | utterances per second | share of the local disk's | share by CPU time |",
    "|---|---|---|---|",
]


@contextlib.contextmanager
def served(folder: Path, faults: float) -> Iterator[str]:
    """Serve a folder; yields its address."""
    command = [sys.executable, str(SERVER), str(folder), "--faults", str(faults)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def remote(corpus: NoiseCorpus, url: str, faults: float) -> Mixture:
    """Return the loader of the corpus as it lies behind an address."""
    listed = corpus.folder / f"remote{faults}.list"
    names = [Path(path).name for path in corpus.shards]
    urls = [f"{url}/{name}" for name in names]
    write_list(listed, urls)

    source = SourceConfig("noise", str(listed), tasks={"asr": 1.0})
    return Mixture(
        DataConfig([source]),
        corpus.mixture.conf,
        corpus.template,
        MELS,
    )


def checked(ways: dict[str, Mixture]) -> None:
    """Hold the batches of every way against those of the first, and that none is lost."""
    truth = list(ways[LOCAL].epoch(0))
    for mixture in ways.values():
        loader = mixture.epoch(0)
        read = list(loader)
        same_features(truth, read)
        assert not loader.failed, loader.failed


def timed(mixture: Mixture) -> tuple[float, float]:
    """Read an epoch and return its seconds on the clock and of CPU."""
    gc.collect()
    began = time.perf_counter()
    spent = time.process_time()
    for _ in mixture.epoch(0):
        pass
    clock = time.perf_counter() - began
    cpu = time.process_time() - spent
    return clock, cpu


def raced(ways: dict[str, Mixture], count: int, rounds: int) -> list[str]:
    """Return the rows of the table."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, mixture in ways.items():
            spent = timed(mixture)
            seconds[name].append(spent)

    # Shares are taken round by round, beside the local disk.
    local_clock, local_cpu = np.array(seconds[LOCAL]).T

    rows = []
    for name, spent in seconds.items():
        both = np.array(spent)
        clock, cpu = both.T
        rate = spread(count / clock, ".0f")
        share = spread(local_clock / clock, ".2f")
        by_cpu = spread(local_cpu / cpu, ".2f")
        row = f"| {name} | {rate} | {share} | {by_cpu} |"
        rows.append(row)
    return rows


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--utterances", type=int, default=2000, help="of the corpus")
    parser.add_argument("--workers", type=int, default=0, help="data processes")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print one table."""
    args = arguments(argv)
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        corpus = NoiseCorpus(folder, args.utterances, (2.0, 12.0))
        corpus.mixture.conf.workers = args.workers

        # The local disk, and a server for each share of faults.
        ways = {LOCAL: corpus.mixture}
        for name, faults in FAULTS.items():
            server = served(folder / "shards", faults)
            url = stack.enter_context(server)
            ways[name] = remote(corpus, url, faults)
        checked(ways)
        rows = raced(ways, args.utterances, args.rounds)
    print(*HEAD, *rows, sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
