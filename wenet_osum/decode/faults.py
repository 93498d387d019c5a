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

# The run stops when so many utterances in a row have failed in a way nobody foresaw.
MOST = 8


class ProgramFault(RuntimeError):
    """A fault that strikes every utterance alike; its cause is the last of them."""


@dataclass
class Faults:
    """Counts what went wrong with utterances in one kind of work."""

    # Exceptions that are raised with a sentence for the user.
    foreseen: tuple[type[Exception], ...] = (Drop,)
    # With it, nothing is taken for the program's fault after the first success.
    lenient: bool = False
    # Unforeseen faults since the last success.
    row: int = 0
    cleared: bool = False
    # Kinds of fault whose traceback has been shown.
    told: set[tuple] = field(default_factory=set)

    def worked(self) -> None:
        """Note a success."""
        self.row = 0
        self.cleared = self.lenient

    def failed(self, error: Exception) -> str:
        """Return the error as the utterance's line has it.

        The first of its kind is shown on stderr with its traceback. Raises ProgramFault when
        ``MOST`` utterances in a row have failed unforeseen.
        """
        name = type(error).__name__
        if isinstance(error, self.foreseen):
            return str(error) or name

        self.row += 1
        self._show(error)
        if self.row >= MOST and not self.cleared:
            rule = f"{self.row} utterances in a row failed in a way nobody foresaw"
            raise ProgramFault(f"{rule}, so the run stops; the last: {error!r}") from error
        return f"{name}: {error}"

    def _show(self, error: Exception) -> None:
        """Print the traceback of an error unless one raised on the same line has been shown."""
        kind: tuple = (type(error),)
        frames = traceback.extract_tb(error.__traceback__)
        if frames:
            last = frames[-1]
            kind += (last.filename, last.lineno)
        if kind in self.told:
            return
        self.told.add(kind)
        traceback.print_exception(error, file=sys.stderr)


def faults_of_reading() -> Faults:
    """Count faults of reading: odd recordings may come in hundreds."""
    return Faults((ValueError, OSError), lenient=True)
