"""Utterance → Sample: decoded, augmented, turned into features, its prompt and target into ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from wenet_osum.config import AugmentConfig, FilterConfig
from wenet_osum.dataset import augment
from wenet_osum.dataset.audio import decode, log_mel
from wenet_osum.dataset.device_features import for_device
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.states import Encoded, StateStore
from wenet_osum.records import SAMPLE_RATE, Sample, Utterance
from wenet_osum.tasks.base import Task, find_tags
from wenet_osum.text.template import Target, Template

# what further losses have to know of an utterance; None: nothing is to be learned from it
Targets = Callable[[Utterance], dict[str, torch.Tensor] | None]
TOLERANCE_S = 0.01  # by which the header's duration may differ from the true one
SILENCE_S = 0.5  # of the sample that stands in for others


@dataclass(frozen=True)
class SampleConfig:
    """How samples are made.

    Without ``augment`` nothing is drawn and prompts are the scoring ones: dev sets and decoding.
    """

    mels: int = 80
    filter: FilterConfig = field(default_factory=FilterConfig)
    augment: AugmentConfig | None = None
    seed: int = 0
    epoch: int = 0
    # tokens of prompt and answer that a decoder can take; None: any number
    reach: int | None = None
    # False: decoding; no target is needed and the filter does not apply
    answers: bool = True
    # samples carry audio and masks; the device makes the features of them (device_features.py)
    on_device: bool = False
    # of further losses (models/objective.py); None: there are none
    targets: Targets | None = None
    # where states of the encoder are read in the place of features
    states: StateStore | None = None
    # language of the one prompt that dev and decoding use, whatever the utterance's: it must not
    # tell the model
    prompt_lang: str = "zh"


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
    if conf.states is not None:
        return _sample_from_states(utterance, data, task, template, conf, repeat)
    audio = decode(data, utterance.start, utterance.end)
    return sample_from_audio(utterance, audio, task, template, conf, repeat)


def sample_from_audio(
    utterance: Utterance,
    audio: np.ndarray,
    task: Task,
    template: Template,
    conf: SampleConfig,
    repeat: int = 0,
) -> Sample:
    """Do the same for audio in memory, (samples,) float32 at 16 kHz, mono."""
    if conf.answers:
        _check_duration(len(audio) / SAMPLE_RATE, conf.filter)
    utterance = read_tags(utterance, task, template)
    draw_key = _draw_key(utterance, repeat)
    sound, audio, speed = _draw(audio, draw_key, conf)
    utterance = _at_speed(utterance, speed)
    seconds = len(audio) / SAMPLE_RATE
    return _complete(utterance, sound, seconds, task, template, conf, draw_key)


def _draw_key(utterance: Utterance, repeat: int) -> str:
    """Return what an utterance's draws are made from, beside seed and epoch."""
    return f"{utterance.key}#{repeat}" if repeat else utterance.key


def _draw(
    audio: np.ndarray, draw_key: str, conf: SampleConfig
) -> tuple[dict[str, Any], np.ndarray, float]:
    """Augment: return the sound of a Sample, the audio and its speed factor."""
    draw = augment.rng(conf.seed, conf.epoch, draw_key)
    speed = 1.0
    if conf.augment:
        fitting = _fitting_speeds(conf, len(audio) / SAMPLE_RATE)
        audio, speed = augment.augment(audio, fitting, draw)
    return _sound(audio, conf, draw), audio, speed


def _fitting_speeds(conf: SampleConfig, seconds: float) -> AugmentConfig:
    """Leave out the speeds that would stretch the audio beyond ``filter.max_s``."""
    speeds = conf.augment.speeds
    fitting = [speed for speed in speeds if seconds / speed <= conf.filter.max_s]
    if fitting == speeds:
        return conf.augment
    return dataclasses.replace(conf.augment, speeds=fitting or [1.0])


def _at_speed(utterance: Utterance, speed: float) -> Utterance:
    """Give word times as after a change of speed; it comes before the target is written."""
    if not utterance.words or speed == 1.0:
        return utterance
    words = augment.scale_words(utterance.words, speed)
    return dataclasses.replace(utterance, words=words)


def _sound(
    audio: np.ndarray, conf: SampleConfig, draw: np.random.Generator | None = None
) -> dict[str, Any]:
    """Make features with their masks, or audio with the masks for its features to be.

    Without ``draw`` nothing is masked.
    """
    if conf.on_device:
        wave, frames = for_device(audio)
        masks = _masks(frames, conf, draw)
        return {"features": torch.empty(frames, 0), "audio": wave, "masks": masks}
    features = log_mel(audio, conf.mels)
    masks = _masks(len(features), conf, draw)
    if masks:
        features = augment.apply_masks(features, masks)
    return {"features": features}


