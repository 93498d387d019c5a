"""Conversations: how earlier turns stand in a manifest row, and how turns lie in a batch.

An utterance is the last turn of its conversation. What was said before stands in its ``turns``,
rows like its own without a key:

    {"key": "a", "wav": "b.wav", "task": "sttc", "txt": …, "reply": …,
     "turns": [{"wav": "a.wav", "task": "sttc", "txt": …, "reply": …}]}

A turn may have a ``prompt`` (the user's own words), a recording, and, with a ``task``, an answer. A
turn without ``task`` was not answered: it belongs to the question that the next one ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wenet_osum.devices import to_device

if TYPE_CHECKING:  # annotations only, as in records.py
    from torch import Tensor

Row = dict[str, Any]


def has_recording(turns: Any) -> bool:
    """Tell whether one of the turns of a row names a recording."""
    if not isinstance(turns, list):
        return False
    for turn in turns:
        if isinstance(turn, dict) and turn.get("wav"):
            return True
    return False


def named(key: str, turns: Any) -> list[Row]:
    """Return the turns of a row with the keys ``key#1``, ``key#2`` and so on.

    Raises ValueError where they are no rows, or have turns of their own.
    """
    rule = f"turns of {key!r} must be a list of rows like the line's own, without turns of theirs"
    if not isinstance(turns, list):
        got = str(turns)[:80]
        raise ValueError(f"{rule}, got {got}")

    rows = []
    for number, turn in enumerate(turns, 1):
        if not _is_turn(turn):
            got = str(turn)[:80]
            raise ValueError(f"{rule}, got {got}")
        row = dict(turn)
        row["key"] = f"{key}#{number}"
        row["wav"] = turn.get("wav") or ""
        rows.append(row)
    return rows


def _is_turn(turn: Any) -> bool:
    """Tell whether it is a row without turns of its own, whose recording has a name if any."""
    if not isinstance(turn, dict):
        return False
    if turn.get("turns"):
        return False
    wav = turn.get("wav")
    return wav is None or isinstance(wav, str)


def unnamed(row: Row) -> Row:
    """Return the row of a turn as it stands in a manifest: its place is its name."""
    kept = dict(row)
    del kept["key"]
    if not kept["wav"]:
        del kept["wav"]
    return kept


@dataclass
class Turns:
    """How the turns of a batch of conversations lie. All of it stays on the CPU.

    Letters: B utterances, N turns of all of them, R of which have a recording.
    """

    counts: Tensor  # (B,) int64, turns of each utterance
    spoken: Tensor  # (N,) bool, the turn has a recording
    closed: Tensor  # (N,) bool, an answer follows, and the suffix before it
    tasks: list[str]  # (N,) tags of what each turn is asked; "": its question goes on

    def owners(self) -> Tensor:
        """Return the number of the utterance that each turn belongs to, (N,)."""
        count = len(self.counts)
        numbers = self.counts.new_tensor(range(count))
        return numbers.repeat_interleave(self.counts)

    def recording_owners(self) -> Tensor:
        """Return the number of the utterance that each recording belongs to, (R,)."""
        owners = self.owners()
        return owners[self.spoken]

    def recording_tasks(self, tasks: list[str]) -> list[str]:
        """Return the task of each recording (R,): what the answer behind it is asked.

        ``tasks`` are those of the last turns (B,).
        """
        asked = list(self.tasks)
        ends = self.counts.cumsum(0) - 1
        for end, task in zip(ends.tolist(), tasks, strict=True):
            asked[end] = task

        # A turn whose question goes on is answered with the next.
        found = []
        behind = ""
        for task, spoken in zip(reversed(asked), reversed(self.spoken.tolist()), strict=True):
            behind = task or behind
            if spoken:
                found.append(behind)
        return found[::-1]

    def last_recordings(self) -> Tensor:
        """Return the number of each utterance's last recording, (B,); each has one."""
        count = len(self.counts)
        owners = self.recording_owners()
        sizes = owners.bincount(minlength=count)
        ends = sizes.cumsum(0)
        return ends - 1

    def sum_turns(self, values: Tensor) -> Tensor:
        """Add values of turns (N,) up to those of utterances, (B,)."""
        owners = self.owners()
        return self._added(values, owners)

    def sum_recordings(self, values: Tensor) -> Tensor:
        """Add values of recordings (R,) up to those of utterances, (B,)."""
        owners = self.recording_owners()
        return self._added(values, owners)

    def _added(self, values: Tensor, owners: Tensor) -> Tensor:
        count = len(self.counts)
        total = values.new_zeros(count)
        there = to_device(owners, values.device)
        return total.index_add(0, there, values)
