#!/usr/bin/env python3
"""Seconds of speech that a running server transcribes per second, at several numbers of clients.

    wenet_osum serve --model exp/x/final &
    python tools/bench/served_rtfx.py --url http://127.0.0.1:8000 --list data/test/asr.list
    vllm serve exp/hub &
    python tools/bench/served_rtfx.py --url http://127.0.0.1:8000 --list data/test/asr.list \\
        --model exp/hub --clients 1 8 128

Any server with OpenAI's /v1/audio/transcriptions can be asked. Every recording of the list is sent
once at each number of clients, after a few that are not counted. Prints a table; exit status 1 when
a request was not answered.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools/bench")]

from serve_load import Told, drive  # noqa: E402
from serve_requests import Ask  # noqa: E402

from wenet_osum.decode.jobs import read_list  # noqa: E402

WARM_UP = 4  # requests before those that count
HEAD = [
    "| clients | recordings | s of speech per s | latency p50 / p90 / p99, s | not answered |",
    "|---|---|---|---|---|",
]


def requests_of(path: str, most: int | None, fields: dict[str, str]) -> tuple[list[Ask], float]:
    """Make a request of each recording of a list, and count their seconds.

    Raises ValueError for a list in which nothing can be read, and for conversations.
    """
    jobs, _ = read_list(path)
    asks = []
    total_s = 0.0
    for job in jobs[:most]:
        if job.error:
            raise ValueError(f"{path}: {job.key}: {job.error}")
        if job.recordings != 1:
            raise ValueError(f"{path}: {job.key}: is a conversation")
        _, data = job.read()
        if isinstance(data, Path):
            data = data.read_bytes()
        ask = Ask(data, fields, kind=job.key)
        asks.append(ask)
        total_s += job.seconds
    if not asks:
        raise ValueError(f"{path}: no recordings")
    return asks, total_s


def unanswered(told: Told) -> int:
    """Count the requests that were lost, or answered with a status other than 200."""
    count = 0
    for answer in told.answers:
        if answer is None:
            count += 1
            continue
        status, _ = answer
        count += status != 200
    return count


def row(told: Told, clients: int, audio_s: float) -> str:
    """Write the row of one number of clients."""
    rate = audio_s / told.spent_s
    seconds = told.latencies or [np.nan]
    middle = np.quantile(seconds, 0.5)
    slow = np.quantile(seconds, 0.9)
    slowest = np.quantile(seconds, 0.99)
    cells = [
        f"{clients}",
        f"{len(told.answers)}",
        f"{rate:.1f}",
        f"{middle:.2f} / {slow:.2f} / {slowest:.2f}",
        f"{unanswered(told)}",
    ]
    joined = " | ".join(cells)
    return f"| {joined} |"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="of the server, without /v1")
    parser.add_argument("--list", required=True, help="manifest or data.list of shards")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 128])
    parser.add_argument("--most", type=int, metavar="N", help="send the first N recordings only")
    parser.add_argument("--model", help="the name that the server knows the model by")
    parser.add_argument("--language", help="such as en; default: the server decides")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Ask the server, and print the table; 1 when a request was not answered."""
    args = arguments(argv)
    named = {"model": args.model, "language": args.language}
    fields = {name: value for name, value in named.items() if value}
    try:
        asks, audio_s = requests_of(args.list, args.most, fields)
    except (OSError, ValueError) as error:
        print(f"served_rtfx.py: {error}", file=sys.stderr)
        return 1
    drive(args.url, asks[:WARM_UP], 1)

    print(*HEAD, sep="\n", flush=True)
    missing = 0
    for clients in args.clients:
        told = drive(args.url, asks, clients)
        missing += unanswered(told)
        print(row(told, clients, audio_s), flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
