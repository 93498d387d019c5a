"""Count the fields that a format cannot hold."""

from __future__ import annotations

from collections import Counter

from wenet_osum.records import Utterance


def count_lost(utterance: Utterance, kept: frozenset[str], form: str, lost: Counter) -> None:
    """Count the utterance's fields that are not among ``kept``."""
    known = utterance.to_dict()
    lacking = known.keys() - kept
    for name in lacking:
        reason = f"field {name} has no place in {form}"
        lost[reason] += 1
