"""Who can be drawn: the utterances of one source of the mixture that pass its filters, with what each costs and can be asked.

Letters: n utterances of a source that are left, T tasks of the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wenet_osum import lookup, tasks
from wenet_osum.config import BatchConfig, FilterConfig, SourceConfig
from wenet_osum.dataset.index import Index, column_names
from wenet_osum.records import Utterance
from wenet_osum.tasks.base import Field, Task

FRAMES_A_SECOND = 100
BOUNDARIES = 2  # speech start and speech end
MANY = 0.05  # share of a task's targets beyond their limit that is worth a warning
LENGTHS = {"txt": 0, "words": 1, "reply": 2}  # Utterance attribute → column of Index.lengths
TokenCounter = Callable[[np.ndarray], np.ndarray]  # frames (n,) → speech tokens (n,), at most


def published_rate(frames: np.ndarray) -> np.ndarray:
    """Count speech tokens as OSUM's published adapter makes them: 12.5 per second. A run asks its own model."""
    return -(-frames // 8)


@dataclass(frozen=True)
class TokenEstimate:
    """How many tokens texts will take, judged from their sizes; the defaults are safe for byte-level vocabularies."""

    prompt: int = 32  # longest prompt and what stands behind the speech, tokens
    per_byte: float = 1.0  # tokens a byte of free text, UTF-8
    per_word: int = 16  # tokens of both times of a word
    label: int = 16  # tokens of the longest label, or of the mark before a reply
    # task tags → what a target really takes of ``answer``: the least share that was met, and the
    # mean one; not measured: unknown, all
    measured: dict[str, tuple[float, float]] = field(default_factory=dict)

    def surely_longer(self, task: Task, answer: np.ndarray, limit: int) -> np.ndarray:
        """(n,) bool: targets of ``answer`` tokens over ``limit`` however well their text merges."""
        return answer * self.measured.get(task.tags, (0.0, 1.0))[0] > limit

    def likely_longer(self, task: Task, answer: np.ndarray, limit: int) -> np.ndarray:
        """(n,) bool: targets of ``answer`` tokens over ``limit`` if their text merges as most does."""
        return answer * self.measured.get(task.tags, (0.0, 1.0))[1] > limit

    def answer(self, task: Task, lengths: np.ndarray) -> np.ndarray:
        """Most tokens of the target with its end: (n, 3) lengths of an Index → (n,) int64."""
        txt, words, reply = lengths.astype(np.int64).T
        total = np.ones(len(lengths))
        for part in task.fields:
            if part.attribute == "words":  # pieces between times merge less than running text: count every byte
                total += txt + words * (self.per_word + 1)
            elif part.kind == "transcript":
                total += np.ceil(txt * self.per_byte)
            else:
                total += self.label + (np.ceil(reply * self.per_byte) if part.kind == "reply" else 0)
        return total.astype(np.int64)


@dataclass
class TooLong:
    """Targets of one task of a source against their limit, as estimated before anything is read."""

    limit: int  # tokens
    asked: int = 0  # utterances that could be asked the task
    over: int = 0  # those whose target is likely longer than the limit

    @property
    def share(self) -> float:
        """0 to 1"""
        return self.over / max(1, self.asked)


@dataclass
class Pool:
    """One source, filtered."""

    source: SourceConfig
    indices: list[Index]
    tasks: list[Task]
    shares: np.ndarray  # (T,) float64
    shard: np.ndarray  # (n,) int32, position in ``indices``
    row: np.ndarray  # (n,) int32, position in the shard
    seconds: np.ndarray  # (n,) float32, as recorded
    frames: np.ndarray  # (n,) int32, at the slowest speed
    eligible: np.ndarray  # (n, T) bool: the utterance has what the task asks for
    tokens: np.ndarray  # (n, T) int32, prompt + speech + answer
    dropped: Counter = field(default_factory=Counter)  # utterances left out, by reason
    restricted: Counter = field(default_factory=Counter)  # utterances that stay, but not for this task, by reason
    # task name → its targets against their limit
    too_long: dict[str, TooLong] = field(default_factory=dict)
    # passes over the list in the epochs before this one; None: as many as its weight says
    passes_before: float | None = None

    def __len__(self) -> int:
        return len(self.row)


def build_pool(
    source: SourceConfig,
    indices: list[Index],
    batch: BatchConfig,
    limits: FilterConfig,
    estimate: Callable[[list[Task]], TokenEstimate] | None = None,
    slowest: float = 1.0,
    parse: Callable[[str], Task] = tasks.parse,
    speech_tokens: TokenCounter = published_rate,
    reach: int | None = None,
) -> Pool:
    """Judge every utterance of a source from its index.

    ``estimate`` gives token counts for the source's tasks, ``slowest`` is the smallest speed factor of training (frames are counted for it),
    ``parse`` reads a task's name, ``speech_tokens`` says how many tokens so many frames become at most, ``reach`` is how many tokens of
    prompt and answer a decoder can take. An utterance stays when its
    columns meet ``source.where``, its duration lies within the limits, and it can be asked at least one task: those of ``source.tasks``, else its
    own. Raises ValueError for an unknown task or column, and when nothing is left, with the reasons.
    """
    columns, dropped = [*column_names()], Counter()
    for name in source.where:
        if name not in columns:
            raise ValueError(f"source {source.name!r}: where: {lookup.unknown('column', name, columns)}")
    judge = _Judge(source, batch, limits, slowest, parse, speech_tokens, reach)
    judge.collect_tasks(indices)
    judge.estimate = estimate(judge.tasks) if estimate else judge.estimate
    parts = [judge.shard(number, index, dropped) for number, index in enumerate(indices)]
    arrays = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else []
    dropped = Counter({f"{source.name}: {reason}": count for reason, count in dropped.items() if count})
    if not arrays or not len(arrays[0]):
        reasons = "; ".join(f"{count} × {reason}" for reason, count in dropped.most_common()) or "the list holds no utterance"
        raise ValueError(f"source {source.name!r}: nothing left of {source.list} ({reasons}); correct the list, tasks, where or filter")
    restricted = Counter({f"{source.name}: {reason}": count for reason, count in judge.restricted.items() if count})
    counts = {"dropped": dropped, "restricted": restricted, "too_long": judge.too_long}
    return Pool(source, indices, judge.tasks, judge.shares, *arrays, **counts)


def tell_long_targets(pools: list[Pool]) -> list[str]:
    """Tell the share of targets beyond their limit by list and task, and warn of those above ``MANY``."""
    found = {f"{pool.source.name}/{name}": (name, row) for pool in pools for name, row in pool.too_long.items() if row.asked}
    shares = [f"{source_task} {100 * row.share:.1f} % of {row.asked} over {row.limit} tokens" for source_task, (_, row) in found.items()]
    lines = [f"targets too long, as estimated by list/task: {', '.join(shares)}"] if shares else []
    for source_task, (name, row) in found.items():
        if row.share > MANY:
            lines.append(
                f"warning: {source_task} loses {100 * row.share:.1f} % of its utterances, whose targets have over {row.limit} tokens; "
                f"raise filter.max_target_tokens for {name} as far as batch.max_tokens and the decoder allow, or cut the audio"
            )
    return lines


class _Judge:
    """The rules of one source, applied shard by shard."""

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
        self.source, self.batch, self.limits, self.slowest, self.parse = source, batch, limits, slowest, parse
        self.speech_tokens, self.reach = speech_tokens, reach
        self.too_long: dict[str, TooLong] = {}
        self.estimate = TokenEstimate()
        self.own: dict[str, Task] = {}  # an utterance's own task as written → Task
        self.tasks: list[Task] = []
        self.shares = np.zeros(0)
        self.known: dict[tuple[str, str, str], bool] = {}  # (tag, attribute, value) → the field can be written
        self.restricted: Counter = Counter()

    def collect_tasks(self, indices: list[Index]) -> None:
        """The tasks of the source, and those its utterances bring along."""
        for name in sorted({str(v) for index in indices for v in np.unique(index.columns["task"])} - {""}):
            try:
                self.own[name] = self.parse(name)
            except ValueError:
                continue  # counted per utterance in ``_able``
        if self.source.tasks:
            try:
                named = {self.parse(name).tags: (self.parse(name), share) for name, share in self.source.tasks.items()}
            except ValueError as error:
                raise ValueError(f"source {self.source.name!r}: {error}") from None
            self.tasks, self.shares = [t for t, _ in named.values()], np.array([s for _, s in named.values()], dtype=np.float64)
        else:
            self.tasks = [*{t.tags: t for t in self.own.values()}.values()]
            self.shares = np.ones(len(self.tasks))

    def shard(self, number: int, index: Index, dropped: Counter) -> tuple[np.ndarray, ...]:
        """Columns of the Pool for one shard."""
        keep = self._where(index, dropped)
        frames = np.floor(index.durations.astype(np.float64) * FRAMES_A_SECOND / self.slowest).astype(np.int64) + 1
        frames = np.minimum(frames, int(self.limits.max_s * FRAMES_A_SECOND) + 1)  # longer results keep their speed (see sample.py)
        for reason, bad in self._too_short_or_long(index, frames).items():
            dropped[reason] += int((keep & bad).sum())
            keep &= ~bad
        eligible = self._able(index, keep, dropped)
        limits = [self._target_limit(task) for task in self.tasks]
        bounds = [self.estimate.answer(task, index.lengths) for task in self.tasks]
        self._leave_out_long_targets(eligible, keep, bounds, limits, dropped)
        speech = self.speech_tokens(frames) + BOUNDARIES + self.estimate.prompt
        answers = [np.minimum(bound, limit) for bound, limit in zip(bounds, limits, strict=True)]
        tokens = np.stack([speech + a for a in answers], axis=1) if answers else np.zeros((len(index), 0), np.int64)
        # from here on a frame is what the encoder computes, silence behind a short utterance
        # included
        frames = np.maximum(frames, self.batch.min_frames)
        eligible &= tokens <= self.batch.max_tokens
        dropped[f"more tokens than batch.max_tokens {self.batch.max_tokens}"] += int((keep & ~eligible.any(axis=1)).sum())
        rows = np.flatnonzero(keep & eligible.any(axis=1))
        shards = np.full(len(rows), number, dtype=np.int32)
        return shards, rows.astype(np.int32), index.durations[rows], frames[rows].astype(np.int32), eligible[rows], tokens[rows].astype(np.int32)

    def _target_limit(self, task: Task) -> int:
        """The longest target that is read: what the filter allows and the decoder reaches."""
        limit = self.limits.target_limit(task.name, task.tags)
        return limit if self.reach is None else max(1, min(limit, self.reach - self.estimate.prompt))

    def _leave_out_long_targets(
        self,
        eligible: np.ndarray,
        keep: np.ndarray,
        bounds: list[np.ndarray],
        limits: list[int],
        dropped: Counter,
    ) -> None:
        """Clear ``eligible`` (rows, T) of targets surely too long, ``keep`` where no other task is left.

        Those likely too long are counted for the log.
        """
        surely = np.zeros_like(eligible)
        for column, (task, bound, limit) in enumerate(zip(self.tasks, bounds, limits, strict=True)):
            asked = eligible[:, column]
            surely[:, column] = asked & self.estimate.surely_longer(task, bound, limit)
            counts = self.too_long.setdefault(task.name, TooLong(limit))
            counts.asked += int(asked.sum())
            counts.over += int((asked & self.estimate.likely_longer(task, bound, limit)).sum())
        eligible &= ~surely
        none = keep & ~eligible.any(axis=1)
        for column, (task, limit) in enumerate(zip(self.tasks, limits, strict=True)):
            reason = f"target for {task.name} longer than {limit} tokens, as estimated"
            first = surely[:, column] & ~surely[:, :column].any(axis=1)
            dropped[reason] += int((none & first).sum())
            self.restricted[reason] += int((surely[:, column] & ~none).sum())
        keep &= ~none

    def _where(self, index: Index, dropped: Counter) -> np.ndarray:
        keep = np.ones(len(index), dtype=bool)
        for name, value in self.source.where.items():
            bad = keep & (index.column(name) != str(value))
            dropped[f"where {name} is {value}"] += int(bad.sum())
            keep &= ~bad
        return keep

    def _too_short_or_long(self, index: Index, frames: np.ndarray) -> dict[str, np.ndarray]:
        return {
            f"shorter than {self.limits.min_s} s": ~(index.durations >= self.limits.min_s),  # a NaN is out, too
            f"longer than {self.limits.max_s} s": index.durations > self.limits.max_s,
            f"longer than batch.max_frames {self.batch.max_frames}": frames > self.batch.max_frames,
        }

    def _able(self, index: Index, keep: np.ndarray, dropped: Counter) -> np.ndarray:
        """(rows, T): which tasks an utterance can be asked. Clears ``keep`` for those that can be asked none."""
        eligible = np.zeros((len(index), len(self.tasks)), dtype=bool)
        reasons, lacks = np.full(len(index), "", dtype=object), []
        for column, task in enumerate(self.tasks):
            asked = keep.copy() if self.source.tasks else keep & self._owned(index, lambda own, t=task: own.tags == t.tags)
            eligible[:, column] = asked
            for part in task.fields:
                lacking = eligible[:, column] & ~self._has(part, index)
                eligible[lacking, column] = False
                reason = f"lacks {part.name} for {task.name}"
                lacks.append((reason, lacking))
                reasons[lacking & (reasons == "")] = reason
        none = keep & ~eligible.any(axis=1)
        self.restricted.update({reason: int((lacking & ~none).sum()) for reason, lacking in lacks})
        without_task = none & (reasons == "")
        reasons[without_task] = [self._no_task(str(own)) for own in index.columns["task"][without_task]]
        dropped.update(Counter(reasons[none].tolist()))
        keep &= ~none
        return eligible

    def _no_task(self, own: str) -> str:
        return f"unknown task {own!r}" if own else "no task of its own; give the source tasks, e.g. tasks: {asr: 1.0}"

    def _owned(self, index: Index, test: Callable[[Task], bool]) -> np.ndarray:
        """Which utterances bring along a task that passes ``test``."""
        values, inverse = np.unique(index.columns["task"], return_inverse=True)
        return np.array([str(v) in self.own and test(self.own[str(v)]) for v in values], dtype=bool)[inverse]

    def _has(self, part: Field, index: Index) -> np.ndarray:
        """Which utterances hold a field.

        One that is empty counts as held when the utterance's own task has it: the published layout keeps it as tags in the text, which the index
        does not show. ``sample.py`` counts those where it is not.
        """
        if part.attribute in LENGTHS:
            found = index.lengths[:, LENGTHS[part.attribute]] > 0
            empty = ~found
        else:
            values, inverse = np.unique(index.column(part.attribute), return_inverse=True)
            found = np.array([self._writable(part, str(v)) for v in values], dtype=bool)[inverse]
            empty = (values == "")[inverse]
        if not empty.any() or part.attribute == "txt":
            return found
        inside = self._owned(index, lambda own: any(f.tag == part.tag for f in own.fields))
        return found | (empty & inside & (index.lengths[:, LENGTHS["txt"]] > 0))

    def _writable(self, part: Field, value: str) -> bool:
        name = (part.tag, part.attribute, value)
        if name not in self.known:
            holder = Utterance("-", "-").with_values({part.attribute: value})
            self.known[name] = bool(value) and part.present(holder)
        return self.known[name]
