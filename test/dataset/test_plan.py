"""Plans: the same epoch for any number of ranks, weights and shares met, budgets kept, steps filled."""

import time
from collections import Counter, OrderedDict

import numpy as np
import pytest

from wenet_osum.config import BatchConfig, FilterConfig, SourceConfig
from wenet_osum.dataset import compose
from wenet_osum.dataset.arrange import OPEN_FILES, files_needed
from wenet_osum.dataset.estimate import TokenEstimate
from wenet_osum.dataset.index import Index, column_names
from wenet_osum.dataset.plan import Plan
from wenet_osum.dataset.pool import build_pool

BUDGET = BatchConfig(max_frames=2000, max_tokens=1500, max_utterances=16, window=3)


def shard(n, name="s", seconds=None, **columns):
    rng = np.random.default_rng(len(name) + n)
    full = {
        c: np.array([columns.get(c, "")] * n if isinstance(columns.get(c, ""), str) else columns[c])
        for c in column_names()
    }
    seconds = rng.uniform(0.5, 9.0, n) if seconds is None else np.array(seconds)
    return Index(
        path=f"{name}.tar",
        keys=np.array([f"{name}{i}" for i in range(n)]),
        offsets=np.arange(n),
        sizes=np.ones(n, dtype=np.int64),
        durations=seconds.astype(np.float32),
        columns=full,
        lengths=np.stack([rng.integers(1, 60, n), np.zeros(n), np.zeros(n)], axis=1).astype(
            np.int32
        ),
        kind="tar",
    )


def pool(shards, budget=BUDGET, limits=None, slowest=1.0, **source):
    conf = SourceConfig(**({"name": "a", "list": "a.list", "tasks": {"asr": 1.0}} | source))
    return build_pool(conf, shards, budget, limits or FilterConfig(), slowest=slowest)


def identity(plan, g=None):
    draws = range(len(plan.column("row"))) if g is None else range(*g)
    return [
        (int(plan.source[d]), int(plan.column("shard")[d]), int(plan.column("row")[d]), int(plan.repeat[d]))
        for d in draws
    ]


def read_by_ranks(plan, start=0):
    """What W ranks read, in the order of steps."""
    items = [plan.items(r, start) for r in range(plan.world_size)]
    assert len({len(i) for i in items}) == 1, "ranks out of step"
    assert len(items[0]) % plan.accumulation == 0
    return [tuple(items[r][i]) for i in range(len(items[0])) for r in range(plan.world_size)]


SHARDS = [shard(n, f"s{n}") for n in (70, 1, 33, 80, 12, 51, 64)]


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_one_sequence(ranks, accumulation):
    pools = [pool(SHARDS)]
    alone = Plan(pools, BUDGET, seed=1, epoch=2)
    plan = Plan(pools, BUDGET, 1, 2, ranks, accumulation)
    pieces = read_by_ranks(plan)
    assert [d for g in pieces for d in identity(plan, g)] == identity(alone)
    assert len(set(identity(alone))) == len(alone.column("row")) == sum(map(len, SHARDS))


@pytest.mark.parametrize("ranks", [1, 3])
def test_seek_gives_the_rest(ranks):
    plan = Plan([pool(SHARDS)], BUDGET, 1, 0, ranks, 2)
    whole = read_by_ranks(plan)
    for steps in (1, 2):
        assert read_by_ranks(plan, start=steps * ranks * 2) == whole[steps * ranks * 2 :]
    assert read_by_ranks(plan, start=len(whole)) == []
    other = Plan([pool(SHARDS)], BUDGET, 1, 0, 4, 1)  # going on with another number of ranks
    done = {d for g in whole[: 2 * ranks] for d in identity(plan, g)}
    rest = [d for g in read_by_ranks(other, start=2 * ranks) for d in identity(other, g)]
    assert (
        len(rest) == len(set(rest))
        and done | set(rest) == set(identity(plan))
        and not done & set(rest)
    )


def test_epochs_and_seeds_differ_and_repeat():
    pools = [pool(SHARDS)]
    orders = [
        identity(Plan(pools, BUDGET, seed, epoch))
        for seed, epoch in ((1, 0), (1, 1), (2, 0), (1, 0))
    ]
    assert orders[0] == orders[3] and orders[0] != orders[1] and orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize("weight", [0.1, 0.37, 1.0, 2.5, 3.0])
def test_weights_are_met_and_balanced(weight):
    shards = [shard(500, f"w{i}") for i in range(4)]
    count, epochs = Counter(), 7
    for epoch in range(epochs):
        plan = Plan([pool(shards, weight=weight)], BUDGET, 3, epoch)
        assert abs(len(plan.column("row")) / 2000 - weight) <= 0.01 * weight
        count.update((s, r) for _, s, r, _ in identity(plan))
        assert len(set(identity(plan))) == len(plan.column("row")), "a pass repeats an utterance"
    numbers = [count[(s, r)] for s in range(4) for r in range(500)]
    assert max(numbers) - min(numbers) <= 1


