"""Shares of sources between their sizes and equal ones, epoch by epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from wenet_osum import config, tasks
from wenet_osum.config import BatchConfig, DataConfig, SourceConfig
from wenet_osum.dataset import fingerprint, temperature
from wenet_osum.dataset.plan import Plan
from wenet_osum.dataset.pool import Pool

SIZES = {"big": 800, "small": 50}


def pool(name, size, weight=1.0):
    column = np.arange(size, dtype=np.int32)
    ones = np.ones(size, dtype=np.int32)
    return Pool(
        source=SourceConfig(name, f"{name}.list", weight),
        indices=[None],
        tasks=[tasks.parse("asr")],
        shares=np.ones(1),
        shard=0 * column,
        row=column,
        seconds=ones.astype(np.float32),
        frames=100 * ones,
        eligible=np.ones((size, 1), dtype=bool),
        tokens=20 * ones[:, None],
        recordings=ones,
    )


def drawn(temperatures, epoch, weights=(1.0, 1.0)):
    """Source → how often each of its utterances is drawn in an epoch."""
    pools = [pool(*pair, w) for pair, w in zip(SIZES.items(), weights, strict=True)]
    made = temperature.apply(pools, temperatures, epoch)
    plan = Plan(made, BatchConfig(), seed=1, epoch=epoch)
    return {
        name: Counter(plan.column("row")[plan.source == number].tolist())
        for number, name in enumerate(SIZES)
    }


def test_shares_go_from_sizes_to_equal_ones():
    counts = [{name: c.total() for name, c in drawn([1, 2, 1e9], e).items()} for e in range(4)]
    assert counts[0] == SIZES
    root = np.sqrt([800, 50])
    wanted = 850 * root / root.sum()
    assert abs(counts[1]["big"] - wanted[0]) <= 1 and abs(counts[1]["small"] - wanted[1]) <= 1
    for later in counts[2:]:
        assert abs(later["big"] - 425) <= 1 and abs(later["small"] - 425) <= 1


def test_weights_are_the_sizes_that_count():
    counts = drawn([1e9], 0, weights=(0.5, 4.0))
    assert abs(counts["big"].total() - 300) <= 1 and abs(counts["small"].total() - 300) <= 1


def test_over_epochs_no_utterance_is_drawn_more_than_once_oftener_than_another():
    warmth = [1, 6, 11]
    times = {name: np.zeros(size, dtype=int) for name, size in SIZES.items()}
    for epoch in range(5):
        for name, counts in drawn(warmth, epoch).items():
            for row, count in counts.items():
                times[name][row] += count
        for name, made in times.items():
            assert made.max() - made.min() <= 1, (epoch, name)


def test_a_temperature_of_one_changes_nothing():
    pools = [pool("a", 3)]
    assert temperature.apply(pools, [1.0], 5) is pools


def test_an_empty_source_draws_nothing():
    sizes = np.array([10.0, 0.0])
    assert temperature.passes(sizes, np.ones(2), 5.0).tolist() == [1.0, 0.0]


def test_it_is_read_checked_and_part_of_the_plan():
    data = config.from_dict({"mixture": {"temperature": [1, 6]}}, DataConfig)
    assert data.mixture.temperature == [1, 6] and DataConfig().mixture.temperature == [1.0]
    with pytest.raises(config.ConfigError, match=r"mixture.temperature \[0.0\]: .*above 0"):
        config.from_dict({"mixture": {"temperature": [0.0]}}, DataConfig)
    plans = [{"order": fingerprint.ORDER, "train": [], "temperature": t} for t in ([1.0], [1.0, 6.0])]
    [told] = fingerprint.obstacles(*plans)
    assert "mixture.temperature" in told
    old = {"order": fingerprint.ORDER, "train": []}
    assert not fingerprint.obstacles(old, plans[0])
