"""Split a corpus so that a speaker's utterances stay together, and check what splits share.

What a recipe declares disjoint must not be shared; other overlap is counted.
"""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path

from wenet_osum import lookup, tasks
from wenet_osum.records import Utterance

Group = tuple[list[int], Counter]  # indices of utterances, and their seconds and labels


def _speaker(utterance: Utterance) -> list[str]:
    if not utterance.speaker:
        return []
    name = unicodedata.normalize("NFC", utterance.speaker)
    return [name]


def _sentence(utterance: Utterance) -> list[str]:
    """Return the words alone: case and spacing do not make a sentence new."""
    if not utterance.txt:
        return []
    text = unicodedata.normalize("NFC", utterance.txt)
    words = text.casefold().split()
    return ["".join(words)]


def _recording(utterance: Utterance) -> list[str]:
    """Return the files it was joined from (``extra["recordings"]``), or the one it lies in."""
    joined = utterance.extra.get("recordings")
    own = [utterance.wav] if utterance.wav else []
    return [_real(wav) for wav in joined or own]


def _real(wav: str) -> str:
    """Return the path of a recording from the root, without links; a URL, or a name without a
    folder, as it is."""
    if "://" in wav or "/" not in wav:
        return wav
    path = Path(wav)
    if path.is_symlink():
        return str(path.resolve())
    folder = _real_folder(str(path.parent))
    return f"{folder}/{path.name}"


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return str(Path(folder).resolve())


KINDS = {"speaker": _speaker, "sentence": _sentence, "recording": _recording}
# What helps where an utterance has none.
WAYS_OUT = {
    "speaker": "; split --by recording instead, or make the manifest of a Kaldi folder with "
    "tools/convert_manifest.py --from kaldi, which reads utt2spk",
    "sentence": "; split --by recording instead",
    "recording": "",
}


def counted_columns() -> tuple[str, ...]:
    """Name what splits are described by: the language, and every label of the known tasks."""
    names = tasks.label_names()
    texts = tasks.free_texts(names)
    return ("lang", *(name for name in names if name not in texts))


def values(utterances: Iterable[Utterance], kind: str) -> set[str]:
    """Return all speakers, sentences or recordings of a split."""
    found: set[str] = set()
    for utterance in utterances:
        found.update(values_of(utterance, kind))
    return found


def values_of(utterance: Utterance, kind: str) -> list[str]:
    """Return the speakers, sentences or recordings of an utterance, those of earlier turns too."""
    found = []
    for turn in (*(utterance.turns or ()), utterance):
        found += KINDS[kind](turn)
    return found


def check_disjoint(
    splits: dict[str, list[Utterance]], by: Iterable[str] = ("speaker",)
) -> list[str]:
    """Compare every two splits by speaker, sentence and recording.

    Returns one line per pair that shares something the recipe has not declared disjoint, for
    printing. Raises ValueError, with all pairs and examples, when they share something of a kind in
    ``by``.
    """
    by = list(by)
    for kind in by:
        _check_kind(kind)

    faults = []
    notes = []
    for kind in KINDS:
        lines = _overlaps(splits, kind)
        if kind in by:
            faults += lines
        else:
            notes += lines
    if faults:
        kinds = ", ".join(by)
        rule = f"the splits must be disjoint by {kinds}; move the shared ones to one side:"
        raise ValueError("\n".join([rule, *faults]))
    return notes


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        known = list(KINDS)
        raise ValueError(lookup.unknown("kind of overlap", kind, known))


def _overlaps(splits: dict[str, list[Utterance]], kind: str) -> list[str]:
    """Write one line per pair of splits that shares something of a kind."""
    found = {}
    for name, utterances in splits.items():
        found[name] = values(utterances, kind)

    lines = []
    for left, right in combinations(found, 2):
        shared = sorted(found[left] & found[right])
        if not shared:
            continue
        examples = ", ".join(shared[:3])
        if len(shared) > 3:
            examples += ", …"
        share = f"{len(shared)} of {len(found[right])} {kind}s in {right}"
        lines.append(f"{left} and {right} share {share}: {examples}")
    return lines


def _check_columns(names: Iterable[str]) -> None:
    """Raise ValueError for what splits are not described by."""
    known = counted_columns()
    for name in names:
        if name not in known:
            unknown = lookup.unknown("field", name, sorted(known))
            raise ValueError(unknown)


def split_by(
    utterances: Sequence[Utterance],
    shares: dict[str, float],
    by: str = "speaker",
    balance: Sequence[str] = (),
    seed: int = 777,
) -> dict[str, list[Utterance]]:
    """Split utterances so that nobody of kind ``by`` is in two splits.

    Each split gets about its share of the duration, and of each label of the fields in ``balance``.
    The largest groups go first, each to where most is lacking of what it brings; ties by seed.
    Order within a split stays. Raises ValueError for shares that are not above 0, for fields that
    are none, for utterances without a speaker (sentence, recording), and when a split would be
    empty.
    """
    _check_kind(by)
    _check_columns(balance)
    if not shares or min(shares.values()) <= 0:
        example = "e.g. train 0.8, dev 0.1, test 0.1"
        raise ValueError(f"shares {shares} must all be above 0, {example}")
    groups = _groups(utterances, by)
    total = _total(amount for _, amount in groups)
    wanted = _wanted(total, shares)
    random.Random(seed).shuffle(groups)
    given = _deal(groups, total, wanted, balance)
    _fill_empty(given)

    splits = _in_order(utterances, given)
    empty = [name for name, rows in splits.items() if not rows]
    if empty:
        names = ", ".join(empty)
        why = f"{len(groups)} {by}s for {len(shares)} splits"
        advice = "ask for fewer splits or other shares"
        raise ValueError(f"no {by} is left for {names}: {why}; {advice}")
    return splits


