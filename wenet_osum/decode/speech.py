"""A trained model as a function: sound in, answer out.

    m = wenet_osum.load("exp/x/final")
    m("a.wav", task="<TRANSCRIBE><EMOTION>").labels
    m(["a.wav", samples, open("b.flac", "rb")])  # a list, decoded in batches

Recordings of any length are taken; over 30 s they are split at pauses and joined again (longform.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from numbers import Number
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from wenet_osum import lookup
from wenet_osum.dataset.audio import read_duration, write_wav
from wenet_osum.decode import load as loading
from wenet_osum.decode.pipeline import Job, Recogniser, group_jobs
from wenet_osum.decode.progress import Progress
from wenet_osum.records import SAMPLE_RATE, Hypothesis, Utterance

Array = np.ndarray | torch.Tensor  # (samples,), or with channels on the shorter axis; int16, or float with full scale 1.0
Sound = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | Array | tuple[Array, int]  # a tuple: an array with its own rate in Hz
MOST_CHANNELS = 8  # more is a batch mistaken for one recording
RATES = (1000, 768_000)  # Hz; anything else is a rate in kHz or no rate at all
LOUDEST = 100.0  # float samples beyond this are integers that were cast, not loud audio


class Transcriber:
    """A model that is ready to answer. Call it with one sound or a list of them."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser

    def __call__(
        self, audio: Sound | list[Sound], task: str | None = None, *, rate: int = SAMPLE_RATE, prompt: str | None = None, lang: str | None = None
    ) -> Hypothesis | list[Hypothesis]:
        """Answer a sound, or a list of sounds with a list in the same order.

        A sound is the path of an audio file, its bytes, an open file, an array or tensor of samples at ``rate`` Hz, or a tuple (samples, rate).
        ``task`` is a name or tags, ``prompt`` the wording to ask with, ``lang`` the language of the task's own prompt (zh or en); without
        them those given to ``load`` hold.

        Returns a Hypothesis: ``text`` (raw), ``transcript``, ``words`` with times in s, ``labels`` with ``probs``, ``reply``, ``duration`` in s.
        Raises ValueError for an unknown task, a bad rate, and a single sound that cannot be answered; in a list such a sound has ``error``.
        """
        several = isinstance(audio, list)
        if several and any(isinstance(item, Number) for item in audio):
            raise ValueError("a list holds several sounds, and a number is none; give samples as one array, numpy.array(…)")
        check_rate(rate)
        asked = self.asked(task, prompt, lang)
        jobs = [make_job(place, item, rate) for place, item in enumerate(audio if several else [audio])]
        answers = [*self.answers(jobs, asked)]
        if several:
            return answers
        if answers[0].error:
            raise ValueError(f"{answers[0].key}: {answers[0].error}")
        return answers[0]

    def asked(self, task: str | None = None, prompt: str | None = None, lang: str | None = None) -> Recogniser:
        """The recogniser with another task or prompt. Raises ValueError when there is none of that name."""
        own = self.recogniser
        chosen = own.task if task is None else own.template.task(task)
        asked = dataclasses.replace(own, task=chosen, prompt=prompt or own.prompt, lang=lang or own.lang)
        own.template.prompt_text(chosen, asked.lang)
        return asked

    def answers(self, jobs: list[Job], asked: Recogniser | None = None, progress: Progress | None = None) -> Iterator[Hypothesis]:
        """Answers in the order of the jobs, whose places count from 0; each comes as soon as those before it have come."""
        asked = asked or self.recogniser
        waiting: dict[int, Hypothesis] = {}
        given = 0
        for group, answers in asked.run(group_jobs(jobs, asked.batch_size, asked.max_frames)):
            waiting |= dict(answers)
            if progress:
                progress.add(len(group), sum(job.seconds for job in group))
            while given in waiting:
                yield waiting.pop(given)
                given += 1


def load(model: str | os.PathLike, task: str = "asr", device: str | None = None, **settings: Any) -> Transcriber:
    """Load a model folder, or a hub name, for answering.

    ``device`` such as "cpu" or "cuda:1" overrides the choice of the accelerator there is. ``settings`` are the options of
    ``wenet_osum transcribe``: num_beams, temperature, seed, repetition_penalty, max_tokens, free, prompt, lang, batch_size, max_frames,
    dtype, threads. Raises ValueError for an unknown or bad setting and a folder that holds no fitting model.
    """
    if task == "auto":
        raise ValueError("task 'auto' needs a list whose utterances name tasks; give a task name or tags")
    args = _arguments({"threads": torch.get_num_threads()} | settings)
    args.model, args.task = os.fspath(model), task
    transcriber = Transcriber(loading.recogniser(args))
    if device:
        transcriber.recogniser.model.to(torch.device(device))
    transcriber.asked()
    return transcriber


