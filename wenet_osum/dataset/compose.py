"""Cut a stretch of the epoch into micro-batches: like lengths together, every task in many of them.

Sorted by length alone, the utterances of a scarce task that are all short (or all long) would fill
a few micro-batches and be missing from most steps. So a kind (a source asked one task) that is in
too few micro-batches sends guests: utterances that stand among others of another length, one in a
micro-batch, at even distances. A scarce kind sends all it has, and is then missing from no more
steps than if utterances were drawn at random; guests of a common one are as many as it takes to be
in every second micro-batch, and its other utterances stay among their like.

Letters: n utterances of the stretch, G micro-batches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict

import numpy as np

from wenet_osum.config import BatchConfig

# share of the micro-batches that guests of a kind make up for at most: more costs padding where a
# common kind has other lengths than the rest, less is missed in steps of few micro-batches
PRESENT = 0.25
ENOUGH = 0.9  # of the micro-batches that should hold a kind: no guests are sent for the last tenth
MOST_PADDING = 0.04  # of a stretch's frames that guests may cost
GOLDEN = (np.sqrt(5) - 1) / 2
SORTED = -1  # the place of an utterance that is no guest


def compose(
    frames: np.ndarray,
    tokens: np.ndarray,
    kind: np.ndarray,
    batch: BatchConfig,
    phase: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut utterances, (n,) from long to short, into micro-batches and put these in a mixed order.

    ``phase`` in [0, 1) gives another such order. Returns the utterances in reading order (n,) and
    the size of each micro-batch (G,).
    """
    starts = cut(frames, tokens, batch)
    place = _invite(frames, kind, starts, batch)
    if (place == SORTED).all():
        batches = np.split(np.arange(len(frames)), starts[1:])
    else:
        batches = _cut_with_guests(frames, tokens, place, batch)

    turn = np.argsort(_turns(len(batches), phase))
    ordered = [batches[number] for number in turn.tolist()]
    sizes = np.array([len(utterances) for utterances in ordered], dtype=np.int64)
    return np.concatenate(ordered), sizes


