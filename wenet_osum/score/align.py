"""Edit-distance alignment of token sequences, by rapidfuzz.

Of several alignments with the fewest errors, rapidfuzz's is taken: the error count and N are
unique, the split into substitutions, deletions and insertions is not, and may differ from that of
another tool where alignments tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein


class Counts(NamedTuple):
    """Outcome of an alignment, in tokens."""

    correct: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions


def align(
    reference: Sequence[str], hypothesis: Sequence[str]
) -> Iterator[tuple[int | None, int | None]]:
    """Yield aligned positions (i, j) in order.

    A deletion has no j and an insertion no i: None. Two positions in a pair hold the same token or
    a substitution.
    """
    for block in Levenshtein.opcodes(reference, hypothesis):
        width = block.src_end - block.src_start
        height = block.dest_end - block.dest_start

        # Where one side of the block is longer, its last tokens stand alone: the other position
        # is None.
        for k in range(max(width, height)):
            i = block.src_start + k if k < width else None
            j = block.dest_start + k if k < height else None
            yield i, j


def count(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """Count the outcomes of the best alignment."""
    if not reference or not hypothesis:
        return Counts(0, 0, len(reference), len(hypothesis))

    substitutions = deletions = insertions = 0
    for edit in Levenshtein.editops(reference, hypothesis):
        substitutions += edit.tag == "replace"
        deletions += edit.tag == "delete"
        insertions += edit.tag == "insert"

    # What was neither replaced nor deleted is right.
    correct = len(reference) - substitutions - deletions
    return Counts(correct, substitutions, deletions, insertions)


def loops(tokens: Sequence[str], longest: int = 8, times: int = 4) -> bool:
    """Tell whether a piece of up to ``longest`` tokens is repeated ``times`` times in a row."""
    longest = min(longest, len(tokens) // times)
    for size in range(1, longest + 1):
        needed = size * (times - 1)
        run = 0
        # A piece repeats as long as each token equals the one that lies a piece before it.
        for before, token in zip(tokens, tokens[size:], strict=False):
            run = run + 1 if token == before else 0
            if run >= needed:
                return True
    return False
