"""Count the fields that a format cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from wenet_osum.records import Utterance

# A reason that is counted.
SEGMENT = "segment: start and end stand in a line of their own, which its toolkit does not read"


def count_lost(utterance: Utterance, kept: frozenset[str], form: str, lost: Counter) -> None:
    """Count the utterance's fields that are not among ``kept``."""
    known = utterance.to_dict()
    lacking = known.keys() - kept
    for name in lacking:
        reason = f"field {name} has no place in {form}"
        lost[reason] += 1


def without_conversations(
    utterances: Iterable[Utterance], form: str, lost: Counter
) -> Iterator[Utterance]:
    """Yield utterances of one turn; those with earlier ones are left out and counted."""
    for utterance in utterances:
        if utterance.turns:
            lost[f"conversation has no place in {form}"] += 1
        else:
            yield utterance
