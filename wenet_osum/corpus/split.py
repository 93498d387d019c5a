"""Splits of a corpus that keep a speaker's utterances together, and the question whether splits share anything.

What a recipe declares disjoint must not be shared; other overlap is counted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

from wenet_osum import lookup, tasks
from wenet_osum.records import Utterance


def _speaker(utterance: Utterance) -> list[str]:
    return [utterance.speaker] if utterance.speaker else []


def _sentence(utterance: Utterance) -> list[str]:
    """The words alone: case and spacing do not make a sentence new."""
    return ["".join(utterance.txt.casefold().split())] if utterance.txt else []


def _recording(utterance: Utterance) -> list[str]:
    """The files an utterance was joined from (``extra["recordings"]``), or the one it lies in."""
    return list(utterance.extra.get("recordings") or [utterance.wav])


KINDS = {"speaker": _speaker, "sentence": _sentence, "recording": _recording}


def counted_columns() -> tuple[str, ...]:
    """Name what splits are described by: the language, and every label of the known tasks."""
    return ("lang", *tasks.label_names())


def values(utterances: Iterable[Utterance], kind: str) -> set[str]:
    """All speakers, sentences or recordings of a split."""
    return {value for utterance in utterances for value in KINDS[kind](utterance)}


def check_disjoint(splits: dict[str, list[Utterance]], by: Iterable[str] = ("speaker",)) -> list[str]:
    """Compare every two splits by speaker, sentence and recording.

    Returns one line per pair that shares something the recipe has not declared disjoint, for printing. Raises
    ValueError, with all pairs and examples, when they share something of a kind in ``by``.
    """
    by = list(by)
    for kind in by:
        if kind not in KINDS:
            raise ValueError(lookup.unknown("kind of overlap", kind, list(KINDS)))
    faults, notes = [], []
    for kind in KINDS:
        found = {name: values(utterances, kind) for name, utterances in splits.items()}
        for left, right in combinations(found, 2):
            shared = sorted(found[left] & found[right])
            if shared:
                examples = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
                line = f"{left} and {right} share {len(shared)} of {len(found[right])} {kind}s in {right}: {examples}"
                (faults if kind in by else notes).append(line)
    if faults:
        raise ValueError("\n".join([f"the splits must be disjoint by {', '.join(by)}; move the shared ones to one side:", *faults]))
    return notes


def split_by(
    utterances: Sequence[Utterance], shares: dict[str, float], by: str = "speaker", balance: Sequence[str] = (), seed: int = 777
) -> dict[str, list[Utterance]]:
    """Splits with about these shares of the duration and of each label of the fields in ``balance``; nobody of kind ``by`` is in two of them.

    The largest go first, each to where most is lacking of what it brings; ties by seed. Order within a split stays. Raises ValueError
    for shares that are not above 0, for utterances without a speaker (sentence, recording), and when a split would be empty.
    """
    if by not in KINDS:
        raise ValueError(lookup.unknown("kind of overlap", by, list(KINDS)))
    if not shares or min(shares.values()) <= 0:
        raise ValueError(f"shares {shares} must all be above 0, e.g. train 0.8, dev 0.1, test 0.1")
    groups = _groups(utterances, by)
    total = sum((amount for _, amount in groups), Counter())
    whole = sum(shares.values())
    wanted = {name: {column: total[column] * share / whole for column in total} for name, share in shares.items()}
    have: dict[str, Counter] = {name: Counter() for name in shares}
    random.Random(seed).shuffle(groups)
    given: dict[str, list[list[int]]] = {name: [] for name in shares}
    for members, amount in sorted(groups, key=lambda group: -group[1]["seconds"]):
        columns = ["seconds", *(c for c in amount if c.split("=")[0] in balance)]
        best = max(shares, key=lambda name: sum((1 - (have[name][c] + amount[c] / 2) / wanted[name][c]) * amount[c] / total[c] for c in columns))
        have[best] += amount
        given[best].append(members)
    for name in shares:  # a share smaller than any group still gets one: the smallest of the split that has most
        richest = max(given, key=lambda other: len(given[other]))
        if not given[name] and len(given[richest]) > 1:
            given[name].append(given[richest].pop())
    goes = {i: name for name, found in given.items() for members in found for i in members}
    splits = {name: [u for i, u in enumerate(utterances) if goes[i] == name] for name in shares}
    if empty := [name for name, rows in splits.items() if not rows]:
        raise ValueError(f"no {by} is left for {', '.join(empty)}: {len(groups)} {by}s for {len(shares)} splits; ask for fewer splits or other shares")
    return splits


def _groups(utterances: Sequence[Utterance], by: str) -> list[tuple[list[int], Counter]]:
    """Positions that must stay together, and their seconds and labels; an utterance of two recordings joins the groups of both."""
    owner: dict[str, int] = {}
    members: dict[int, list[int]] = {}
    for i, utterance in enumerate(utterances):
        found = KINDS[by](utterance)
        if not found:
            raise ValueError(f"utterance {utterance.key!r} has no {by}; splits by {by} need one of every utterance")
        joined = sorted({owner[value] for value in found if value in owner})
        home = joined[0] if joined else i
        members.setdefault(home, []).append(i)
        for other in joined[1:]:
            members[home] += members.pop(other)
            owner = {value: home if group == other else group for value, group in owner.items()}
        owner |= dict.fromkeys(found, home)
    return [(rows, sum((_amount(utterances[i]) for i in rows), Counter())) for rows in members.values()]


def _amount(utterance: Utterance) -> Counter:
    found = {name: label_of(utterance, name) for name in counted_columns()}
    labels = {f"{name}={label}": 1 for name, label in found.items() if label}
    return Counter({"seconds": max(utterance.duration or 1.0, 1e-3)} | labels)


def label_of(utterance: Utterance, column: str) -> str:
    """The value as the toolkit reads it, "" when it is not known; a spelling no label set has stays as it is written."""
    raw = utterance.get(column)
    if raw is None:
        return ""
    readers = (field for field in tasks.label_fields().values() if field.attribute == column)
    return str(next((label for field in readers if (label := field.value(utterance))), raw))
