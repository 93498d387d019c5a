"""What is left of an epoch under another plan, and what tells that a plan is another."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.config import FilterConfig, TrainConfig
from wenet_osum.dataset.fingerprint import differences, digest, fingerprint, obstacles, rest
from wenet_osum.dataset.plan import Plan

spec = importlib.util.spec_from_file_location("plans", Path(__file__).with_name("test_plan.py"))
plans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plans)
BUDGET, identity, pool, read_by_ranks, shard = (
    plans.BUDGET,
    plans.identity,
    plans.pool,
    plans.read_by_ranks,
    plans.shard,
)

SHARDS = [shard(n, f"f{n}") for n in (70, 1, 33, 80, 12)]


def pools_of(budget, limits=None):
    """Two sources, of which one is drawn two and a half times."""
    return [pool(SHARDS, budget, limits), pool(SHARDS[:3], budget, limits, name="b", weight=2.5)]


@pytest.mark.parametrize("trial", range(12))
def test_two_changes_in_an_epoch_neither_lose_nor_repeat_a_draw(trial):
    rng = np.random.default_rng(trial)
    whole = Counter(identity(Plan(pools_of(BUDGET), BUDGET, 1, 3)))
    read, left, budget = Counter(), None, BUDGET
    for _ in range(3):
        ranks, accumulation = (int(n) for n in rng.integers(1, 4, 2))
        plan = Plan(
            pools_of(budget),
            budget,
            int(rng.integers(9)) if left else 1,
            3,
            ranks,
            accumulation,
            left,
        )
        pieces = read_by_ranks(plan)
        done = (
            int(rng.integers(0, max(1, len(pieces) // 3)))
            // (ranks * accumulation)
            * ranks
            * accumulation
        )
        read.update(d for piece in pieces[:done] for d in identity(plan, piece))
        frames, tokens, utterances = (
            int(n) for n in rng.integers([1000, 600, 1], [4000, 3000, 40])
        )
        budget = dataclasses.replace(
            BUDGET, max_frames=frames, max_tokens=tokens, max_utterances=utterances
        )
        left = rest(plan, done, pools_of(budget), Counter())
    last = Plan(pools_of(budget), budget, 0, 3, draws=left)
    read.update(identity(last))
    assert read == whole
    costs = last.costs()
    assert (costs["frames"] <= budget.max_frames).all() and (
        costs["tokens"] <= budget.max_tokens
    ).all()


def test_tasks_of_the_draws_stay():
    mixed = shard(300, "m", emotion=np.array(["happy", "neutral", ""] * 100))
    pools = [pool([mixed], tasks={"ser": 1.0, "asr": 0.5})]
    plan = Plan(pools, BUDGET, 0, 0)
    start = int(plan.bounds[4])
    asked = {
        int(row): int(task) for row, task in zip(plan.column("row")[start:], plan.task[start:], strict=True)
    }
    again = Plan(pools, BUDGET, 5, 0, draws=rest(plan, 4, pools, Counter()))
    assert {int(row): int(task) for row, task in zip(again.column("row"), again.task, strict=True)} == asked


def test_what_a_new_filter_leaves_out_is_counted():
    plan, dropped = Plan(pools_of(BUDGET), BUDGET, 1, 0), Counter()
    left = rest(plan, 0, pools_of(BUDGET, FilterConfig(max_s=5.0)), dropped)
    kept = sum(len(part["row"]) for part in left)
    assert all(part["seconds"].max() <= 5.0 for part in left)
    assert 0 < kept < len(plan.column("row")) and sum(dropped.values()) == len(plan.column("row")) - kept


def test_a_fingerprint_survives_json_and_tells_every_change():
    conf = TrainConfig()
    first = fingerprint(conf, pools_of(BUDGET))
    assert not differences(json.loads(json.dumps(first)), fingerprint(conf, pools_of(BUDGET)))
    other = fingerprint(dataclasses.replace(conf, seed=1, batch=BUDGET), pools_of(BUDGET))
    assert {line.partition(":")[0] for line in differences(first, other)} > {
        "seed",
        "batch.max_frames",
        "batch.window",
    }
    assert not obstacles(first, other)
    for name, change in (("weight", {"weight": 2.0}), ("where", {"where": {"lang": ""}})):
        (line,) = obstacles(first, fingerprint(conf, [pool(SHARDS, **change), pools_of(BUDGET)[1]]))
        assert line.startswith(f"train.a.{name}")
    swapped = fingerprint(conf, pools_of(BUDGET)[::-1])
    assert differences(first, swapped) == ["sources: ['a', 'b'] → ['b', 'a']"]
    assert obstacles(first, swapped) == ["order of sources: ['a', 'b'] → ['b', 'a']"]


def test_a_digest_follows_utterances_and_their_order():
    one = digest(pool(SHARDS))
    assert one == digest(pool(SHARDS))
    longer = dataclasses.replace(SHARDS[0], durations=SHARDS[0].durations + np.float32(0.01))
    others = [
        pool(SHARDS[::-1]),
        pool(SHARDS[1:]),
        pool([longer, *SHARDS[1:]]),
        pool(SHARDS, tasks={"asr": 1.0, "ser": 1.0}),
    ]
    assert one not in [digest(other) for other in others]
