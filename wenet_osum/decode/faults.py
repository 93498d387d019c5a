"""Exceptions nobody foresaw: each is one utterance's error, until they prove to be the program's.

A run over thousands of recordings must not end at an odd one. Nor may it write an error into every
line where the fault is the program's or the machine's, such as a GPU that answers no more: these
lines would be taken for final. The two are told apart by how many utterances fail in a row.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass, field

from wenet_osum.dataset.drop import Drop

MOST = 8  # utterances in a row that fail in a way nobody foresaw: then the run stops


class ProgramFault(RuntimeError):
    """A fault that strikes every utterance alike; its cause is the last of them."""


@dataclass
class Faults:
    """What went wrong with utterances in one kind of work."""

    foreseen: tuple[type[Exception], ...] = (Drop,)  # raised with a sentence for the user
    lenient: bool = False  # after one success nothing is the program's fault any more
    row: int = 0  # unforeseen faults since the last success
    cleared: bool = False
    told: set[tuple] = field(default_factory=set)  # kinds whose traceback has been shown

    def worked(self) -> None:
        """Note a success."""
        self.row, self.cleared = 0, self.lenient

    def failed(self, error: Exception) -> str:
        """Return the error as the utterance's line has it.

        The first of its kind is shown on stderr with its traceback. Raises ProgramFault when
        ``MOST`` utterances in a row have failed unforeseen.
        """
        if isinstance(error, self.foreseen):
            return str(error) or type(error).__name__
        self.row += 1
        self._show(error)
        if self.row >= MOST and not self.cleared:
            rule = f"{self.row} utterances in a row failed in a way nobody foresaw"
            raise ProgramFault(f"{rule}, so the run stops; the last: {error!r}") from error
        return f"{type(error).__name__}: {error}"

    def _show(self, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)[-1:]
        kind = (type(error), *((frame.filename, frame.lineno) for frame in frames))
        if kind not in self.told:
            self.told.add(kind)
            traceback.print_exception(error, file=sys.stderr)
