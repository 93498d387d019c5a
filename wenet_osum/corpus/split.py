"""Do the splits of a corpus share anything? What a recipe declares disjoint must not; other overlap is counted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from wenet_osum import lookup
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