def _masks(frames: int, conf: SampleConfig, draw: np.random.Generator | None) -> list[augment.Mask]:
    """Draw the masks of so many frames, where any are wanted."""
    if draw is None or not conf.augment or not conf.augment.spec_augment:
        return []
    return augment.draw_masks(frames, conf.mels, conf.augment.spec_augment, draw)


def _complete(
    utterance: Utterance,
    sound: dict[str, Any],
    audio_s: float,
    task: Task,
    template: Template,
    conf: SampleConfig,
    draw_key: str,
) -> Sample:
    """Add the texts to a sound. Raises Drop."""
    target = Target([], [], [])
    if conf.answers:
        target = _target(utterance, task, template, conf)
    prompt_ids = _prompt(task, template, conf, draw_key)
    tokens = len(prompt_ids) + len(template.suffix_ids) + len(target.ids)
    _check_reach(tokens, conf.reach)
    return Sample(
        key=utterance.key,
        task=task.tags,
        **sound,
        prompt_ids=prompt_ids,
        answer_ids=target.ids,
        answer_weights=target.weights,
        answer_labels=target.labels,
        suffix_ids=template.suffix_ids,
        targets=_further_targets(utterance, conf),
        utterance=utterance,
        audio_s=audio_s,
    )


def _further_targets(utterance: Utterance, conf: SampleConfig) -> dict[str, torch.Tensor]:
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


def _sample_from_states(
    utterance: Utterance,
    data: bytes,
    task: Task,
    template: Template,
    conf: SampleConfig,
    repeat: int,
) -> Sample:
    """Do the same from the encoder's states on disk. Raises Drop where there are none."""
    store = conf.states
    variant = store.variant(conf.epoch, repeat) if conf.augment else None
    digest = store.digest(data, utterance.key, variant)
    if digest not in store:
        # whatever kept it from being encoded is told as it would be without states
        audio = decode(data, utterance.start, utterance.end)
        _check_duration(len(audio) / SAMPLE_RATE, conf.filter)
    encoded = store.read(digest)
    _check_duration(encoded.source_s, conf.filter)
    utterance = read_tags(utterance, task, template)
    utterance = _at_speed(utterance, encoded.speed)
    sound = _stored_sound(encoded, store)
    draw_key = _draw_key(utterance, repeat)
    return _complete(utterance, sound, encoded.audio_s, task, template, conf, draw_key)


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
    audio = decode(data, utterance.start, utterance.end)
    source_s = len(audio) / SAMPLE_RATE
    _check_duration(source_s, conf.filter)
    sound, audio, speed = _draw(audio, utterance.key, conf)
    known = Encoded(
        states=np.empty((0, 0), dtype=np.float32),
        length=0,
        source_s=source_s,
        audio_s=len(audio) / SAMPLE_RATE,
        speed=speed,
    )
    return sound["features"], known


def silent_sample(template: Template, conf: SampleConfig) -> Sample:
    """Make half a second of silence with weight zero: a rank that has nothing to read keeps step.

    Its states, where states are read, are zeros: whatever they are, they count nothing.
    """
    task = template.task("asr")
    if conf.states is not None:
        sound = _no_states(conf.states)
    else:
        samples = round(SILENCE_S * SAMPLE_RATE)
        sound = _sound(np.zeros(samples, dtype=np.float32), conf)
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
        suffix_ids=template.suffix_ids,
        targets=conf.targets(utterance) if conf.targets else {},
        utterance=utterance,
        audio_s=SILENCE_S,
    )


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

    found = {"txt": reading.transcript, "words": reading.words, "reply": reading.reply}
    for label in reader.label_fields:
        found[label.attribute] = reading.labels[label.name]
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


def _check_duration(seconds: float, limits: FilterConfig) -> None:
    """Raise Drop: the plan has judged the header's duration, and a header can be wrong."""
    if seconds < limits.min_s - TOLERANCE_S:
        raise Drop(f"audio: shorter than {limits.min_s} s", f"{seconds:.3f} s; filter.min_s")
    if seconds > limits.max_s + TOLERANCE_S:
        raise Drop(f"audio: longer than {limits.max_s} s", f"{seconds:.3f} s; filter.max_s")


def _prompt(task: Task, template: Template, conf: SampleConfig, key: str) -> list[int]:
    """Return a drawn prompt in training, else the one of scoring."""
    if conf.augment:
        return template.draw_prompt_ids(task, conf.seed, conf.epoch, key)
    lang = prompt_language(template, task, conf.prompt_lang)
    return template.prompt_ids(task, lang)


def _target(utterance: Utterance, task: Task, template: Template, conf: SampleConfig) -> Target:
    """Return the target. Raises Drop where the utterance lacks a field, or it is too long."""
    if missing := task.missing(utterance):
        needed = ", ".join(missing)
        raise Drop(
            f"target: lacks {missing[0]}",
            f"task {task.tags} needs {needed}",
        )
    target = template.target(task, utterance)
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
