"""Shares of padding in batches of our plan and of two common orders; nothing is timed."""

from __future__ import annotations

import numpy as np

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.compose import Costs, cut

BUFFER = 500  # utterances that the plain WeNet way sorts at a time


def padding(count: int, max_frames: int) -> list[str]:
    """Return the rows of the table for ``count`` utterances in batches of ``max_frames``."""
    frames = speech_lengths(count)
    buffered = _sorted_in_parts(frames, BUFFER)
    shares = {
        "ours": planned(frames, max_frames),
        "sorted in buffers of 500": filled(buffered, max_frames),
        "in random order": filled(frames, max_frames),
    }
    rows = []
    for name, share in shares.items():
        goal = "< 5 %" if name == "ours" else ""
        figure = f"{100 * share:.1f} % of frames"
        rows.append(f"| padding, {count} utterances | {name} | {figure} |  | {goal} |")
    return rows


def speech_lengths(count: int) -> np.ndarray:
    """Draw lengths like those of read and spontaneous speech, in frames.

    They are lognormal, with a median of 5 s, and cut at 30 s.
    """
    draws = np.random.default_rng(0)
    median = np.log(500)
    frames = draws.lognormal(median, 0.6, count)
    cut_off = np.clip(frames, 50, 3000)
    return cut_off.astype(int)


def planned(frames: np.ndarray, max_frames: int) -> float:
    """Return the share of padding where windows of utterances are sorted and cut by our plan."""
    budget = BatchConfig(
        max_frames=max_frames,
        max_tokens=10**6,
        window=8,
    )
    window = budget.window * 1000
    computed = 0
    for part in _parts(frames, window):
        longest_first = np.sort(part)[::-1]
        tokens = np.ones(len(part), dtype=int)
        costs = Costs(longest_first, tokens)
        starts = cut(costs, budget)

        # A batch is as long as its first utterance.
        sizes = np.diff([*starts, len(part)])
        lengths = longest_first[starts]
        computed += int((sizes * lengths).sum())
    return 1 - frames.sum() / computed


def filled(frames: np.ndarray, max_frames: int) -> float:
    """Return the share of padding where batches are filled in the order given."""
    computed = 0
    size = 0
    longest = 0
    for length in frames:
        grown = max(longest, length)
        if size and grown * (size + 1) > max_frames:
            computed += size * longest
            size = 0
            grown = length
        size += 1
        longest = grown
    computed += size * longest
    return 1 - frames.sum() / computed


def _sorted_in_parts(frames: np.ndarray, size: int) -> np.ndarray:
    """Sort within stretches of ``size``."""
    parts = [np.sort(part) for part in _parts(frames, size)]
    return np.concatenate(parts)


def _parts(frames: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut into equal stretches of about ``size``."""
    number = max(1, len(frames) // size)
    return np.array_split(frames, number)
