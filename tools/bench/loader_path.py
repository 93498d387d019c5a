"""The whole loader against named alternatives: all batches, the first one, resuming."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import other_loaders
import plain_loader
import torch
from noise_corpus import MAX_FRAMES, NoiseCorpus, features_by_key, same_features
from side_by_side import race

from wenet_osum.dataset.audio import decode
from wenet_osum.dataset.device_features import with_features
from wenet_osum.dataset.log_mel import log_mel

RESUMED = 2000  # frames of a micro-batch of utterances of 1 s: 20 of them
PLAIN = "plain WeNet way"


def bench_loader(corpus: NoiseCorpus, rounds: int) -> list[str]:
    """Race the whole way from shards to padded batches, one process; and the first batch alone."""
    encode = corpus.template.encode
    chains: dict[str, Callable[[], Iterator[Any]]] = {
        "ours": lambda: iter(corpus.mixture.epoch(0)),
        PLAIN: lambda: plain_loader.load(corpus.shards, encode, MAX_FRAMES),
    }
    chains |= other_loaders.loaders(
        corpus.folder,
        corpus.shards,
        encode,
        MAX_FRAMES,
    )
    truth = list(chains["ours"]())

    # No loader can be faster than the features that it makes.
    wholes = {name: partial(_all_of, chain) for name, chain in chains.items()}
    limit = _features_alone(corpus, range(corpus.count))
    goals = {PLAIN: 3}
    rows = race("whole loader", wholes, same_features, rounds, goals, limit)

    # First batches differ between loaders: each is held against what ours made of its utterances.
    firsts = {name: partial(_first_of, chain) for name, chain in chains.items()}
    right = partial(_right_features, features_by_key(truth))
    size = len(truth[0].keys)
    limit = _features_alone(corpus, range(size))
    rows += race("first batch", firsts, right, rounds, limit=limit)
    return rows


def _all_of(chain: Callable[[], Iterator[Any]]) -> list[Any]:
    return list(chain())


def _first_of(chain: Callable[[], Iterator[Any]]) -> Any:
    return next(chain())


def _right_features(truth: dict[str, torch.Tensor], _: Any, batch: Any) -> None:
    """Check the features of one batch."""
    made = features_by_key([batch])
    for key, features in made.items():
        same = torch.allclose(features, truth[key], atol=1e-4)
        assert same, f"features of {key} differ"


def _features_alone(corpus: NoiseCorpus, numbers: Iterable[int]) -> tuple[str, Callable]:
    """Return the limit of a loader: the features of utterances whose audio lies in memory."""
    files = [corpus.wav(number).read_bytes() for number in numbers]

    def decoded_mels() -> list[torch.Tensor]:
        found = []
        for file in files:
            samples = decode(file)
            found.append(log_mel(samples))
        return found

    return "decoding and log-mel alone", decoded_mels


def bench_device(corpus: NoiseCorpus, rounds: int) -> list[str]:
    """Race what a data process does when the device makes the features against all of it."""
    mixture = copy.copy(corpus.mixture)
    mixture.conf = dataclasses.replace(corpus.mixture.conf, features="device")

    def same(ours: list[Any], theirs: list[Any]) -> None:
        completed = [with_features(batch, 80) for batch in ours]
        same_features(completed, theirs)

    ways = {
        "ours, features: device": lambda: list(mixture.epoch(0)),
        "ours, features: cpu": lambda: list(corpus.mixture.epoch(0)),
    }
    return race("data process", ways, same, rounds)


def bench_resume(corpus: NoiseCorpus, rounds: int) -> list[str]:
    """Race going on after nine tenths of an epoch, to the first micro-batch.

    It has as many utterances as one of 12,000 frames holds. A seek runs against reading again and
    throwing away, which the plan would do alike, and the plain chain has to.
    """
    plan = corpus.mixture.epoch(0).plan
    done = 9 * len(plan) // 10
    begin = plan.bounds[done]
    end = plan.bounds[done + 1]
    work = f"resume after {begin} of {plan.bounds[-1]} utterances"

    def seek() -> Any:
        batches = corpus.mixture.epoch(0, start=done)
        return next(iter(batches))

    def replay() -> Any:
        batches = corpus.mixture.epoch(0)
        return next(islice(batches, done, None))

    def plain() -> Any:
        batches = plain_loader.load(corpus.shards, corpus.template.encode, RESUMED)
        return next(islice(batches, done, None))

    def same(one: Any, other: Any) -> None:
        assert one.keys == other.keys
        assert len(one.keys) == end - begin
        assert torch.equal(one.features, other.features)

    # The plain chain has another order: that it reads the same is held by the loader's race.
    def not_empty(_: Any, batch: Any) -> None:
        assert len(batch["keys"])

    read = [int(row) for row in plan.column("row")[begin:end]]
    _, features = _features_alone(corpus, read)
    limit = ("decoding and log-mel of the one batch", features)
    ways = {"ours, a seek": seek, "replay": replay}
    rows = race(work, ways, same, rounds, {"replay": 100}, limit)
    other = f"replay of the {PLAIN}"
    ways = {"ours, a seek": seek, other: plain}
    rows += race(work, ways, not_empty, min(rounds, 3), {other: 100})
    return rows
