#!/usr/bin/env python3
"""Say what lists of shards or raw lists hold and what is wrong with them.

Exit status: 0 nothing is wrong, 1 something is.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.dataset.audio import decode  # noqa: E402
from wenet_osum.dataset.columns import distinct  # noqa: E402
from wenet_osum.dataset.drop import Drop, Dropped, note  # noqa: E402
from wenet_osum.dataset.manifest import WHITE_KEY, has_white_space  # noqa: E402
from wenet_osum.dataset.shard import Handles, Index, load_list, read_utterance  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--list",
        nargs="+",
        required=True,
        help="data.list of shards, or raw lists (JSON lines)",
    )
    parser.add_argument(
        "--decode",
        action="store_true",
        help="also read and decode all audio (slow)",
    )
    parser.add_argument("--show", type=int, default=3, help="keys shown for each fault (3)")
    args = parser.parse_args(argv)
    # Every list gets its page, also after one with faults.
    faults = [_check(path, args.decode, args.show) for path in args.list]
    return 1 if sum(faults) else 0


def _check(path: str, decoded: bool, show: int) -> int:
    """Print the page of one list; returns the number of faults."""
    dropped = Dropped()
    print(path)
    try:
        indices = load_list(path, dropped)
    except ValueError as error:
        print(f"  fault: {error}")
        if dropped:
            _print_faults(dropped, show)
        return 1
    _note_white_keys(indices, dropped)
    if decoded:
        _decode(indices, dropped)
    _print_durations(indices)
    for column in ("task", "lang"):
        _print_column(indices, column)
    _print_faults(dropped, show)
    return dropped.total()


def _note_white_keys(indices: list[Index], dropped: Dropped) -> None:
    """Count keys with white space, which Kaldi-like text files cannot hold."""
    for index in indices:
        for key in index.keys:
            if has_white_space(str(key)):
                note(dropped, repr(str(key)), WHITE_KEY)


def _print_durations(indices: list[Index]) -> None:
    """Print how many utterances there are, their hours, and how long they are."""
    durations = np.concatenate([index.durations for index in indices])
    hours = durations.sum(dtype=float) / 3600
    shortest = durations.min()
    median = np.median(durations)
    longest = durations.max()
    print(f"  {len(durations)} utterances in {len(indices)} parts, {hours:.3f} h")
    print(f"  seconds: shortest {shortest:.2f}, median {median:.2f}, longest {longest:.2f}")


def _print_column(indices: list[Index], column: str) -> None:
    """Print the utterances and hours of each value of a column, the most frequent first."""
    counts = Counter()
    seconds = Counter()
    for index in indices:
        values, place = distinct(index.columns[column])
        for number, value in enumerate(values):
            rows = place == number
            counts[value] += int(rows.sum())
            seconds[value] += float(index.durations[rows].sum())
    for value, count in counts.most_common():
        name = value or "(not given)"
        hours = seconds[value] / 3600
        print(f"  {column} {name}: {count} utterances, {hours:.3f} h")


def _decode(indices: list[Index], dropped: Dropped) -> None:
    """Decode all audio; what cannot be decoded is counted by reason."""
    handles = Handles()
    for index in indices:
        for row, key in enumerate(index.keys):
            try:
                _, audio = read_utterance(index, row, handles)
                # A conversation has several recordings.
                for one in audio if isinstance(audio, list) else [audio]:
                    decode(one)
            except Drop as drop:
                note(dropped, str(key), drop.reason)


def _print_faults(dropped: Dropped, show: int) -> None:
    """Print each reason with its count and the first keys."""
    if not dropped:
        print("  no faults")
    for reason, count in dropped.most_common():
        keys = [key for key, why in dropped.pairs if why == reason]
        named = ", ".join(keys[:show])
        more = ", …" if len(keys) > show else ""
        print(f"  fault {count} × {reason}: {named}{more}")


if __name__ == "__main__":
    sys.exit(main())