def _in_order(
    utterances: Sequence[Utterance], given: dict[str, list[list[int]]]
) -> dict[str, list[Utterance]]:
    """Return the utterances of each split in the order they came in."""
    goes: dict[int, str] = {}
    for name, found in given.items():
        for members in found:
            goes |= dict.fromkeys(members, name)

    splits: dict[str, list[Utterance]] = {name: [] for name in given}
    for i, utterance in enumerate(utterances):
        name = goes[i]
        splits[name].append(utterance)
    return splits


def _deal(
    groups: list[Group],
    total: Counter,
    wanted: dict[str, dict[str, float]],
    balance: Sequence[str],
) -> dict[str, list[list[int]]]:
    """Give each group, the largest first, to the split that lacks most of what it brings."""
    have: dict[str, Counter] = {name: Counter() for name in wanted}
    given: dict[str, list[list[int]]] = {name: [] for name in wanted}
    for members, amount in sorted(groups, key=lambda group: -group[1]["seconds"]):
        columns = _balanced(amount, balance)
        scores = {}
        for name in wanted:
            # What a column lacks counts by how much of it the group brings.
            score = 0
            for column in columns:
                brought = amount[column]
                filled = (have[name][column] + brought / 2) / wanted[name][column]
                score += (1 - filled) * brought / total[column]
            scores[name] = score
        best = max(scores, key=scores.__getitem__)
        have[best] += amount
        given[best].append(members)
    return given


def _wanted(total: Counter, shares: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return how many seconds and labels of each kind each split should have."""
    whole = sum(shares.values())
    wanted: dict[str, dict[str, float]] = {}
    for name, share in shares.items():
        wanted[name] = {}
        for column, count in total.items():
            wanted[name][column] = count * share / whole
    return wanted


def _total(amounts: Iterable[Counter]) -> Counter:
    return sum(amounts, Counter())


def _balanced(amount: Counter, balance: Sequence[str]) -> list[str]:
    """Name the columns of a group that are balanced: seconds, and labels of fields asked for."""
    columns = ["seconds"]
    for column in amount:
        field = column.split("=")[0]
        if field in balance:
            columns.append(column)
    return columns


def _fill_empty(given: dict[str, list[list[int]]]) -> None:
    """Give a split whose share is smaller than any group one of the split that has most.

    That split gives its smallest group, which came to it last.
    """
    for found in given.values():
        richest = max(given.values(), key=len)
        if not found and len(richest) > 1:
            smallest = richest.pop()
            found.append(smallest)


def _groups(utterances: Sequence[Utterance], by: str) -> list[Group]:
    """Return the groups of utterances that must stay together.

    An utterance of two recordings joins the groups of both. Raises ValueError for one without any.
    """
    owner: dict[str, int] = {}
    members: dict[int, list[int]] = {}
    for i, utterance in enumerate(utterances):
        found = values_of(utterance, by)
        if not found:
            rule = f"splits by {by} need one for every utterance"
            raise ValueError(f"utterance {utterance.key!r} has no {by}; {rule}{WAYS_OUT[by]}")

        # It goes to the oldest group that shares something with it, or founds one.
        joined = sorted({owner[value] for value in found if value in owner})
        home = joined[0] if joined else i
        members.setdefault(home, []).append(i)

        # The other groups move there as well.
        for other in joined[1:]:
            members[home] += members.pop(other)
            for value, group in owner.items():
                if group == other:
                    owner[value] = home
        owner |= dict.fromkeys(found, home)

    groups = []
    for rows in members.values():
        amount = _total(_amount(utterances[i]) for i in rows)
        groups.append((rows, amount))
    return groups


def _amount(utterance: Utterance) -> Counter:
    """Return the seconds of an utterance, and 1 for each ``field=label`` that it has."""
    seconds = utterance.duration or 1.0
    amount = Counter(seconds=max(seconds, 1e-3))
    for name in counted_columns():
        label = label_of(utterance, name)
        if label:
            amount[f"{name}={label}"] = 1
    return amount


def label_of(utterance: Utterance, column: str) -> str:
    """Return a value as the toolkit reads it, "" when it is not known.

    A spelling that no label set has stays as it is written.
    """
    raw = utterance.get(column)
    if raw is None:
        return ""
    for field in tasks.label_fields().values():
        if field.attribute == column:
            label = field.value(utterance)
            if label:
                return str(label)
    return str(raw)
