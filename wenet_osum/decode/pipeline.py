"""A list in, answers out: utterances sorted by length, batched, read ahead, decoded; long audio in pieces.

What cannot be read or decoded becomes a Hypothesis with its ``error``: every input has an answer.
Only what strikes every utterance alike ends a run (faults.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wenet_osum.dataset import audio, shard
from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.drop import Drop, Dropped
from wenet_osum.dataset.manifest import parse_line
from wenet_osum.dataset.remote import is_url
from wenet_osum.dataset.sample import SampleConfig, sample_from_audio
from wenet_osum.dataset.scan import find, line_key
from wenet_osum.decode import ctc_greedy, longform
from wenet_osum.decode.faults import Faults, ProgramFault
from wenet_osum.decode.generate import generate
from wenet_osum.decode.options import CTC_GREEDY_SEARCH, DecodeOptions
from wenet_osum.records import FRAME_S, SAMPLE_RATE, Hypothesis, Sample, Utterance
from wenet_osum.tasks.base import Task

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.models.whisper import WhisperPhase
    from wenet_osum.text.template import Template

SHORTENED = "shortened"  # flag: the recording ended before its list, or its own header, says
SHORTER_S = 0.1  # less is the rounding of durations and what an MP3 encoder adds
NO_AUDIO = np.zeros(0, np.float32)
Answers = list[tuple[int, Hypothesis]]  # with places in the list


@dataclass
class Job:
    """One utterance of the list. ``read`` raises Drop."""

    index: int  # in the list
    key: str
    seconds: float
    read: Callable[[], tuple[Utterance, bytes | Path]]  # and its audio: a whole file's bytes, or a path
    error: str | None = None  # what was found wrong with it before reading


@dataclass
class Recognizer:
    """A model with everything that decides how it is asked."""

    model: OsumModel | WhisperPhase
    template: Template
    options: DecodeOptions = field(default_factory=DecodeOptions)
    task: Task | None = None  # None: each utterance's own
    prompt: str | None = None  # the user's wording; None: the task's first prompt
    lang: str = "zh"  # language of the prompts, whatever the utterance's
    batch_size: int = 16  # utterances in a batch at most
    max_frames: int = 24000  # utterances × longest of a batch, in 10 ms frames
    longest_s: float = longform.LONGEST_S  # of a piece of long audio
    counts: Counter = field(default_factory=Counter)  # steps, ties, flags, errors
    # Odd recordings may come in hundreds; a model that has failed eight times in a row is broken.
    reading: Faults = field(default_factory=lambda: Faults((ValueError, OSError), lenient=True))
    decoding: Faults = field(default_factory=Faults)

    @property
    def whole_s(self) -> float:
        """Seconds up to which audio stays in one piece."""
        return longform.whole_s(self.longest_s)

    def groups(self, jobs: Iterable[Job]) -> list[list[Job]]:
        """The jobs in batches as this recognizer decodes them."""
        return group_jobs(jobs, self.batch_size, self.max_frames, self.whole_s)

    @property
    def mels(self) -> int:
        """Mel bins the model listens to."""
        return self.model.encoder.mels

    def run(self, jobs: list[list[Job]]) -> Iterator[tuple[list[Job], Answers]]:
        """Answer groups of jobs, each as one batch; the next group is read while this one is decoded."""
        with ThreadPoolExecutor(1) as reader:
            ahead = iter(jobs)
            waiting = [(group, reader.submit(self._load, group)) for group in islice(ahead, 2)]
            while waiting:
                group, loading = waiting.pop(0)
                loaded, answers = loading.result()
                waiting += [(g, reader.submit(self._load, g)) for g in islice(ahead, 1)]
                answers += self._decode(loaded)
                for job in group:
                    if job.seconds > self.whole_s and not job.error:
                        answers.append((job.index, self._answer_long(job)))
                self._flag_shortened(group, answers)
                self.counts["errors"] += sum(answer.error is not None for _, answer in answers)
                yield group, answers

    def _flag_shortened(self, group: list[Job], answers: Answers) -> None:
        """Flag the answers to recordings that are shorter than their list or header says.

        A segment may end behind its recording, and an MP3 may be cut: what is there is decoded.
        """
        promised = {job.index: job.seconds for job in group}
        for index, answer in answers:
            if answer.duration is not None and answer.duration < promised[index] - SHORTER_S:
                answer.flags.append(SHORTENED)
                self.counts[SHORTENED] += 1

    def _load(self, group: list[Job]) -> tuple[list[tuple[int, Sample]], Answers]:
        """Read, decode and transform the audio of a group; long recordings are left for later."""
        loaded, failed = [], []
        for job in group:
            try:
                if job.error:
                    raise Drop(job.error)
                if job.seconds <= self.whole_s:
                    utterance, source = job.read()
                    loaded.append((job.index, self.load(utterance, audio.decode(source if isinstance(source, bytes) else source.read_bytes()))))
                    self.reading.worked()
            except Exception as error:  # whatever a library raises for an odd file
                failed.append((job.index, self._failed(job.key, self.reading.failed(error))))
        return loaded, failed

    def _failed(self, key: str, reason: str) -> Hypothesis:
        return Hypothesis(key, self.task.tags if self.task else "", "", error=reason)

    def load(self, utterance: Utterance, samples: np.ndarray) -> Sample:
        """Features and prompt of 16 kHz audio (samples,). Raises Drop when the utterance names no task and the run neither."""
        if len(samples) > (self.whole_s + 0.01) * SAMPLE_RATE:
            raise Drop("audio: longer than its list says", f"{len(samples) / SAMPLE_RATE:.2f} s; correct its duration, so that it is split")
        conf = SampleConfig(self.mels, answers=False, prompt_lang=self.lang)
        sample = sample_from_audio(utterance, samples, self.task_of(utterance), self.template, conf)
        if self.prompt:
            sample.prompt_ids = self.template.encode_prompt(self.prompt)
        return sample

    def task_of(self, utterance: Utterance) -> Task:
        """The task the utterance is decoded for. Raises Drop when neither the run nor the utterance names one."""
        if self.task is None and not utterance.task:
            raise Drop("no task", f"{utterance.key!r} names none; give --task, or a task in the list")
        task = self.task or self.template.task(utterance.task)
        if why := self.refusal(task):
            raise Drop("task", why)
        return task

    def refusal(self, task: Task) -> str | None:
        """Say why the way of decoding cannot answer a task; None: it can."""
        return ctc_greedy.refusal(task) if self.options.mode == CTC_GREEDY_SEARCH else None

    def _decode(self, loaded: list[tuple[int, Sample]]) -> Answers:
        """Decode as one batch; what fails has its error in its answer."""
        found = self._decode_halving([item for _, item in loaded])
        answers: Answers = []
        for (index, item), one in zip(loaded, found, strict=True):
            if isinstance(one, Exception):
                one = self._failed(item.key, self.decoding.failed(one))
            answers.append((index, one))
        return answers

    def _decode_halving(self, items: list[Sample]) -> list[Hypothesis | Exception]:
        """Decode as one batch; what fails is tried in halves, down to the utterances at fault."""
        if not items:
            return []
        try:
            answers = self.decode(items)
        except Exception as error:
            full = isinstance(error, torch.OutOfMemoryError)
            if len(items) == 1:
                told = Drop("out of memory", "one utterance alone does not fit; use bf16")
                return [told if full else error]
        else:
            self.decoding.worked()
            return answers

        # Only here, for the exception keeps the tensors of the batch.
        if full:
            torch.cuda.empty_cache()
        half = len(items) // 2
        return self._decode_halving(items[:half]) + self._decode_halving(items[half:])

    def decode(self, samples: list[Sample]) -> list[Hypothesis]:
        """Decode samples as one batch."""
        batch = collate(samples)
        if self.options.mode == CTC_GREEDY_SEARCH:
            return ctc_greedy.generate(self.model, self.template, batch, self.options, self.counts)
        return generate(self.model, self.template, batch, options=self.options, counts=self.counts)

    def _answer_long(self, job: Job) -> Hypothesis:
        try:
            utterance, source = job.read()
            where = (utterance.start, utterance.end) if isinstance(source, Path) else (None, None)
            answer = self.answer_long(utterance, source, *where)
            self.reading.worked()
            return answer
        except ProgramFault:
            raise
        except Exception as error:  # whatever a library raises for an odd file
            return self._failed(job.key, self.reading.failed(error))

    def answer_long(self, utterance: Utterance, source: bytes | Path, start: float | None = None, end: float | None = None) -> Hypothesis:
        """Answer a recording of any length; memory holds one batch of pieces at a time.

        Raises Drop for a recording that cannot be read or has a piece that cannot be decoded.
        """
        task, pieces, answers = self.task_of(utterance), [], []
        stream = longform.read_pieces(source, start, end, self.longest_s)
        size = max(1, min(self.batch_size, self.max_frames // round(self.whole_s / FRAME_S)))
        while group := list(islice(stream, size)):
            items = [self.load(utterance, np.pad(p.audio, (0, max(0, audio.MIN_SAMPLES - len(p.audio))))) for p in group]
            for item, piece in zip(items, group, strict=True):
                item.key, piece.audio = f"{utterance.key}@{piece.start:.2f}", NO_AUDIO  # not a slice, which would keep the whole
            pieces += group
            answers += self._decode_pieces(items)
        if not answers:
            raise Drop("audio: empty", "nothing of it can be decoded")
        if len(answers) == 1:
            answers[0].key = utterance.key
            return answers[0]
        joined = longform.join(pieces, answers, task, utterance.key)
        self.counts.update(flag for flag in joined.flags if flag in longform.FLAGS)
        return joined

    def _decode_pieces(self, items: list[Sample]) -> list[Hypothesis]:
        """Decode pieces of a recording. Raises Drop where one fails: a text with a hole is none."""
        found = self._decode_halving(items)
        for item, one in zip(items, found, strict=True):
            if isinstance(one, Exception):
                raise Drop(self.decoding.failed(one), f"in the piece {item.key}")
        return found


def read_list(path: str | Path) -> tuple[list[Job], Dropped]:
    """The jobs of a list of shards or a raw list, in its order, and what was wrong with it.

    A line that cannot be used is a job with an error; a key that stood before in the list is only counted, for answers go by key.
    """
    dropped = Dropped()
    try:
        found = shard.load_list(path, dropped)
    except ValueError:
        if not dropped.pairs:
            raise
        found = []
    handles = shard.Handles()
    jobs = [Job(0, str(index.keys[i]), float(index.durations[i]), _reader(index, i, handles)) for index in found for i in range(len(index))]
    faults = [(key, reason) for key, reason in dropped.pairs if reason != "duplicate key"]
    jobs += [Job(0, key, 0.0, _unreadable, error=reason) for key, reason in faults]
    if faults and shard.list_paths(str(path)) is None:
        order = _line_numbers(str(path))
        jobs.sort(key=lambda job: order.get(job.key, len(order)))
    for index, job in enumerate(jobs):
        job.index = index
    return jobs, dropped


def _reader(index: shard.Index, i: int, handles: shard.Handles) -> Callable[[], tuple[Utterance, bytes | Path]]:
    def read() -> tuple[Utterance, bytes | Path]:
        if index.kind == "raw" and float(index.durations[i]) > longform.WHOLE_S:  # long recordings are not read whole
            utterance = parse_line(handles.read(index.path, int(index.offsets[i]), int(index.sizes[i])))
            if not is_url(utterance.wav):
                return utterance, Path(find(utterance.wav, index.path))
        return shard.read_utterance(index, i, handles)

    return read


def _unreadable() -> tuple[Utterance, bytes]:
    raise Drop("cannot be read")


def _line_numbers(path: str) -> dict[str, int]:
    """Key → line of a raw list; a line without a readable key goes by the name its fault has."""
    order: dict[str, int] = {}
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            order.setdefault(line_key(path, number), number)
            try:
                order.setdefault(parse_line(line).key, number)
            except ValueError:
                continue
    return order


def group_jobs(jobs: Iterable[Job], batch_size: int, max_frames: int, whole_s: float = longform.WHOLE_S) -> list[list[Job]]:
    """Batches of jobs of similar length, longest first: at most ``batch_size`` utterances and ``max_frames`` frames, padding included.

    What is longer than ``whole_s`` is a batch alone: of its pieces.
    """
    groups: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: (-job.seconds, job.index)):
        first = groups[-1][0].seconds if groups else 0.0
        alone = max(job.seconds, first) > whole_s
        if not groups or alone or len(groups[-1]) == batch_size or (len(groups[-1]) + 1) * first / FRAME_S > max_frames:
            groups.append([])
        groups[-1].append(job)
    return groups
