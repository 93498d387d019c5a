"""The rules by which utterances of one source are taken or left, some shards at a time.

Letters: T tasks of the source; rows are utterances of a shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from wenet_osum import tasks
from wenet_osum.config import BatchConfig, FilterConfig, SourceConfig
from wenet_osum.dataset.columns import distinct, equal
from wenet_osum.dataset.estimate import TokenCounter, TokenEstimate, TooLong
from wenet_osum.dataset.index import SPOKEN_BYTES, TURNS, Index
from wenet_osum.dataset.stretch import Stretch, values_of
from wenet_osum.records import FRAMES_PER_S, Utterance
from wenet_osum.tasks.base import Field, Task
from wenet_osum.tasks.lid import language_code

NO_TURNS = "conversation: the decoder of phase 1 hears one recording"  # a reason
LENGTHS = {"txt": 0, "words": 1, "reply": 2}  # Utterance attribute → column of Index.lengths


class Columns(NamedTuple):
    """What the Pool keeps of utterances, by the names of its fields."""

    shard: np.ndarray
    row: np.ndarray
    seconds: np.ndarray
    frames: np.ndarray
    eligible: np.ndarray
    tokens: np.ndarray
    recordings: np.ndarray


class UtteranceFilter:
    """The rules of one source."""

    def __init__(
        self,
        source: SourceConfig,
        batch: BatchConfig,
        limits: FilterConfig,
        slowest: float,
        parse: Callable[[str], Task],
        speech_tokens: TokenCounter,
        reach: int | None,
    ) -> None:
        """Take what ``build_pool`` is given."""
        self.source = source
        self.batch = batch
        self.limits = limits
        self.slowest = slowest
        self.parse = parse
        self.speech_tokens = speech_tokens
        self.reach = reach
        self.estimate = TokenEstimate()
        self.tasks: list[Task] = []
        self.shares = np.zeros(0)
        # an utterance's own task as written → Task
        self.own: dict[str, Task] = {}
        # (tag, attribute, value) → the field can be written
        self.known: dict[tuple[str, str, str], bool] = {}
        # utterances left out, and those not asked one of the tasks, by reason
        self.dropped: Counter = Counter()
        self.restricted: Counter = Counter()
        self.too_long: dict[str, TooLong] = {}
        # task and field → a value that the field does not know
        self.examples: dict[tuple[str, str], str] = {}

    def collect_tasks(self, indices: Sequence[Index]) -> None:
        """Find the tasks of the source, and those its utterances bring along."""
        written = values_of(indices, "task")
        for name in sorted(written - {""}):
            try:
                self.own[name] = self.parse(name)
            except ValueError:
                # counted per utterance in ``_able``
                continue
        if self.source.tasks:
            named = self._named_tasks()
        else:
            named = {}
            for task in self.own.values():
                named[task.tags] = (task, 1.0)
        self.tasks = [task for task, _ in named.values()]
        shares = [share for _, share in named.values()]
        self.shares = np.array(shares, dtype=np.float64)

    def _named_tasks(self) -> dict[str, tuple[Task, float]]:
        """Read the tasks that the source names: tags → task and share."""
        named = {}
        for name, share in self.source.tasks.items():
            try:
                task = self.parse(name)
            except ValueError as error:
                raise ValueError(f"source {self.source.name!r}: {error}") from None
            named[task.tags] = (task, share)
        return named

    def apply(self, stretch: Stretch) -> Columns:
        """Return the columns of the Pool for some shards."""
        index = stretch.index
        keep = self._where(index)
        recordings = index.recordings()
        frames = self._frames(index.longest())
        self._leave_out_by_length(index, frames * recordings, keep)
        eligible = self._able(index, keep)
        tokens = self._tokens(index, eligible, keep)

        # from here on a frame is what the encoder computes, silence behind a short utterance
        # included
        frames = np.maximum(frames, self.batch.min_frames)
        eligible &= tokens <= self.batch.max_tokens
        some = eligible.any(axis=1)
        reason = f"more tokens than batch.max_tokens {self.batch.max_tokens}"
        too_long = keep & ~some
        self.dropped[reason] += int(too_long.sum())
        rows = np.flatnonzero(keep & some)
        shard, row = stretch.places(rows)
        return Columns(
            shard=shard.astype(np.int32),
            row=row.astype(np.int32),
            seconds=index.durations[rows],
            frames=frames[rows].astype(np.int32),
            eligible=eligible[rows],
            tokens=tokens[rows].astype(np.int32),
            recordings=recordings[rows].astype(np.int32),
        )

    def _frames(self, durations: np.ndarray, recordings: np.ndarray | int = 1) -> np.ndarray:
        """Count the frames of ``recordings`` that take so many seconds, at the slowest speed.

        (rows,) int64.
        """
        # one that is no number is left out by its length
        seconds = durations.astype(np.float64)
        seconds = np.nan_to_num(seconds)
        slowed = np.floor(seconds * FRAMES_PER_S / self.slowest)
        # longer results keep their speed (steps.py, speed_perturb)
        most = int(self.limits.max_s * FRAMES_PER_S) + 1
        return np.minimum(slowed.astype(np.int64) + 1, most * recordings)

    def _tokens(self, index: Index, eligible: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Count the tokens of each utterance and task, (rows, T); leave out targets too long."""
        limits = [self._target_limit(task) for task in self.tasks]
        bounds = []
        for task in self.tasks:
            texts = index.bytes_of_texts(task)
            bound = self.estimate.answer(task, index.lengths, texts)
            bounds.append(bound)
        self._leave_out_long_targets(eligible, keep, bounds, limits)
        recordings = index.recordings()
        frames = self._frames(index.durations, recordings)
        speech = self.speech_tokens(frames)
        beside = self.estimate.beside_answer(speech)
        beside += self.estimate.earlier(
            index.of_turns(TURNS),
            recordings - 1,
            index.of_turns(SPOKEN_BYTES),
        )
        tokens = np.zeros(eligible.shape, dtype=np.int64)
        for column, (bound, limit) in enumerate(
            zip(
                bounds,
                limits,
                strict=True,
            )
        ):
            tokens[:, column] = beside + np.minimum(
                bound,
                limit,
            )
        return tokens

    def _target_limit(self, task: Task) -> int:
        """Return the longest target that is read: the filter allows and the decoder reaches it."""
        limit = self.limits.target_limit(task.name, task.tags)
        if self.reach is None:
            return limit
        left = self.reach - self.estimate.prompt
        return max(1, min(limit, left))

    def _leave_out_long_targets(
        self,
        eligible: np.ndarray,
        keep: np.ndarray,
        bounds: list[np.ndarray],
        limits: list[int],
    ) -> None:
        """Clear ``eligible`` (rows, T) of targets surely too long.

        ``keep`` is cleared where no other task is left. Those likely too long are counted for the
        log.
        """
        surely = np.zeros_like(eligible)
        for column, task in enumerate(self.tasks):
            bound, limit = bounds[column], limits[column]
            asked = eligible[:, column]
            surely[:, column] = asked & self.estimate.surely_longer(
                task,
                bound,
                limit,
            )
            likely = asked & self.estimate.likely_longer(task, bound, limit)
            counts = self.too_long.setdefault(task.name, TooLong(limit))
            counts.asked += int(asked.sum())
            counts.over += int(likely.sum())
        eligible &= ~surely

        # an utterance is dropped for the first of its targets that are too long
        none = keep & ~eligible.any(axis=1)
        for column, task in enumerate(self.tasks):
            reason = f"target for {task.name} longer than {limits[column]} tokens, as estimated"
            before = surely[:, :column].any(axis=1)
            mine = surely[:, column]
            first = none & mine & ~before
            others_left = mine & ~none
            self.dropped[reason] += int(first.sum())
            self.restricted[reason] += int(others_left.sum())
        keep &= ~none

    def _where(self, index: Index) -> np.ndarray:
        """Tell which utterances have the values that the source asks for, (rows,) bool."""
        keep = np.ones(len(index), dtype=bool)
        texts = tasks.free_texts(self.source.where)
        for name, value in self.source.where.items():
            if name in texts:
                raise ValueError(
                    f"source {self.source.name!r}: where {name}: it is a free text; "
                    "select by a label or a field of the record"
                )
            wanted = language_code(str(value)) if name == "lang" else str(value)
            same = equal(index.column(name), wanted)
            self._drop(
                f"where {name} is {value}",
                ~same,
                keep,
            )
        return keep

    def _leave_out_by_length(self, index: Index, frames: np.ndarray, keep: np.ndarray) -> None:
        """Clear ``keep`` where the duration lies outside the limits; ``frames`` with padding."""
        limits, most = self.limits, self.batch.max_frames
        longest = index.longest()
        # a duration that is no number is out, too
        short = ~(longest >= limits.min_s)
        self._drop(f"shorter than {limits.min_s} s", short, keep)
        self._drop(
            f"longer than {limits.max_s} s",
            longest > limits.max_s,
            keep,
        )
        if self.reach is not None:
            self._drop(NO_TURNS, index.of_turns(TURNS) > 0, keep)
        self._drop(
            f"longer than batch.max_frames {most}",
            frames > most,
            keep,
        )

    def _drop(self, reason: str, bad: np.ndarray, keep: np.ndarray) -> None:
        """Clear ``keep`` where ``bad``, and count what was there."""
        self.dropped[reason] += int((keep & bad).sum())
        keep &= ~bad

    def _able(self, index: Index, keep: np.ndarray) -> np.ndarray:
        """Tell which tasks an utterance can be asked, (rows, T) bool.

        Clears ``keep`` for those that can be asked none.
        """
        eligible = np.zeros(
            (len(index), len(self.tasks)),
            dtype=bool,
        )
        reasons = np.full(len(index), "", dtype=object)
        lacks = []
        for column, task in enumerate(self.tasks):
            asked = keep & self._asked(task, index)
            for part in task.fields:
                lacking = asked & ~self._has(part, index)
                asked &= ~lacking
                for reason, mine in self._why(part, task, index, lacking):
                    lacks.append((reason, mine))
                    first = mine & (reasons == "")
                    reasons[first] = reason
            eligible[:, column] = asked

        # some utterances lack a field for one task only, others can be asked nothing
        none = keep & ~eligible.any(axis=1)
        for reason, lacking in lacks:
            others_left = lacking & ~none
            self.restricted[reason] += int(others_left.sum())
        without_task = none & (reasons == "")
        own = index.columns["task"][without_task]
        reasons[without_task] = [self._no_task(str(written)) for written in own]
        self.dropped.update(reasons[none].tolist())
        keep &= ~none
        return eligible

    def _why(
        self, part: Field, task: Task, index: Index, lacking: np.ndarray
    ) -> list[tuple[str, np.ndarray]]:
        """Say why ``lacking`` (rows,) have no field to write: there is none, or it has a value that
        the field does not know."""
        if not lacking.any():
            return []
        nothing = f"lacks {part.name} for {task.name}"
        attribute = part.attribute
        if attribute in LENGTHS or tasks.free_texts([attribute]):
            return [(nothing, lacking)]
        column = index.column(attribute)
        blank = equal(column, "")
        unknown = lacking & ~blank
        if not unknown.any():
            return [(nothing, lacking)]

        # The first unknown value of the source stands for all.
        values, inverse = distinct(column)
        first = inverse[unknown][0]
        example = self.examples.setdefault((task.name, part.name), values[first])
        found = f"unknown {part.name} for {task.name}, e.g. '{example}'"
        return [
            (nothing, lacking & blank),
            (found, unknown),
        ]

    def _asked(self, task: Task, index: Index) -> np.ndarray:
        """Tell which utterances a task is meant for: all, or those that prescribe it."""
        if self.source.tasks:
            return np.ones(len(index), dtype=bool)
        return self._owned(index, lambda own: own.tags == task.tags)

    def _no_task(self, own: str) -> str:
        if own:
            return f"unknown task {own!r}"
        return "no task of its own; give the source tasks, e.g. tasks: {asr: 1.0}"

    def _owned(self, index: Index, test: Callable[[Task], bool]) -> np.ndarray:
        """Tell which utterances prescribe a task that passes ``test``."""
        values, inverse = distinct(index.columns["task"])
        passed = []
        for value in values:
            passed.append(value in self.own and test(self.own[value]))
        return np.array(passed, dtype=bool)[inverse]

    def _has(self, part: Field, index: Index) -> np.ndarray:
        """Tell which utterances hold a field.

        One that is empty counts as held when the utterance's own task has it: the published layout
        keeps it as tags in the text, which the index does not show. ``sample.py`` counts those
        where it is not.
        """
        if part.attribute in LENGTHS:
            column = LENGTHS[part.attribute]
            found = index.lengths[:, column] > 0
            # an empty transcript is one; a missing one is counted when the utterance is read
            if part.attribute == "txt" and self.source.without_speech:
                found = np.ones(len(index), dtype=bool)
            empty = ~found
        elif tasks.free_texts([part.attribute]):
            # whether it can be written as the field has it is seen when it is read
            found = index.text_bytes(part.attribute) > 0
            empty = ~found
        else:
            column = index.column(part.attribute)
            values, inverse = distinct(column)
            writable = [self._writable(part, value) for value in values]
            found = np.array(writable, dtype=bool)[inverse]
            blank = [value == "" for value in values]
            empty = np.array(blank, dtype=bool)[inverse]
        if not empty.any() or part.attribute == "txt":
            return found
        inside = self._owned(index, lambda own: _holds(own, part))
        with_text = index.lengths[:, LENGTHS["txt"]] > 0
        return found | (empty & inside & with_text)

    def _writable(self, part: Field, value: str) -> bool:
        """Tell whether a value is one that the field can be written with."""
        name = (
            part.tag,
            part.attribute,
            value,
        )
        if name not in self.known:
            holder = Utterance("-", "-").with_values({part.attribute: value})
            self.known[name] = bool(value) and part.present(holder)
        return self.known[name]


def _holds(task: Task, part: Field) -> bool:
    """Tell whether a task has a field."""
    return any(field.tag == part.tag for field in task.fields)