def cut(frames: np.ndarray, tokens: np.ndarray, batch: BatchConfig) -> list[int]:
    """Return where micro-batches start: utterances from long to short, cut by the three budgets.

    Every utterance must fit the budgets alone.
    """
    longest = frames.tolist()
    total = _running_total(tokens)
    starts, first = [], 0
    while first < len(longest):
        starts.append(first)
        most = min(batch.max_frames // longest[first], batch.max_utterances)
        fitting = bisect_right(total, total[first] + batch.max_tokens, first) - 1
        first = max(first + 1, min(len(longest), fitting, first + most))
    return starts


def _running_total(tokens: np.ndarray) -> list[int]:
    """Return the tokens before each utterance, and those of all, (n + 1,)."""
    return [0, *np.cumsum(tokens, dtype=np.int64).tolist()]


def _turns(batches: int, phase: float) -> np.ndarray:
    """Return sort keys in [0, 1), (G,), that spread any run of neighbors evenly.

    They are multiples of the golden ratio, modulo 1: those that fall into a stretch of [0, 1)
    belong to numbers at only three different distances (the three-gap theorem).
    """
    return (np.arange(batches) * GOLDEN + phase) % 1.0


def _invite(
    frames: np.ndarray, kind: np.ndarray, starts: list[int], batch: BatchConfig
) -> np.ndarray:
    """Return the number of the micro-batch each utterance is a guest of, (n,), or ``SORTED``.

    ``starts`` are those of the utterances sorted by length alone.
    """
    number = np.repeat(np.arange(len(starts)), np.diff([*starts, len(frames)]))
    longest = frames[starts]
    place = np.full(len(frames), SORTED)

    # the scarcest first: they need the fewest guests
    allowed = MOST_PADDING * float(frames.sum())
    kinds, counts = np.unique(kind, return_counts=True)
    for one in kinds[np.argsort(counts, kind="stable")].tolist():
        mine = np.flatnonzero(kind == one)
        missing = _missing(number[mine], len(frames), len(starts))
        if not missing:
            continue

        # each micro-batch keeps the first of those it has; the others may go elsewhere
        first = np.diff(number[mine], prepend=-1) > 0
        place[mine[first]] = number[mine[first]]
        spare = mine[~first]
        hosts, padding = _hosts(frames[spare], number[mine], longest, missing, batch, allowed)
        place[spare[_evenly(len(hosts), len(spare))]] = hosts
        allowed -= padding
    return place


def _missing(number: np.ndarray, utterances: int, batches: int) -> int:
    """Return how many more micro-batches should hold a kind, whose utterances are in ``number``.

    At random, each utterance would be of the kind with the probability of its share.
    """
    share, size = len(number) / utterances, utterances / batches
    at_random = 1.0 - (1.0 - share) ** size
    wanted = min(at_random, PRESENT) * batches
    there = len(np.unique(number))
    return 0 if there >= ENOUGH * wanted else int(np.ceil(wanted - there))


def _hosts(
    guests: np.ndarray,
    number: np.ndarray,
    longest: np.ndarray,
    missing: int,
    batch: BatchConfig,
    allowed: float,
) -> tuple[np.ndarray, float]:
    """Choose micro-batches without a kind that its guests pad least, ``missing`` at most.

    ``guests`` are the frames of those that may be sent, ``number`` the micro-batches that hold the
    kind, ``longest`` (G,) the frames each micro-batch pads to. Returns the hosts and the frames
    that are padded in all, which is up to ``allowed``.
    """
    without = np.setdiff1d(np.arange(len(longest)), number)
    length = float(np.median(guests))
    others = batch.max_frames // length - 1
    gap = longest[without] - length

    # a short guest is padded itself, a long one pads all others
    padding = np.where(gap >= 0, gap, -gap * others)
    nearest = np.argsort(padding, kind="stable")[: min(missing, len(guests))]
    total = np.cumsum(padding[nearest])
    chosen = nearest[total <= allowed]
    return np.sort(without[chosen]), float(padding[chosen].sum())


def _evenly(wanted: int, there: int) -> np.ndarray:
    """Return ``wanted`` of the numbers below ``there``, at even distances."""
    return ((np.arange(wanted) + 0.5) * there / max(1, wanted)).astype(np.int64)


def _cut_with_guests(
    frames: np.ndarray, tokens: np.ndarray, place: np.ndarray, batch: BatchConfig
) -> list[np.ndarray]:
    """Cut as ``cut`` does, but for the guests, which come to the micro-batch of their place.

    Guests that do not fit there make micro-batches of their own at the end.
    """
    guests = defaultdict(list)
    for guest in np.flatnonzero(place != SORTED).tolist():
        guests[int(place[guest])].append(guest)
    hosts = np.flatnonzero(place == SORTED)
    total = _running_total(tokens[hosts])
    batches, first = [], 0
    while first < len(hosts):
        host = int(hosts[first])
        among = guests[len(batches)]
        taken = _fitting(host, among, frames, tokens, batch)
        del among[: len(taken)]

        # the hosts that still fit beside the guests
        longest = max(int(frames[one]) for one in [host, *taken])
        most = min(batch.max_frames // longest, batch.max_utterances) - len(taken)
        left = batch.max_tokens - sum(int(tokens[one]) for one in taken)
        fitting = bisect_right(total, total[first] + left, first) - 1
        end = max(first + 1, min(len(hosts), fitting, first + most))
        batches.append(np.sort([*hosts[first:end].tolist(), *taken]))
        first = end

    rest = np.sort([guest for among in guests.values() for guest in among]).astype(np.int64)
    starts = cut(frames[rest], tokens[rest], batch)
    return batches + (np.split(rest, starts[1:]) if len(rest) else [])


def _fitting(
    host: int,
    guests: list[int],
    frames: np.ndarray,
    tokens: np.ndarray,
    batch: BatchConfig,
) -> list[int]:
    """Return the first of ``guests`` that fit the budgets together with a host."""
    longest, spent = int(frames[host]), int(tokens[host])
    for count, guest in enumerate(guests):
        longest = max(longest, int(frames[guest]))
        spent += int(tokens[guest])
        utterances = count + 2
        fits = longest * utterances <= batch.max_frames and spent <= batch.max_tokens
        if not fits or utterances > batch.max_utterances:
            return guests[:count]
    return guests[:]