def test_sources_are_mixed_all_through_the_epoch():
    pools = [
        pool([shard(50, f"a{i}") for i in range(40)]),
        pool([shard(50, f"b{i}") for i in range(8)], name="b", weight=2.5),
    ]
    plan = Plan(pools, BatchConfig(max_frames=2000, window=4), 0, 0)
    share = [float((half == 1).mean()) for half in np.array_split(plan.source, 4)]
    assert all(abs(s - 1 / 3) < 0.12 for s in share), share


def files_opened(plan, limit):
    """How often a file is opened by one process that keeps ``limit`` open, the least recently used
    closed first.
    """
    still_open, opened = OrderedDict(), 0
    for place in zip(plan.source.tolist(), plan.column("shard").tolist(), strict=True):
        opened += place not in still_open
        still_open[place] = True
        still_open.move_to_end(place)
        if len(still_open) > limit:
            still_open.popitem(last=False)
    return opened


@pytest.mark.parametrize("window", [3, 8, 1000])
@pytest.mark.parametrize("sources", [1, 2, 4, 8, 12])
def test_every_shard_is_opened_once(sources, window):
    count = 100 // sources
    pools = [
        pool([shard(60, f"n{s}.{i}") for i in range(count)], name=f"n{s}") for s in range(sources)
    ]
    plan = Plan(pools, BatchConfig(window=window), 0, 0)
    assert files_needed(window, sources) == OPEN_FILES, "many sources share the files"
    assert files_opened(plan, OPEN_FILES) == count * sources
    spans = [np.ptp(np.flatnonzero((plan.source == 0) & (plan.column("shard") == s))) for s in range(count)]
    if window == 3 or sources > 4:
        assert np.median(spans) < 8 * 60 * sources, "a shard is read in a short part of the epoch"


def shares_of_steps(plan, scarce, size):
    """Utterances of a source, and all utterances, in each step of ``size`` micro-batches."""
    whole = len(plan) // size * size
    found = np.add.reduceat((plan.source == scarce).astype(int), plan.bounds[:-1])[:whole]
    return found.reshape(-1, size).sum(axis=1), np.diff(plan.bounds)[:whole].reshape(-1, size).sum(
        axis=1
    )


COMMON_S = (2, 15)
STEPS = [
    1,
    2,
    4,
    8,
    16,
    32,
    64,
    128,
]  # micro-batches: accumulation and processes of 1, 2, 8, and more


def beside_a_common_source(count, seconds, common=100):
    """A source of 1,000 utterances per shard beside one of ``count``, evenly of so many seconds."""
    ours = BatchConfig()
    spread = np.linspace(*COMMON_S, 1000)
    common = pool([shard(1000, f"c{i}", spread) for i in range(common)], ours, name="common")
    scarce = pool([shard(count, "s0", np.linspace(*seconds, count))], ours, name="scarce")
    return Plan([common, scarce], ours, 0, 0)


@pytest.mark.parametrize(
    ("seconds", "padding"), [(COMMON_S, 0.01), ((1, 3), 0.01), ((20, 30), 0.045)]
)
def test_a_scarce_task_is_missing_from_no_more_steps_than_if_drawn_at_random(seconds, padding):
    plan = beside_a_common_source(1000, seconds)
    share = (plan.source == 1).mean()
    for size in STEPS:
        found, utterances = shares_of_steps(plan, 1, size)
        at_random = ((1 - share) ** utterances).mean()
        error = np.sqrt(at_random / len(found)) + 1 / len(found)
        assert (found == 0).mean() <= at_random + 2 * error, f"steps of {size} micro-batches"
        spread_at_random = np.sqrt((1 - share) / share / utterances.mean())
        assert found.std() / found.mean() <= 1.1 * spread_at_random, (
            f"steps of {size} micro-batches"
        )
    assert plan.padding_share() < padding


@pytest.mark.parametrize("seconds", [(1, 3), (20, 30)])
def test_a_task_of_a_few_percent_is_in_a_quarter_of_the_micro_batches(seconds):
    plan = beside_a_common_source(2000, seconds, common=40)
    found, _ = shares_of_steps(plan, 1, 8)
    assert not (found == 0).any()
    assert plan.padding_share() < 0.055


