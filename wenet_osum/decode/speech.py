"""A trained model as a function: sound in, answer out.

    m = wenet_osum.load("exp/x/final")
    m("a.wav", task="<TRANSCRIBE><EMOTION>").labels
    m(["a.wav", samples, open("b.flac", "rb")])  # a list, decoded in batches
    for event in m.stream(chunks): …  # sound while it comes in
    m.chat([{"role": "user", "audio": "a.wav", "text": "What is it?"}])  # a conversation

Recordings of any length are taken; over 30 s they are split at pauses and joined again
(longform.py).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wenet_osum import lookup, tasks
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.manifest import from_row
from wenet_osum.dataset.messages import Message, rows_of
from wenet_osum.dataset.sound import Array, Sound, check_rate, samples_of, source_of
from wenet_osum.decode import incremental, options
from wenet_osum.decode import load as loading
from wenet_osum.decode.agreement import Border
from wenet_osum.decode.incremental import DecodeWindow, StreamDecoder, StreamEvent, StreamOptions
from wenet_osum.decode.jobs import Job
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.progress import ProgressBar
from wenet_osum.records import SAMPLE_RATE, Hypothesis, Utterance
from wenet_osum.tasks.base import Task, escape

if TYPE_CHECKING:
    from wenet_osum.text.template import Template

# What a message of a conversation may have, and the name of one in its answer.
MESSAGE = ("role", "text", "audio", "task")
CONVERSATION = "conversation"


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
        hotwords: list[str] | None = None,
        previous: str | None = None,
    ) -> Hypothesis | list[Hypothesis]:
        """Answer a sound, or a list of sounds with a list in the same order.

        A sound is the path of an audio file, its bytes, an open file, an array or tensor of samples
        at ``rate`` Hz, a tuple (samples, rate), or a dict ``{"array": samples, "sampling_rate":
        Hz}`` as `datasets` gives it. ``task`` is a name or tags, ``prompt`` the wording to ask
        with, ``lang`` the language of the task's own prompt (zh or en), ``hotwords`` words that may
        occur, ``previous`` the text that was said before; without them those given to ``load``
        hold.

        Returns a Hypothesis: ``text`` (raw), ``transcript``, ``words`` with times in s, ``labels``
        with ``probs``, ``reply``, ``duration`` in s. Raises ValueError for an unknown task, a bad
        rate, a context that the model was not trained with, and a single sound that cannot be
        answered; in a list such a sound has ``error``.
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
        asked = asked.given(hotwords, previous)
        jobs = [make_job(index, item, rate) for index, item in enumerate(sounds)]
        answers = list(self.answers(jobs, asked))
        if several:
            return answers

        [answer] = answers
        if answer.error:
            raise ValueError(f"{answer.key}: {answer.error}")
        return answer

    def chat(
        self,
        messages: list[dict[str, Any]],
        task: str | None = None,
        *,
        rate: int = SAMPLE_RATE,
        lang: str | None = None,
    ) -> Hypothesis:
        """Answer the last question of a conversation.

            m.chat([
                {"role": "user", "audio": "a.wav", "text": "What is said?"},
                {"role": "assistant", "text": "It rains."},
                {"role": "user", "text": "In which town?"},
            ], task="<S2TCHAT>")

        A user's message has ``text``, ``audio`` (a sound, as in a call, up to 30 s) or both, and
        needs no text where ``task`` has a prompt of its own. An assistant's ``text`` is the raw
        text of an answer; its ``task`` may be given, else it is that of this call, or free text
        where it does not read as one. Raises ValueError for other messages, for a conversation
        without a sound, and for one that cannot be answered.
        """
        check_rate(rate)
        asked = self.asked(task, None, lang)
        job = conversation_job(messages, asked.task.tags, rate, asked.template.task)
        [answer] = self.answers([job], asked)
        if answer.error:
            raise ValueError(answer.error)
        return answer

    def stream(
        self,
        chunks: Iterable[bytes | Array],
        task: str | None = None,
        *,
        rate: int = SAMPLE_RATE,
        prompt: str | None = None,
        lang: str | None = None,
        **when: float,
    ) -> Iterator[StreamEvent]:
        """Answer sound while it comes in.

            for event in m.stream(chunks, task="<TRANSCRIBE><EMOTION>", step_s=1.0):
                print(event.committed, end="")

        ``chunks`` are arrays or tensors of samples at ``rate`` Hz, or bytes of 16-bit samples,
        of any length. ``when`` are ``step_s`` and ``pause_s`` (incremental.py): after how many s of
        new sound it is decoded anew, and what pause ends an utterance. Yields a StreamEvent for all
        that changes; what was committed is never taken back. Raises ValueError for a task without a
        transcript at its beginning, or with a reply, and for what is no sound.
        """
        check_rate(rate)
        asked = self.asked(task, prompt, lang)
        why = incremental.refusal(asked.task, asked.options)
        if why:
            raise ValueError(why)
        options = StreamOptions(**when)
        decoder = StreamDecoder(
            decode_window_with(asked),
            asked.task,
            options,
            rate,
            asked.longest_s,
            border_of(asked.template),
        )
        return _events(decoder, chunks)

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
        if lang and not asked.prompt:
            own.template.prompt_text(chosen, lang)
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


