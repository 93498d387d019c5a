"""The order of epochs stays what it was: digests of plans made before they were kept small."""

from __future__ import annotations

import hashlib
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset import temperature
from wenet_osum.dataset.draw import Draws
from wenet_osum.dataset.fingerprint import digest, rest
from wenet_osum.dataset.plan import Plan

spec = importlib.util.spec_from_file_location("plans", Path(__file__).with_name("test_plan.py"))
plans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plans)
BUDGET, pool, shard = plans.BUDGET, plans.pool, plans.shard

NINE = {
    "asr": 1.0,
    "ser": 0.5,
    "sgc": 0.2,
    "<EMOTION>": 0.1,
    "<GENDER>": 0.1,
    "<EMOTION><GENDER>": 0.3,
    "<GENDER><EMOTION>": 0.2,
    "<TRANSCRIBE><GENDER><EMOTION>": 0.1,
    "<TRANSCRIBE><EMOTION><GENDER>": 0.1,
}
# digests that commit b0e0452 gave: (mixture, seed, epoch) → plan; mixture → pools
ORDERS = {
    ("one", 1, 0): "8e306bed9c0f0f28",
    ("one", 5, 3): "b014f8f22e42f54d",
    ("few", 1, 0): "088d5ffaa9126289",
    ("few", 5, 3): "b72efb22f18c83d5",
    ("many", 1, 0): "1397465926f5ad11",
    ("many", 5, 3): "0bf975680f41b2d8",
    ("window", 1, 0): "4d8633814b7d17b1",
    ("window", 5, 3): "9365f91a0fa34346",
}
REST, WARM = "17d9bdb824ddafb0", "515a9e4ac5c082a7"
DIGESTS = {
    "one": ["c4b9724e21ccc2f8"],
    "many": ["ddacd2d02640a9c4", "361110e377ea7322", "894f70fb5458ab64"],
    "window": ["bfe781afc846eadf", "894f70fb5458ab64", "93578ae89251f659"],
}


def labeled(sizes, **values):
    """Shards of so many utterances whose labels go round."""
    shards = []
    for n in sizes:
        columns = {name: np.array((labels * n)[:n]) for name, labels in values.items()}
        shards.append(shard(n, f"g{n}", **columns))
    return shards


ONE = labeled((70, 1, 33, 80, 12, 51, 64), emotion=["happy", "neutral", ""])
TWO = labeled((40, 90, 5, 300), gender=["male", "", ""], emotion=["sad", "", "happy", ""])


def mixture(name):
    if name == "one":
        return [pool(ONE)]
    if name == "few":
        return [pool(ONE, weight=0.37)]
    if name == "many":
        both = pool(ONE, weight=2.5, tasks={"asr": 1.0, "ser": 0.5})
        return [both, pool(TWO, name="b", tasks=NINE), pool(TWO[:2], name="c", weight=3.0)]
    return [pool(ONE[:2]), pool(TWO[:2], name="b", weight=0.01), pool(TWO, name="d")]


def told(plan):
    """A digest of all that a plan says."""
    hashed = hashlib.blake2b(digest_size=8)
    columns = (plan.source, plan.column("shard"), plan.column("row"), plan.task, plan.repeat)
    costs = (plan.column("frames"), plan.column("recordings"), plan.column("tokens"), plan.bounds, *plan.costs().values())
    for column in columns + costs:
        hashed.update(np.ascontiguousarray(column, dtype=np.int64).tobytes())
    hashed.update(repr(plan.longest(3)).encode())
    hashed.update(f"{plan.padding_share():.9f}".encode())
    return hashed.hexdigest()


@pytest.mark.parametrize(("name", "seed", "epoch"), ORDERS)
def test_an_epoch_is_ordered_as_before(name, seed, epoch):
    plan = Plan(mixture(name), BUDGET, seed, epoch)
    assert told(plan) == ORDERS[name, seed, epoch]


@pytest.mark.parametrize("name", DIGESTS)
def test_sources_have_the_digests_that_they_had(name):
    assert [digest(one) for one in mixture(name)] == DIGESTS[name]


def test_what_is_left_of_an_epoch_is_ordered_as_before():
    pools = mixture("many")
    left = rest(Plan(pools, BUDGET, 1, 0), 7, pools, Counter())
    assert told(Plan(pools, BUDGET, 2, 0, draws=left)) == REST


def test_an_epoch_with_a_temperature_is_ordered_as_before():
    warm = temperature.apply(mixture("many"), [1.0, 3.0], 2)
    assert told(Plan(warm, BUDGET, 1, 2)) == WARM


def test_a_plan_takes_few_bytes_a_draw():
    plan = Plan([pool([shard(3000, f"p{i}") for i in range(4)])], BUDGET, 0, 0)
    columns = (plan.source, plan.position, plan.task, plan.repeat)
    assert sum(column.nbytes for column in columns) == 5 * 12_000
    kept = [v.nbytes for v in vars(plan).values() if isinstance(v, np.ndarray)]
    assert sum(kept) <= 5 * 12_000 + plan.bounds.nbytes
    rows = plan.draws()
    assert rows[7].tolist() == [0, plan.column("shard")[7], plan.column("row")[7], 0, 0] and len(rows) == 12_000


def test_draws_of_two_sources_are_looked_up_in_their_own_pools():
    plan = Plan(mixture("window"), BUDGET, 1, 0)
    for draw in range(0, len(plan.position), 7):
        source, shard_number, row, task, repeat = plan.draws()[draw].tolist()
        one = plan.pools[source]
        assert (one.shard[plan.position[draw]], one.row[plan.position[draw]]) == (shard_number, row)
        assert plan.column("tokens")[draw] == one.tokens[plan.position[draw], task]
        assert repeat == plan.repeat[draw]


def test_draws_know_what_their_pool_knows():
    (one,) = mixture("one")
    who = np.array([3, 0, 3], dtype=np.uint8)
    zeros = np.zeros(3, dtype=np.uint8)
    draws = Draws(0, one, who, zeros, zeros, zeros, 1)
    assert draws["row"].tolist() == [3, 0, 3] and len(draws) == 3
    assert draws.totals() == (one.frames[[3, 0, 3]].sum(), one.tokens[[3, 0, 3], 0].sum())