def test_a_scarce_task_of_a_source_with_others_is_spread_as_well():
    """Its utterances, short ones, bring their task along."""
    seconds, task = np.linspace(2, 15, 1000), np.full(1000, "asr", dtype=object)
    seconds[::100], task[::100] = np.linspace(1, 3, 10), "ser"
    columns = {"task": task.astype(str), "emotion": np.full(1000, "sad")}
    shards = [shard(1000, f"m{i}", seconds, **columns) for i in range(40)]
    plan = Plan([pool(shards, BatchConfig(), tasks={})], BatchConfig(), 0, 0)
    names = [one.name for one in plan.pools[0].tasks]
    present = np.add.reduceat(plan.task == names.index("ser"), plan.bounds[:-1]) > 0
    assert present.sum() > 0.85 * 400, "nearly each in a micro-batch of its own"


@pytest.mark.parametrize("trial", range(20))
def test_guests_keep_the_budgets_and_none_is_lost(trial):
    """Sources of all sizes and lengths under budgets that leave room for few utterances."""
    rng = np.random.default_rng(trial)
    conf = BatchConfig(
        int(rng.integers(3000, 6000)), int(rng.integers(600, 1500)), int(rng.integers(1, 12))
    )
    pools = []
    for number in range(int(rng.integers(2, 7))):
        longest = rng.uniform(1, 29)
        count = int(rng.choice([3, 30, 300]))
        shards = [shard(count, f"g{number}", rng.uniform(0.5, longest, count))]
        pools.append(pool(shards, conf, name=f"n{number}", tasks={"asr": 1.0, "srwt": 0.1}))
    plan = Plan(pools, conf, trial, 0)
    costs = plan.costs()
    assert (costs["frames"] <= conf.max_frames).all()
    assert (costs["tokens"] <= conf.max_tokens).all()
    assert (costs["utterances"] <= conf.max_utterances).all()
    assert len(set(identity(plan))) == len(plan.column("row")) == sum(map(len, pools))


def test_task_shares():
    shards = [shard(3000, "m", emotion=np.array(["happy", "neutral", ""] * 1000))]
    one = pool(shards, tasks={"ser": 1.0, "asr": 0.5})
    plan = Plan([one], BUDGET, 0, 0)
    asked = Counter(zip(plan.task.tolist(), (plan.column("row") % 3 == 2).tolist(), strict=True))
    assert (
        abs(asked[(0, False)] - 2000 * 2 / 3) <= 1
        and asked[(0, True)] == 0
        and asked[(1, True)] == 1000
    )
    assert one.restricted == {"a: lacks emotion for ser": 1000} and not one.dropped
    hours = plan.expected_hours()
    assert set(hours) == {"a/ser", "a/asr"}
    assert sum(hours.values()) == pytest.approx(shards[0].durations.sum() / 3600, rel=1e-4)


def test_labels_that_a_task_does_not_know_are_told_apart_from_none():
    """The first of them stands for all, over the shards of a source."""
    shards = [
        shard(4, "m", emotion=np.array(["happy", "furious", "", "furious"])),
        shard(3, "n", emotion=np.array(["glum", "", "happy"])),
    ]
    one = pool(shards, tasks={"ser": 1.0})
    unknown = "a: unknown emotion for ser, e.g. 'furious'"
    assert one.dropped == {unknown: 3, "a: lacks emotion for ser": 2} and len(one) == 2
    both = pool(shards, tasks={"ser": 1.0, "asr": 1.0})
    assert both.restricted == one.dropped and not both.dropped


def test_own_task_when_the_source_names_none():
    own = ["ser", "", "<transcribe><gender>", "nonsense", "asr", "asr"]
    one = pool(
        [shard(6, "o", task=own, emotion=["sad"] + [""] * 5, gender=["", "", "F", "", "", ""])],
        tasks={},
    )
    assert {t.name for t in one.tasks} == {"ser", "sgc", "asr"}
    assert one.row.tolist() == [0, 2, 4, 5] and one.eligible.sum() == 4
    assert one.dropped == {
        "a: unknown task 'nonsense'": 1,
        "a: no task of its own; give the source tasks, e.g. tasks: {asr: 1.0}": 1,
    }


def test_labels_in_a_published_text_count_as_held():
    mixed = shard(3, "p", task=["ser", "ser", "asr"], emotion=["", "no such label", ""])
    assert pool([mixed], tasks={"ser": 1.0}).row.tolist() == [0]


def test_age_in_years_and_in_no_band():
    assert pool([shard(3, "y", age=["34.0", "15", "child"])], tasks={"sap": 1.0}).row.tolist() == [
        0,
        2,
    ]


def test_filters_are_counted():
    shards = [
        shard(5, "f", seconds=[0.05, 31.0, 2.0, 3.0, 25.0], lang=["zh", "zh", "zh", "en", "zh"])
    ]
    one = pool(shards, where={"lang": "zh"})
    assert one.row.tolist() == [2]
    reasons = [
        "where lang is zh",
        "shorter than 0.1 s",
        "longer than 30.0 s",
        "longer than batch.max_frames 2000",
    ]
    assert one.dropped == {f"a: {reason}": 1 for reason in reasons}
    assert Plan([one], BUDGET, 0, 0).dropped == one.dropped