def _arguments(settings: dict[str, Any]) -> argparse.Namespace:
    """The settings as the commands' own parser reads them: types, choices and defaults are written there alone."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    loading.add_arguments(parser)
    options = {action.dest: action for action in parser._actions}
    words = []
    for name, value in settings.items():
        if name not in options:
            raise ValueError(lookup.unknown("setting", name, [*options]))
        if options[name].nargs == 0:
            words += [f"--{name}"] if value else []
        elif value is not None:
            words.append(f"--{name}={value}")
    try:
        return parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None


def make_job(place: int, sound: Sound, rate: int = SAMPLE_RATE, key: str | None = None) -> Job:
    """One sound as a job; what is wrong with it is kept as the job's error. ``rate`` (Hz) is that of bare samples."""
    name = key or _name(sound, place)
    job = Job(place, name, 0.0, lambda: (Utterance(name, name), source))
    try:
        source = _source(sound, rate)
        job.seconds = read_duration(source)
    except (ValueError, OSError) as error:
        job.error = str(error) or type(error).__name__
    return job


def _name(sound: Sound, place: int) -> str:
    """What answers call the sound: a path as it was given, else its number."""
    named = sound if isinstance(sound, (str, os.PathLike)) else getattr(sound, "name", None)
    return os.fspath(named) if isinstance(named, (str, os.PathLike)) and str(named) else f"audio {place}"


def _source(sound: Sound, rate: int) -> bytes | Path:
    """The sound as an audio file: its path, or its bytes. Raises ValueError for what is none."""
    if isinstance(sound, (str, os.PathLike)):
        return Path(sound)
    if isinstance(sound, (bytes, bytearray, memoryview)):
        return bytes(sound)
    if hasattr(sound, "read"):
        data = sound.read()
        if not isinstance(data, bytes):
            raise ValueError(f"the file was opened as text: its read() gave {type(data).__name__}; open it with mode 'rb'")
        return data
    if isinstance(sound, tuple) and len(sound) == 2 and isinstance(sound[1], Number):
        sound, rate = sound
    if isinstance(sound, torch.Tensor):
        sound = sound.detach().cpu()
        sound = (sound.float() if sound.is_floating_point() else sound).numpy()
    elif not hasattr(sound, "__array__"):
        raise ValueError(f"{type(sound).__name__} is no sound; give a path, bytes, an open file, an array, or a tuple (array, rate in Hz)")
    return wav_of(np.asarray(sound), rate)


def wav_of(samples: np.ndarray, rate: int) -> bytes:
    """Samples (samples,), or with channels on the shorter axis, as the bytes of a WAV file, bit-exact for int16 and float32. Raises ValueError."""
    check_rate(rate)
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > MOST_CHANNELS):
        raise ValueError(f"shape {samples.shape}: a recording is (samples,), or has up to {MOST_CHANNELS} channels; give several as a list")
    if not samples.size:
        raise ValueError("audio: empty: the array holds no samples")
    if samples.dtype.kind == "f":
        samples, kind = samples.astype(np.float32), "FLOAT"
        if (peak := float(np.abs(samples).max())) > LOUDEST:
            raise ValueError(f"float samples up to {peak:g}: full scale is 1.0; divide what were int16 samples by 32768")
    elif samples.dtype == np.int16:
        kind = "PCM_16"
    else:
        raise ValueError(f"samples of type {samples.dtype}: the full scale is not known; give int16, or float in [-1, 1]")
    return write_wav(np.ascontiguousarray(samples), int(rate), kind)


def check_rate(rate: int) -> None:
    """Raise ValueError for a sample rate that no recording has."""
    if not isinstance(rate, Number) or isinstance(rate, complex) or not RATES[0] <= rate <= RATES[1] or int(rate) != rate:
        raise ValueError(f"sample rate {rate!r} must be a whole number of Hz from {RATES[0]} to {RATES[1]}, such as 16000")
