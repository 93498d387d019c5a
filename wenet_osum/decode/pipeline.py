"""A list in, answers out.

Utterances are sorted by length, batched, read ahead and decoded; long audio is decoded in pieces.
What cannot be read or decoded becomes a Hypothesis with its ``error``: every input has an answer.
Only what strikes every utterance alike ends a run (faults.py).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wenet_osum.dataset import audio
from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.conversation import make_conversation
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.sample import SampleConfig, prompt_language, sample_from_audio
from wenet_osum.decode import ctc_search, longform, prefix_text
from wenet_osum.decode.aligner import Aligner
from wenet_osum.decode.context import Telling, of_later_piece
from wenet_osum.decode.faults import Faults, ProgramFault, faults_of_reading
from wenet_osum.decode.generate import generate
from wenet_osum.decode.heard_labels import fields_heard
from wenet_osum.decode.jobs import Job, group_jobs
from wenet_osum.decode.modes import CTC_MODES
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.shortened import flag_shortened
from wenet_osum.records import FRAME_S, SAMPLE_RATE, Hypothesis, Sample, Utterance
from wenet_osum.tasks.base import Task

if TYPE_CHECKING:
    from wenet_osum.models.osum import OsumModel
    from wenet_osum.models.whisper import WhisperPhase
    from wenet_osum.text.template import Template

# Audio may be longer than its list says by so much rounding.
ROUNDING_S = 0.01
NO_AUDIO = np.zeros(0, np.float32)
# Samples, and answers, with their places in the list.
Loaded = list[tuple[int, Sample]]
Answers = list[tuple[int, Hypothesis]]


@dataclass
class Recognizer:
    """A model with everything that decides how it is asked."""

    model: OsumModel | WhisperPhase
    template: Template
    options: DecodeOptions = field(default_factory=DecodeOptions)
    # None: each utterance's own
    task: Task | None = None
    # the user's wording; None: the task's first prompt
    prompt: str | None = None
    # language of the prompts, whatever the utterance's
    lang: str = "zh"
    # most utterances in a batch
    batch_size: int = 16
    # most frames of 10 ms in a batch, padding included
    max_frames: int = 24000
    # seconds of a piece of long audio
    longest_s: float = longform.LONGEST_S
    # gives the words of answers their times; None: they are as the LLM wrote them
    aligner: Aligner | None = None
    # hotwords and the text before
    telling: Telling = field(default_factory=Telling)
    # steps, ties, flags, errors
    counts: Counter = field(default_factory=Counter)
    reading: Faults = field(default_factory=faults_of_reading)
    # a model that has failed eight times in a row is broken
    decoding: Faults = field(default_factory=Faults)

    @property
    def whole_s(self) -> float:
        """Return up to how many seconds audio stays in one piece."""
        return longform.whole_s(self.longest_s)

    def groups(self, jobs: Iterable[Job]) -> list[list[Job]]:
        """Put jobs in batches, as this recognizer decodes them."""
        return group_jobs(jobs, self.batch_size, self.max_frames, self.whole_s)

    @property
    def mels(self) -> int:
        """Return the number of mel bins that the model listens to."""
        return self.model.encoder.mels

    def run(self, jobs: list[list[Job]]) -> Iterator[tuple[list[Job], Answers]]:
        """Answer groups of jobs, each as one batch."""
        with ThreadPoolExecutor(1) as reader:
            for group, loaded, answers in self._read_ahead(jobs, reader):
                answers += self._decode(loaded)
                for job in group:
                    if job.is_long(self.whole_s) and not job.error:
                        answer = self._answer_long(job)
                        answers.append((job.index, answer))

                flag_shortened(group, answers, self.counts)
                failed = [answer for _, answer in answers if answer.error is not None]
                self.counts["errors"] += len(failed)
                yield group, answers

    def _read_ahead(
        self, jobs: list[list[Job]], reader: ThreadPoolExecutor
    ) -> Iterator[tuple[list[Job], Loaded, Answers]]:
        """Load groups in a thread; the next group is read while this one is decoded."""
        ahead = iter(jobs)
        waiting = []
        for group in islice(ahead, 2):
            waiting.append((group, reader.submit(self._load, group)))
        while waiting:
            group, loading = waiting.pop(0)
            loaded, failed = loading.result()
            for following in islice(ahead, 1):
                waiting.append((following, reader.submit(self._load, following)))
            yield group, loaded, failed

    def _load(self, group: list[Job]) -> tuple[Loaded, Answers]:
        """Read, decode and transform the audio of a group; long recordings are left for later."""
        loaded, failed = [], []
        for job in group:
            try:
                if job.error:
                    raise Drop(job.error)
                if job.is_long(self.whole_s):
                    continue
                sample = self._load_whole(job)
            # Whatever a library raises for an odd file.
            except Exception as error:
                reason = self.reading.failed(error)
                failed.append((job.index, self._failed(job.key, reason)))
            else:
                loaded.append((job.index, sample))
                self.reading.worked()
        return loaded, failed

    def _load_whole(self, job: Job) -> Sample:
        """Load a recording that stays in one piece."""
        utterance, source = job.read()
        if utterance.turns:
            return self.load_conversation(utterance, source)
        if isinstance(source, Path):
            source = source.read_bytes()
        samples = audio.decode(source)
        return self.load(utterance, samples)

    def _failed(self, key: str, reason: str) -> Hypothesis:
        """Make the answer of an utterance that has none."""
        tags = self.task.tags if self.task else ""
        return Hypothesis(key, tags, "", error=reason)

    def load(self, utterance: Utterance, samples: np.ndarray, is_later: bool = False) -> Sample:
        """Make features and prompt of 16 kHz audio (samples,).

        ``is_later`` says that it is a piece with another before it. Raises Drop for audio that is
        longer than its list says, and when neither the utterance nor the run names a task.
        """
        longest = (self.whole_s + ROUNDING_S) * SAMPLE_RATE
        if len(samples) > longest:
            seconds = len(samples) / SAMPLE_RATE
            raise Drop(
                "audio: longer than its list says",
                f"{seconds:.2f} s; correct its duration, so that it is split",
            )
        task = self.task_of(utterance)
        utterance = self._asked_with(utterance, task)
        if is_later:
            utterance = of_later_piece(utterance)
        return sample_from_audio(utterance, samples, task, self.template, self._sampling)

    def _asked_with(self, utterance: Utterance, task: Task) -> Utterance:
        """Give an utterance the wording and the context that the run asks it with."""
        if self.prompt:
            utterance = dataclasses.replace(utterance, prompt=task.fill(self.prompt, utterance))
        wording = self._wording(task) if utterance.prompt is None else utterance.prompt
        return self.telling.told(utterance, self.template, wording, self.counts)

    def _wording(self, task: Task) -> str:
        """Return the prompt that a task has by itself."""
        lang = prompt_language(self.template, task, self.lang)
        return self.template.prompt_text(task, lang)

    def given(self, hotwords: list[str] | None, previous: str | None) -> Recognizer:
        """Copy it with another context; None leaves what it has.

        Raises ValueError for one that is none, and where it would not reach the model.
        """
        telling = self.telling.giving(hotwords, previous)
        wording = self.prompt or ""
        if self.task and not wording:
            wording = self._wording(self.task)
        telling.check(self.template, wording, self.options)
        return dataclasses.replace(self, telling=telling)

    def load_conversation(self, utterance: Utterance, sounds: list[bytes]) -> Sample:
        """Make features and texts of a conversation, whose last turn is to be answered.

        ``sounds`` are the audio files of its recordings in order. Raises Drop, also for a recording
        that would have to be split, and for a way of decoding that hears one recording only.
        """
        if self.options.mode in CTC_MODES or not hasattr(self.model, "llm"):
            told = f"{utterance.key!r} has earlier turns, and no LLM reads them"
            raise Drop(
                "conversation: needs an LLM", f"{told}; use mode attention and a model with one"
            )
        task = self.task_of(utterance)
        utterance = self._asked_with(utterance, task)
        sample = make_conversation(utterance, sounds, task, self.template, self._sampling)
        for turn in (*sample.turns, sample):
            seconds = len(turn.features) * FRAME_S
            if seconds > self.whole_s + ROUNDING_S:
                raise self._too_long(seconds)
        return sample

    def _too_long(self, seconds: float) -> Drop:
        """Return the fault of a conversation that would have to be split."""
        told = f"{seconds:.2f} s; cut it into recordings of up to {self.whole_s:g} s"
        return Drop("conversation: a recording is too long", told)

    @property
    def _sampling(self) -> SampleConfig:
        """How samples are made."""
        return SampleConfig(self.mels, answers=False, prompt_lang=self.lang)

    def task_of(self, utterance: Utterance) -> Task:
        """Return the task that the utterance is decoded for.

        Raises Drop when neither the run nor the utterance names one.
        """
        task = self.task
        if task is None:
            if not utterance.task:
                raise Drop(
                    "no task",
                    f"{utterance.key!r} names none; give --task, or a task in the list",
                )
            task = self.template.task(utterance.task)

        why = self.refusal(task)
        if why:
            raise Drop("task", why)
        return task

    def refusal(self, task: Task) -> str | None:
        """Say why the way of decoding cannot answer a task; None: it can."""
        if self.options.mode not in CTC_MODES:
            return prefix_text.refusal(task, self.template, self.options)
        return ctc_search.refusal(task, self.options.mode, fields_heard(self.model))

    def _decode(self, loaded: Loaded) -> Answers:
        """Decode as one batch; what fails has its error in its answer."""
        samples = [sample for _, sample in loaded]
        found = self._decode_halving(samples)
        answers: Answers = []
        for (index, sample), one in zip(loaded, found, strict=True):
            if isinstance(one, Exception):
                reason = self.decoding.failed(one)
                one = self._failed(sample.key, reason)
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
                told = Drop("out of memory", "one utterance does not fit; use dtype bfloat16")
                return [told if full else error]
        else:
            self.decoding.worked()
            return answers

        # Only here, for the exception keeps the tensors of the batch.
        if full:
            torch.cuda.empty_cache()
        half = len(items) // 2
        first = self._decode_halving(items[:half])
        second = self._decode_halving(items[half:])
        return first + second

    def decode(self, samples: list[Sample]) -> list[Hypothesis]:
        """Decode samples as one batch."""
        batch = collate(samples)
        search = {"options": self.options, "counts": self.counts}
        search_of = ctc_search.generate if self.options.mode in CTC_MODES else generate
        answers = search_of(self.model, self.template, batch, **search)
        if self.aligner is not None:
            self.aligner.retime(batch, answers)
        return answers

    # -- long audio ---------------------------------------------------------------------------

    def _answer_long(self, job: Job) -> Hypothesis:
        """Answer a long recording; what fails has its error in its answer."""
        try:
            utterance, source = job.read()
            if utterance.turns:
                raise self._too_long(job.seconds)
            # A whole file holds more than the segment; bytes are the segment alone.
            start = end = None
            if isinstance(source, Path):
                start, end = utterance.start, utterance.end
            answer = self.answer_long(utterance, source, start, end)
        except ProgramFault:
            raise
        # Whatever a library raises for an odd file.
        except Exception as error:
            reason = self.reading.failed(error)
            return self._failed(job.key, reason)
        self.reading.worked()
        return answer

    def answer_long(
        self,
        utterance: Utterance,
        source: bytes | Path,
        start: float | None = None,
        end: float | None = None,
    ) -> Hypothesis:
        """Answer a recording of any length; memory holds one batch of pieces at a time.

        Raises Drop for a recording that cannot be read or has a piece that cannot be decoded.
        """
        task = self.task_of(utterance)
        pieces, answers = [], []
        stream = longform.read_pieces(source, start, end, self.longest_s)
        for group in self._grouped(stream):
            items = [self._load_piece(utterance, piece) for piece in group]
            asked = self
            if pieces and self.options.prefix_text:
                # Only the first piece begins with the given text.
                rest = prefix_text.without(self.options)
                asked = dataclasses.replace(self, options=rest)
            pieces += group
            answers += asked._decode_pieces(items)
        if not answers:
            raise Drop("audio: empty", "nothing of it can be decoded")
        if len(answers) == 1:
            answers[0].key = utterance.key
            return answers[0]
        joined = longform.join(pieces, answers, task, utterance.key)
        # The flags of the pieces are counted already.
        flags = [flag for flag in joined.flags if flag in longform.FLAGS]
        self.counts.update(flags)
        return joined

    def _grouped(self, pieces: Iterator[longform.Piece]) -> Iterator[list[longform.Piece]]:
        """Yield the pieces of a recording as batches; one that begins with a text is alone."""
        size = self._pieces_together()
        if self.options.prefix_text:
            yield list(islice(pieces, 1))
        while group := list(islice(pieces, size)):
            yield group

    def _pieces_together(self) -> int:
        """Return how many pieces are decoded as one batch."""
        frames = round(self.whole_s / FRAME_S)
        fitting = self.max_frames // frames
        return max(1, min(self.batch_size, fitting))

    def _load_piece(self, utterance: Utterance, piece: longform.Piece) -> Sample:
        """Make the features of a piece, and let go of its audio."""
        sample = self._load_padded(utterance, piece.audio, is_later=piece.start > 0)
        sample.key = f"{utterance.key}@{piece.start:.2f}"
        # Not a slice, which would keep the whole.
        piece.audio = NO_AUDIO
        return sample

    def _load_padded(
        self, utterance: Utterance, samples: np.ndarray, is_later: bool = False
    ) -> Sample:
        """Make the features of 16 kHz audio (samples,), which may be shorter than a frame."""
        missing = max(0, audio.MIN_SAMPLES - len(samples))
        return self.load(utterance, np.pad(samples, (0, missing)), is_later=is_later)

    def answer_samples(self, utterance: Utterance, samples: np.ndarray) -> Hypothesis:
        """Answer 16 kHz audio (samples,) of up to ``whole_s``; what goes wrong is raised."""
        [answer] = self.decode([self._load_padded(utterance, samples)])
        return answer

    def _decode_pieces(self, items: list[Sample]) -> list[Hypothesis]:
        """Decode pieces of a recording. Raises Drop where one fails: a text with a hole is none."""
        found = self._decode_halving(items)
        for item, one in zip(items, found, strict=True):
            if isinstance(one, Exception):
                reason = self.decoding.failed(one)
                raise Drop(reason, f"in the piece {item.key}")
        return found
