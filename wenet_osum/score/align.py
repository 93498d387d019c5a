"""Edit-distance alignment of token sequences, by rapidfuzz.

Of several alignments with the fewest errors rapidfuzz's is taken: the error count and N are unique, the split into substitutions,
deletions and insertions is not, and may differ from that of another tool where alignments tie.
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


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[tuple[int | None, int | None]]:
    """Yield aligned positions (i, j) in order; None stands for a deletion's missing j and an insertion's missing i.

    Positions given as a pair hold the same token or a substitution.
    """
    for block in Levenshtein.opcodes(reference, hypothesis):
        width, height = block.src_end - block.src_start, block.dest_end - block.dest_start
        for k in range(max(width, height)):
            yield (block.src_start + k if k < width else None), (block.dest_start + k if k < height else None)


def count(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """Count the outcomes of the best alignment."""
    if not reference or not hypothesis:
        return Counts(0, 0, len(reference), len(hypothesis))
    substitutions = deletions = insertions = 0
    for edit in Levenshtein.editops(reference, hypothesis):
        substitutions += edit.tag == "replace"
        deletions += edit.tag == "delete"
        insertions += edit.tag == "insert"
    return Counts(len(reference) - substitutions - deletions, substitutions, deletions, insertions)


def loops(tokens: Sequence[str], longest: int = 8, times: int = 4) -> bool:
    """Whether a piece of up to ``longest`` tokens stands at least ``times`` times in a row."""
    for size in range(1, min(longest, len(tokens) // times) + 1):
        run = 0
        for i in range(size, len(tokens)):
            run = run + 1 if tokens[i] == tokens[i - size] else 0
            if run >= size * (times - 1):
                return True
    return False
