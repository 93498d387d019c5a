"""Utterance → Sample: its sound taken through all steps (steps.py), prompt and target as ids."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch

from wenet_osum.context import NOTHING, Context
from wenet_osum.dataset import augment, steps
from wenet_osum.dataset import context as contexts
from wenet_osum.dataset.audio import decode
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.recording import check_words
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.dataset.states import Encoded, StateStore
from wenet_osum.dataset.steps import Signal
from wenet_osum.records import SAMPLE_RATE, Sample, Utterance
from wenet_osum.tasks.base import Task, find_tags
from wenet_osum.text.template import Target, Template

SILENCE_S = 0.5  # of the sample that stands in for others


class ProcessedAudio(NamedTuple):
    """What has become of the sound of an utterance."""

    fields: dict[str, Any]  # of a Sample
    seconds: float
    speed: float  # factor, by which word times are to be divided


def make_sample(
    utterance: Utterance,
    data: bytes,
    task: Task,
    template: Template,
    conf: SampleConfig,
    repeat: int = 0,
) -> Sample:
    """Make a Sample of an utterance with the bytes of its audio file.

    ``repeat`` counts its earlier draws in the epoch: each is augmented anew. Raises Drop for
    anything that cannot be used.
    """
    sound = process_audio(utterance, data, conf, repeat)
    return _complete(utterance, sound, task, template, conf, repeat)


def sample_from_audio(
    utterance: Utterance,
    audio: np.ndarray,
    task: Task,
    template: Template,
    conf: SampleConfig,
) -> Sample:
    """Do the same for audio in memory, (samples,) float32 at 16 kHz, mono."""
    signal = Signal(utterance, _generator(utterance, conf, 0), audio=audio)
    return _complete(utterance, _run_steps(signal, conf), task, template, conf, 0)


def process_audio(
    utterance: Utterance, data: bytes, conf: SampleConfig, repeat: int = 0
) -> ProcessedAudio:
    """Take the sound through its steps, or read its states. Raises Drop."""
    if conf.states is not None:
        return _stored(utterance, data, conf, repeat)
    signal = Signal(utterance, _generator(utterance, conf, repeat), data=data)
    return _run_steps(signal, conf)


def _run_steps(signal: Signal, conf: SampleConfig) -> ProcessedAudio:
    """Take the steps of the sound (steps.py). Raises Drop."""
    steps.run(signal, conf)
    return ProcessedAudio(signal.fields(), signal.seconds, signal.speed)


def _draw_key(utterance: Utterance, repeat: int) -> str:
    """Return what an utterance's draws are made from, beside seed and epoch."""
    return f"{utterance.key}#{repeat}" if repeat else utterance.key


def _generator(utterance: Utterance, conf: SampleConfig, repeat: int = 0) -> np.random.Generator:
    """Make the generator of all that is drawn for the sound of an utterance."""
    draw_key = _draw_key(utterance, repeat)
    return augment.make_rng(conf.seed, conf.epoch, draw_key)


def with_fields(utterance: Utterance, task: Task, template: Template, speed: float) -> Utterance:
    """Read tags in the text, and give word times as after a change of speed.

    It comes before the target is written.
    """
    utterance = read_tags(utterance, task, template)
    if not utterance.words or speed == 1.0:
        return utterance
    words = augment.scale_words(utterance.words, speed)
    return dataclasses.replace(utterance, words=words)


def _complete(
    utterance: Utterance,
    sound: ProcessedAudio,
    task: Task,
    template: Template,
    conf: SampleConfig,
    repeat: int,
) -> Sample:
    """Add the texts to a sound. Raises Drop."""
    utterance = with_fields(utterance, task, template, sound.speed)
    target = Target()
    if conf.answers:
        target = target_of(utterance, task, template, conf, sound.seconds)
    words = wording(utterance, task, template, conf, repeat)
    context = told(utterance, conf, repeat)
    prompt_ids = template.encode_prompt(words, context=context)
    tokens = len(prompt_ids) + len(template.suffix_ids) + len(target.ids)
    _check_reach(tokens, conf.reach)
    return Sample(
        key=utterance.key,
        task=task.tags,
        **sound.fields,
        prompt_ids=prompt_ids,
        answer_ids=target.ids,
        answer_weights=target.weights,
        answer_labels=target.labels,
        answer_transcripts=target.transcripts,
        suffix_ids=template.suffix_ids,
        targets=further_targets(utterance, conf),
        utterance=utterance,
        audio_s=sound.seconds,
    )


