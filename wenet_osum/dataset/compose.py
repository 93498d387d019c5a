"""Cut a stretch of the epoch into micro-batches: like lengths together, every task in many.

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
from dataclasses import dataclass

import numpy as np

from wenet_osum.config import BatchConfig

# share of the micro-batches that guests of a kind make up for at most: more costs padding where a
# common kind has other lengths than the rest, less is missed in steps of few micro-batches
PRESENT = 0.25
ENOUGH = 0.9  # of the micro-batches that should hold a kind: no guests are sent for the last tenth
MOST_PADDING = 0.04  # of a stretch's frames that guests may cost
GOLDEN = (np.sqrt(5) - 1) / 2
SORTED = -1  # the place of an utterance that is no guest


@dataclass(frozen=True)
class Costs:
    """Sizes of utterances against the limits of a micro-batch, (n,) each, from long to short.

    Each of the ``recordings`` of an utterance is padded to the longest ``frames``.
    """

    frames: np.ndarray  # of the longest recording
    tokens: np.ndarray
    recordings: np.ndarray

    def take(self, rows: np.ndarray) -> Costs:
        """Return the costs of some of the utterances."""
        return Costs(self.frames[rows], self.tokens[rows], self.recordings[rows])

    def spoken(self) -> int:
        """Sum the frames of all recordings, without padding."""
        frames = self.frames * self.recordings
        return int(frames.sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self.frames)


def compose(
    costs: Costs, kind: np.ndarray, batch: BatchConfig, phase: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cut utterances, (n,) from long to short, into micro-batches and put these in a mixed order.

    ``phase`` in [0, 1) gives another such order. Returns the utterances in reading order (n,) and
    the size of each micro-batch (G,).
    """
    starts = cut(costs, batch)
    place = _invite(costs.frames, kind, starts, batch)
    if np.all(place == SORTED):
        everyone = np.arange(len(costs))
        batches = np.split(everyone, starts[1:])
    else:
        batches = _cut_with_guests(costs, place, batch)

    # any few micro-batches in a row hold all lengths of the stretch evenly
    turn = np.argsort(_turns(len(batches), phase))
    ordered = [batches[number] for number in turn]
    sizes = [len(utterances) for utterances in ordered]
    return np.concatenate(ordered), np.array(
        sizes,
        dtype=np.int64,
    )


def cut(costs: Costs, batch: BatchConfig) -> list[int]:
    """Return where micro-batches start: utterances from long to short, cut by the three budgets.

    Every utterance must fit the budgets alone.
    """
    longest = costs.frames.tolist()
    total = _running_total(costs.tokens)
    recordings = _running_total(costs.recordings)
    starts, first = [], 0
    while first < len(longest):
        starts.append(first)
        rows = batch.max_frames // longest[first]
        by_frames = _fit(recordings, first, rows)
        by_tokens = _fit(total, first, batch.max_tokens)
        end = min(by_frames, by_tokens, first + batch.max_utterances)
        first = max(first + 1, end)
    return starts


def _running_total(counts: np.ndarray) -> list[int]:
    """Return what is counted before each utterance, and of all, (n + 1,)."""
    total = np.cumsum(counts, dtype=np.int64)
    return [0, *total.tolist()]


def _fit(total: list[int], first: int, most: int) -> int:
    """Return the end of the utterances from ``first`` on that hold up to ``most`` together."""
    reached = total[first] + most
    after = bisect_right(total, reached, first)
    return after - 1


def _turns(batches: int, phase: float) -> np.ndarray:
    """Return sort keys in [0, 1), (G,), that spread any run of neighbors evenly.

    They are multiples of the golden ratio, modulo 1: those that fall into a stretch of [0, 1)
    belong to numbers at only three different distances (the three-gap theorem).
    """
    multiples = np.arange(batches) * GOLDEN
    return (multiples + phase) % 1.0


def _invite(
    frames: np.ndarray, kind: np.ndarray, starts: list[int], batch: BatchConfig
) -> np.ndarray:
    """Return the number of the micro-batch each utterance is a guest of, (n,), or ``SORTED``.

    ``starts`` are those of the utterances sorted by length alone.
    """
    sizes = np.diff([*starts, len(frames)])
    number = np.repeat(
        np.arange(len(starts)),
        sizes,
    )
    longest = frames[starts]
    place = np.full(len(frames), SORTED)

    # the scarcest first: they need the fewest guests
    allowed = MOST_PADDING * float(frames.sum())
    kinds, counts = np.unique(kind, return_counts=True)
    for one in kinds[np.argsort(counts, kind="stable")]:
        mine = np.flatnonzero(kind == one)
        held = number[mine]
        missing = _missing(held, len(frames), len(starts))
        if not missing:
            continue

        # each micro-batch keeps the first of those it has; the others may go elsewhere
        first = np.diff(held, prepend=-1) > 0
        place[mine[first]] = held[first]
        spare = mine[~first]
        hosts, padding = _hosts(
            frames[spare],
            held,
            longest,
            missing,
            batch,
        )

        # as many as may be afforded, of all lengths
        afforded = np.cumsum(padding) <= allowed
        count = int(afforded.sum())
        chosen = _evenly(count, len(spare))
        place[spare[chosen]] = np.sort(hosts[afforded])
        allowed -= float(padding[afforded].sum())
    return place