@pytest.mark.parametrize(
    "budget", [(2000, 10**6, 999), (10**6, 900, 999), (10**6, 10**6, 16), (2000, 1500, 16)]
)
def test_budgets_are_never_exceeded(budget):
    shards, conf = [shard(300, f"g{i}") for i in range(5)], BatchConfig(*budget, window=3)
    plan = Plan([pool(shards, conf, slowest=0.9)], conf, 0, 0)
    lengths = np.stack([shards[s].lengths[r] for s, r in zip(plan.column("shard"), plan.column("row"), strict=True)])
    seconds = (
        np.array(
            [shards[s].durations[r] for s, r in zip(plan.column("shard"), plan.column("row"), strict=True)],
            dtype=np.float64,
        )
        / 0.9
    )
    tokens = TokenEstimate().prompt + 2 + np.ceil(seconds * 100 / 8) + lengths[:, 0] + 1
    costs = []
    for first, end in zip(plan.bounds[:-1], plan.bounds[1:], strict=True):
        costs.append(
            ((end - first) * seconds[first:end].max() * 100, tokens[first:end].sum(), end - first)
        )
    most = np.max(costs, axis=0)
    assert (most <= budget).all()
    assert (np.mean(costs, axis=0) / budget).max() > 0.6, "batches are needlessly small"
    assert plan.padding_share() < 0.05
    longest = plan.longest(2)
    assert max(plan.bounds[g + 1] - plan.bounds[g] for g in longest) == most[2]
    assert any(
        plan.column("frames")[plan.bounds[g] : plan.bounds[g + 1]].max() == plan.column("frames").max() for g in longest
    )


@pytest.mark.parametrize("samples", [1, 3, 5, 9])
def test_fewer_samples_than_places_are_filled(samples):
    plan = Plan([pool([shard(samples, "t")])], BatchConfig(), 0, 0, world_size=4, accumulation=2)
    pieces = read_by_ranks(plan)
    real = [g for g in pieces if g[0] < g[1]]
    assert (
        len(pieces) == 8 and sum(e - f for f, e in real) == samples and len(real) == min(samples, 8)
    )


def test_nothing_left_is_explained():
    with pytest.raises(ValueError, match="source 'a'.*4 × a: where lang is en"):
        pool([shard(4, lang="zh")], where={"lang": "en"})
    with pytest.raises(ValueError, match="draws no utterance"):
        Plan([pool([shard(2)], weight=0.01)], BUDGET, 0, 0)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match="source 'a'.*did you mean '<EMOTION>'"):
        pool([shard(4)], tasks={"<TRANSCRIBE><EMOTIO>": 1.0})
    with pytest.raises(ValueError, match="did you mean 'lang'"):
        pool([shard(4)], where={"lan": "en"})


def test_a_million_utterances_plan_in_seconds():
    rows = 200_000  # a fifth, held to a fifth of the time
    shards = [shard(1000, f"big{i}") for i in range(rows // 1000)]
    began = time.process_time()
    plan = Plan([pool(shards)], BatchConfig(), 0, 0)
    assert time.process_time() - began < 2.0 and len(plan.column("row")) == rows


def test_an_encoder_that_computes_whole_windows_is_counted_so():
    budget = BatchConfig(max_frames=7000, min_frames=3000, window=3)
    plan = Plan([pool([shard(10, "w")], budget)], budget, 0, 0)
    assert set(plan.column("frames").tolist()) == {3000} and np.diff(plan.bounds).tolist() == [2] * 5


def test_a_duration_that_is_no_number_is_left_out():
    seconds = np.array([1.0, np.nan, 2.0])
    found = pool([shard(3, "n", seconds)])
    assert found.row.tolist() == [0, 2] and found.dropped == {"a: shorter than 0.1 s": 1}


def test_guests_of_all_kinds_together_pad_no_more_than_they_may():
    frames, kind = np.repeat([1000, 100], [300, 240]), np.repeat(np.arange(7), [300, *[40] * 6])
    ones, conf = np.ones(540, int), BatchConfig(max_frames=10000, max_utterances=999)
    starts = compose.cut(compose.Costs(frames, ones, ones), conf)
    place = compose._invite(frames, kind, starts, conf)
    number = np.repeat(np.arange(len(starts)), np.diff([*starts, 540]))
    guests = (place != compose.SORTED) & (place != number)
    padding = np.abs(frames[starts][place[guests]] - frames[guests]).sum()
    assert 0 < padding <= compose.MOST_PADDING * frames.sum()