def further_targets(utterance: Utterance, conf: SampleConfig) -> dict[str, torch.Tensor]:
    """Return the targets of further losses. Raises Drop where nothing is to be learned."""
    if not conf.answers or conf.targets is None:
        return {}
    targets = conf.targets(utterance)
    if targets is None:
        raise Drop(
            "target: none of model.losses has one",
            "model.ce_weight 0 learns no answers; ctc needs a transcript",
        )
    return targets


def _stored(utterance: Utterance, data: bytes, conf: SampleConfig, repeat: int) -> ProcessedAudio:
    """Read the encoder's states from disk. Raises Drop where there are none."""
    store = conf.states
    variant = store.variant(conf.epoch, repeat) if conf.augment else None
    digest = store.digest(data, utterance.key, variant)
    if digest not in store:
        # whatever kept it from being encoded is told as it would be without states
        audio = decode(data, utterance.start, utterance.end)
        steps.check_seconds(len(audio) / SAMPLE_RATE, conf.filter)
    encoded = store.read(digest)
    steps.check_seconds(encoded.source_s, conf.filter)
    return ProcessedAudio(_stored_sound(encoded, store), encoded.audio_s, encoded.speed)


def _stored_sound(encoded: Encoded, store: StateStore) -> dict[str, Any]:
    return {
        "features": torch.from_numpy(encoded.states),
        "states_after": store.layout.after,
        "state_length": encoded.length,
    }


def features_to_encode(
    utterance: Utterance, data: bytes, conf: SampleConfig
) -> tuple[torch.Tensor, Encoded]:
    """Make features (frames, mels) of which states are to be kept, with what is known before.

    ``conf.epoch`` is the version of the utterance. Raises Drop.
    """
    signal = Signal(utterance, _generator(utterance, conf), data=data)
    steps.run(signal, conf)
    known = Encoded(
        states=np.empty((0, 0), dtype=np.float32),
        length=0,
        source_s=signal.source_s,
        audio_s=signal.seconds,
        speed=signal.speed,
    )
    return signal.features, known


def silent_sample(template: Template, conf: SampleConfig) -> Sample:
    """Make half a second of silence with weight zero: a rank that has nothing to read keeps step.

    Its states, where states are read, are zeros: whatever they are, they count nothing.
    """
    task = template.task("asr")
    if conf.states is not None:
        sound = _no_states(conf.states)
    else:
        sound = _silence(conf)
    # an empty transcript, not a missing one: further losses have nothing to leave out
    utterance = Utterance(key="", wav="", txt="")
    lang = prompt_language(template, task)
    return Sample(
        key="",
        task=task.tags,
        **sound,
        prompt_ids=template.prompt_ids(task, lang),
        answer_ids=[template.end_id],
        answer_weights=[0.0],
        answer_labels=[False],
        answer_transcripts=[False],
        suffix_ids=template.suffix_ids,
        targets=conf.targets(utterance, filler=True) if conf.targets else {},
        utterance=utterance,
        audio_s=SILENCE_S,
    )


def _silence(conf: SampleConfig) -> dict[str, Any]:
    """Return the sound of half a second of silence, which nothing changes."""
    samples = round(SILENCE_S * SAMPLE_RATE)
    audio = np.zeros(samples, dtype=np.float32)
    signal = Signal(Utterance(key="", wav=""), audio=audio)
    steps.compute_log_mel(signal, conf)
    return signal.fields()