def _missing(held: np.ndarray, utterances: int, batches: int) -> int:
    """Return how many more micro-batches should hold a kind.

    ``held`` are the micro-batches that its utterances are in. At random, each utterance would be
    of the kind with the probability of its share.
    """
    share = len(held) / utterances
    size = utterances / batches
    at_random = 1.0 - (1.0 - share) ** size
    wanted = min(at_random, PRESENT) * batches
    there = len(np.unique(held))
    if there >= ENOUGH * wanted:
        return 0
    return int(np.ceil(wanted - there))


def _hosts(
    guests: np.ndarray,
    held: np.ndarray,
    longest: np.ndarray,
    missing: int,
    batch: BatchConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose ``missing`` micro-batches without a kind, those that its guests pad least first.

    ``guests`` are the frames of those that may be sent, ``held`` the micro-batches that hold the
    kind, ``longest`` (G,) the frames each micro-batch pads to. Returns the hosts and the frames
    that a guest pads in each.
    """
    everywhere = np.arange(len(longest))
    without = np.setdiff1d(everywhere, held)
    length = float(np.median(guests))
    gap = longest[without] - length

    # a short guest is padded itself, a long one pads all others
    others = batch.max_frames // length - 1
    padding = np.where(
        gap >= 0,
        gap,
        -gap * others,
    )
    nearest = np.argsort(padding, kind="stable")
    chosen = nearest[: min(missing, len(guests))]
    return without[chosen], padding[chosen]


def _evenly(wanted: int, there: int) -> np.ndarray:
    """Return ``wanted`` of the numbers below ``there``, at even distances."""
    middles = np.arange(wanted) + 0.5
    positions = middles * there / max(1, wanted)
    return positions.astype(np.int64)


def _cut_with_guests(costs: Costs, place: np.ndarray, batch: BatchConfig) -> list[np.ndarray]:
    """Cut as ``cut`` does, but for the guests, which come to the micro-batch of their place.

    Guests that do not fit there make micro-batches of their own at the end.
    """
    waiting = _by_place(place)
    hosts = np.flatnonzero(place == SORTED)
    total = _running_total(costs.tokens[hosts])
    recordings = _running_total(costs.recordings[hosts])
    batches, first = [], 0
    while first < len(hosts):
        among = waiting[len(batches)]
        guests = _fitting(
            int(hosts[first]),
            among,
            costs,
            batch,
        )
        del among[: len(guests)]
        end = _end_of_hosts(hosts, first, guests, (total, recordings), costs, batch)
        together = [*guests, *hosts[first:end]]
        batches.append(np.sort(together))
        first = end

    rest = [guest for among in waiting.values() for guest in among]
    rest = np.sort(np.array(rest, dtype=np.int64))
    if not len(rest):
        return batches
    starts = cut(costs.take(rest), batch)
    return batches + np.split(rest, starts[1:])


def _by_place(place: np.ndarray) -> dict[int, list[int]]:
    """Return the guests of each micro-batch."""
    guests = defaultdict(list)
    for guest in np.flatnonzero(place != SORTED).tolist():
        guests[int(place[guest])].append(guest)
    return guests


def _fitting(host: int, guests: list[int], costs: Costs, batch: BatchConfig) -> list[int]:
    """Return the first of ``guests`` that fit the budgets together with a host."""
    taken = [host]
    for guest in guests:
        together = costs.take(
            np.array(
                [
                    *taken,
                    guest,
                ]
            )
        )
        utterances = len(together)
        longest = int(together.frames.max())
        padded = longest * int(together.recordings.sum())
        tokens = int(together.tokens.sum())
        over = padded > batch.max_frames or tokens > batch.max_tokens
        if over or utterances > batch.max_utterances:
            break
        taken.append(guest)
    return taken[1:]


def _end_of_hosts(
    hosts: np.ndarray,
    first: int,
    guests: list[int],
    totals: tuple[list[int], list[int]],
    costs: Costs,
    batch: BatchConfig,
) -> int:
    """Return the end of the hosts from ``first`` on that fit the budgets beside their guests.

    ``totals`` are the running ones of the hosts' tokens and recordings.
    """
    beside = costs.take(np.array(guests, dtype=np.int64))
    longest = max(
        int(costs.frames[hosts[first]]),
        int(beside.frames.max(initial=0)),
    )
    taken = int(beside.recordings.sum())
    rows = batch.max_frames // longest - taken
    tokens = batch.max_tokens - int(beside.tokens.sum())
    by_tokens = _fit(totals[0], first, tokens)
    by_frames = _fit(totals[1], first, rows)
    most = batch.max_utterances - len(guests)
    end = min(by_frames, by_tokens, first + most)
    return max(first + 1, end)
