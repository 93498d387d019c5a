#!/usr/bin/env python3
"""Say what lists of shards or raw lists hold, and what is wrong with them; exits 1 when something
is.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.dataset.audio import decode  # noqa: E402
from wenet_osum.dataset.drop import Drop, Dropped, note  # noqa: E402
from wenet_osum.dataset.manifest import WHITE_KEY, has_white_space  # noqa: E402
from wenet_osum.dataset.shard import Handles, Index, load_list, read_utterance  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--list", nargs="+", required=True, help="data.list of shards, or raw lists (JSON lines)"
    )
    parser.add_argument(
        "--decode", action="store_true", help="also read and decode all audio (slow)"
    )
    parser.add_argument("--show", type=int, default=3, help="keys shown for each fault (3)")
    args = parser.parse_args(argv)
    return 1 if sum([_check(path, args.decode, args.show) for path in args.list]) else 0


def _check(path: str, decoded: bool, show: int) -> int:
    """Print the page of one list; returns the number of faults."""
    dropped = Dropped()
    try:
        indices = load_list(path, dropped)
    except ValueError as error:
        print(f"{path}\n  fault: {error}")
        _print_faults(dropped, show)
        return 1
    for key in (str(key) for index in indices for key in index.keys if has_white_space(str(key))):
        note(dropped, repr(key), WHITE_KEY)
    if decoded:
        _decode(indices, dropped)
    count, hours = sum(map(len, indices)), sum(float(i.durations.sum()) for i in indices) / 3600
    durations = np.concatenate([i.durations for i in indices])
    print(f"{path}\n  {count} utterances in {len(indices)} parts, {hours:.3f} h")
    print(
        f"  seconds: shortest {durations.min():.2f}, median {np.median(durations):.2f}, longest "
        f"{durations.max():.2f}"
    )
    for column in ("task", "lang"):
        _print_column(indices, column)
    _print_faults(dropped, show)
    return dropped.total()


def _print_column(indices: list[Index], column: str) -> None:
    counts, seconds = Counter(), Counter()
    for index in indices:
        for value in np.unique(index.columns[column]):
            rows = index.columns[column] == value
            counts[str(value)] += int(rows.sum())
            seconds[str(value)] += float(index.durations[rows].sum())
    for value, count in counts.most_common():
        print(
            f"  {column} {value or '(not given)'}: {count} utterances, {seconds[value] / 3600:.3f} "
            "h"
        )


def _decode(indices: list[Index], dropped: Dropped) -> None:
    handles = Handles()
    for index in indices:
        for i, key in enumerate(index.keys):
            try:
                decode(read_utterance(index, i, handles)[1])
            except Drop as drop:
                note(dropped, str(key), drop.reason)


def _print_faults(dropped: Dropped, show: int) -> None:
    if not dropped:
        print("  no faults")
    for reason, count in dropped.most_common():
        keys = [key for key, why in dropped.pairs if why == reason][:show]
        print(f"  fault {count} × {reason}: {', '.join(keys)}{', …' if count > len(keys) else ''}")


if __name__ == "__main__":
    sys.exit(main())
