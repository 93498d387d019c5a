"""A trained model as a function: sound in, answer out.

    m = wenet_osum.load("exp/x/final")
    m("a.wav", task="<TRANSCRIBE><EMOTION>").labels
    m(["a.wav", samples, open("b.flac", "rb")])  # a list, decoded in batches

Recordings of any length are taken; over 30 s they are split at pauses and joined again
(longform.py).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from numbers import Number
from pathlib import Path
from typing import Any

import torch

from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.sound import Sound, check_rate, source_of
from wenet_osum.decode import load as loading
from wenet_osum.decode import options
from wenet_osum.decode.jobs import Job
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.progress import ProgressBar
from wenet_osum.records import SAMPLE_RATE, Hypothesis, Utterance


class Transcriber:
    """A model that is ready to answer. Call it with one sound or a list of them."""

    def __init__(self, recognizer: Recognizer) -> None:
        self.recognizer = recognizer

    def __call__(
        self,
        audio: Sound | list[Sound],
        task: str | None = None,
        *,
        rate: int = SAMPLE_RATE,
        prompt: str | None = None,
        lang: str | None = None,
    ) -> Hypothesis | list[Hypothesis]:
        """Answer a sound, or a list of sounds with a list in the same order.

        A sound is the path of an audio file, its bytes, an open file, an array or tensor of samples
        at ``rate`` Hz, a tuple (samples, rate), or a dict ``{"array": samples, "sampling_rate":
        Hz}`` as `datasets` gives it. ``task`` is a name or tags, ``prompt`` the wording to ask
        with, ``lang`` the language of the task's own prompt (zh or en); without them those given to
        ``load`` hold.

        Returns a Hypothesis: ``text`` (raw), ``transcript``, ``words`` with times in s, ``labels``
        with ``probs``, ``reply``, ``duration`` in s. Raises ValueError for an unknown task, a bad
        rate, and a single sound that cannot be answered; in a list such a sound has ``error``.
        """
        several = isinstance(audio, list)
        sounds = audio if several else [audio]
        if several and any(isinstance(item, Number) for item in audio):
            raise ValueError(
                "a list holds several sounds, and a number is none; "
                "give samples as one array, numpy.array(…)"
            )
        check_rate(rate)
        asked = self.asked(task, prompt, lang)
        jobs = [make_job(index, item, rate) for index, item in enumerate(sounds)]
        answers = list(self.answers(jobs, asked))
        if several:
            return answers

        [answer] = answers
        if answer.error:
            raise ValueError(f"{answer.key}: {answer.error}")
        return answer

    def asked(
        self, task: str | None = None, prompt: str | None = None, lang: str | None = None
    ) -> Recognizer:
        """Return the recognizer with another task or prompt.

        Raises ValueError when there is none of that name.
        """
        own = self.recognizer
        chosen = own.task
        if task is not None:
            chosen = own.template.task(task)
        why = own.refusal(chosen)
        if why:
            raise ValueError(why)

        asked = dataclasses.replace(
            own,
            task=chosen,
            prompt=prompt or own.prompt,
            lang=lang or own.lang,
        )
        # A language without a prompt is refused here, not at the first sound.
        own.template.prompt_text(chosen, asked.lang)
        return asked

    def answers(
        self, jobs: list[Job], asked: Recognizer | None = None, progress: ProgressBar | None = None
    ) -> Iterator[Hypothesis]:
        """Yield answers in the order of the jobs, whose places count from 0.

        Each comes as soon as those before it have come.
        """
        asked = asked or self.recognizer
        waiting: dict[int, Hypothesis] = {}
        given = 0
        groups = asked.groups(jobs)
        for group, answers in asked.run(groups):
            waiting |= dict(answers)
            if progress:
                seconds = sum(job.seconds for job in group)
                progress.add(len(group), seconds)
            while given in waiting:
                yield waiting.pop(given)
                given += 1


def load(
    model: str | os.PathLike, task: str = "asr", device: str | None = None, **settings: Any
) -> Transcriber:
    """Load a model folder, or a hub name, for answering.

    ``device`` such as "cpu" or "cuda:1" overrides the choice of the accelerator there is.
    ``settings`` are the options of decoding (options.py), such as ``num_beams=4`` or
    ``rescore={"ctc_prefix": 0.5}``. Raises ValueError for an unknown or bad setting and a folder
    that holds no fitting model.
    """
    if task == "auto":
        raise ValueError(
            "task 'auto' needs a list whose utterances name tasks; give a task name or tags"
        )
    chosen = {"threads": torch.get_num_threads(), **settings}
    args = options.from_settings(chosen)
    args.model = os.fspath(model)
    args.task = task
    recognizer = loading.recognizer(args)
    if device:
        recognizer.model.to(torch.device(device))

    # What cannot be asked is refused here, not at the first sound.
    transcriber = Transcriber(recognizer)
    transcriber.asked()
    return transcriber


def make_job(index: int, sound: Sound, rate: int = SAMPLE_RATE, key: str | None = None) -> Job:
    """Make a job of one sound; what is wrong with it is kept as the job's error.

    ``rate`` (Hz) is that of bare samples.
    """
    name = key or _name(sound, index)
    job = Job(index, name, 0.0, lambda: (Utterance(name, name), source))
    try:
        source = source_of(sound, rate)
        job.seconds = read_duration(source)
    except (ValueError, OSError) as error:
        job.error = str(error) or type(error).__name__
    # Told with its traceback when it is this sound's turn.
    except Exception as error:
        job.read = _raising(error)
    return job


def _raising(error: Exception) -> Callable[[], tuple[Utterance, bytes | Path]]:
    def read() -> tuple[Utterance, bytes | Path]:
        raise error

    return read


def _name(sound: Sound, index: int) -> str:
    """Name the sound in answers: a path as it was given, else its number."""
    paths = (str, os.PathLike)
    named = sound if isinstance(sound, paths) else getattr(sound, "name", None)
    if isinstance(named, paths) and str(named):
        return os.fspath(named)
    return f"audio {index}"