def _no_states(store: StateStore) -> dict[str, Any]:
    """Return the sound of half a second, all zeros."""
    length = round(store.layout.states_a_second * SILENCE_S)
    rows = max(length, store.layout.min_rows)
    zeros = np.zeros((rows, store.layout.width), dtype=store.layout.dtype)
    encoded = Encoded(zeros, length, SILENCE_S, SILENCE_S, 1.0)
    return _stored_sound(encoded, store)


def prompt_language(template: Template, task: Task, lang: str = "zh") -> str:
    """Choose the language of a task's prompt.

    It is ``lang`` where the task has prompts in it, else Chinese, else what the user's prompt
    table has.
    """
    table = template.prompts.get(task.tags, {})
    known = [*table] or ["zh", "en"]
    for name in (lang, "zh"):
        if name in known:
            return name
    return known[0]


def read_tags(utterance: Utterance, task: Task, template: Template) -> Utterance:
    """Take a ``txt`` in the published form (``你好<anger>``) apart into fields.

    Any other utterance stays as it is. The reader is the utterance's own task, else the one it is
    asked now. Fields that the utterance has already win.
    """
    if not utterance.txt or not find_tags(utterance.txt):
        return utterance
    reader = _reader(utterance, task, template)
    reading = reader.read(utterance.txt)

    # a text that only happens to hold < >
    tags = [field.tag for field in reader.fields]
    if reading.unread or tags == ["<TRANSCRIBE>"]:
        return utterance

    found = {"txt": reading.transcript}
    for field in reader.fields:
        found |= field.entries(reading)
    new = {}
    for name, value in found.items():
        if name == "txt" or utterance.get(name) is None:
            new[name] = value
    return utterance.with_values(new)


def _reader(utterance: Utterance, task: Task, template: Template) -> Task:
    """Return the task that reads an utterance's text."""
    if not utterance.task:
        return task
    try:
        return template.task(utterance.task)
    except ValueError:
        # a task this model does not know
        return task


def wording(
    utterance: Utterance, task: Task, template: Template, conf: SampleConfig, repeat: int = 0
) -> str:
    """Return the user's own words where there are any, a drawn prompt in training, else that of
    scoring."""
    if utterance.prompt is not None:
        return utterance.prompt
    if conf.augment:
        draw_key = _draw_key(utterance, repeat)
        text = template.draw_prompt(task, conf.seed, conf.epoch, draw_key)
    else:
        lang = prompt_language(template, task, conf.prompt_lang)
        text = template.prompt_text(task, lang)
    return task.fill(text, utterance)


def told(utterance: Utterance, conf: SampleConfig, repeat: int = 0) -> Context:
    """Return what a prompt tells of an utterance: in training what is drawn, else what its manifest
    says. Raises Drop for what cannot be read."""
    if not conf.augment:
        return contexts.read(utterance)
    if conf.context is None:
        return NOTHING
    draw_key = _draw_key(utterance, repeat)
    return conf.context.draw(utterance, conf.seed, conf.epoch, draw_key)


def target_of(
    utterance: Utterance, task: Task, template: Template, conf: SampleConfig, seconds: float
) -> Target:
    """Return the target of an utterance whose sound is of ``seconds``. Raises Drop where it lacks a
    field, where words end after the sound, or where it is too long to be learned."""
    if missing := task.missing(utterance):
        needed = ", ".join(missing)
        raise Drop(
            f"target: lacks {missing[0]}",
            f"task {task.tags} needs {needed}",
        )
    target = template.target(task, utterance)
    if not conf.answers:
        # Earlier answers of a conversation that is decoded.
        return target
    if utterance.wav:
        check_words(utterance, seconds)
    limit = conf.filter.target_limit(task.name, task.tags)
    if len(target.ids) > limit:
        rule = f"filter.max_target_tokens for {task.name}"
        raise Drop(
            f"target: longer than {limit} tokens",
            f"{len(target.ids)} tokens; {rule}",
        )
    return target


def _check_reach(tokens: int, reach: int | None) -> None:
    """Raise Drop for more tokens than a decoder can take."""
    if reach is not None and tokens > reach:
        reason = f"target: with its prompt beyond the decoder's {reach} positions"
        raise Drop(reason, f"{tokens} tokens")