def decode_window_with(asked: Recognizer) -> DecodeWindow:
    """Return what answers a window of a stream, and makes the answer begin with what was said."""
    utterance = Utterance(incremental.KEY, incremental.KEY)

    def decode_window(samples: np.ndarray, said: str) -> Hypothesis:
        options = dataclasses.replace(asked.options, prefix_text=escape(said) or None)
        one = dataclasses.replace(asked, options=options)
        return one.answer_samples(utterance, samples)

    return decode_window


def border_of(template: Template) -> Border:
    """Return what tells whether a beginning of a transcript ends where one of its tokens does."""

    def border(beginning: str, text: str) -> bool:
        ids = template.beginning_ids(escape(beginning))
        whole = template.beginning_ids(escape(text))
        return whole[: len(ids)] == ids

    return border


def _events(decoder: StreamDecoder, chunks: Iterable[bytes | Array]) -> Iterator[StreamEvent]:
    """Yield what a stream makes of its chunks."""
    for chunk in chunks:
        samples = samples_of(chunk)
        yield from decoder.feed(samples)
    yield from decoder.finish()


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


def conversation_job(
    messages: list[dict[str, Any]],
    task: str,
    rate: int = SAMPLE_RATE,
    task_of: Callable[[str], Task] = tasks.parse,
) -> Job:
    """Make a job of the messages of a chat, whose earlier answers are those of ``task``.

    ``task_of`` finds the task of a name, with the model's own label sets. Raises ValueError for
    messages that are none, and sounds that cannot be read.
    """
    read, sounds = [], []
    for message in messages:
        unknown = [name for name in message if name not in MESSAGE]
        if unknown:
            raise ValueError(lookup.unknown("entry of a message", unknown[0], [*MESSAGE]))
        wav = None
        if message.get("audio") is not None:
            wav = f"audio {len(sounds)}"
            sounds.append(_bytes_of(source_of(message["audio"], rate)))
        role = str(message.get("role"))
        read.append(Message(role, message.get("text"), wav, message.get("task")))

    *turns, last = rows_of(read, task, task_of) or [{}]
    if not sounds:
        raise ValueError("a conversation needs at least one sound: give a user's message 'audio'")
    if "task" in last:
        raise ValueError("the last message must be the user's; the answer to it is to be found")
    # Without words of the user's own, a task asks with its prompt.
    for row in (*turns, last):
        if not row["prompt"] and (row is last or "task" in row):
            del row["prompt"]
    utterance = from_row({"key": CONVERSATION} | last | {"turns": turns})
    seconds = [read_duration(sound) for sound in sounds]
    source = sounds if utterance.turns else sounds[0]
    job = Job(0, CONVERSATION, sum(seconds), lambda: (utterance, source))
    job.recordings, job.longest_s = len(sounds), max(seconds)
    return job


def _bytes_of(source: bytes | Path) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source


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
