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

# What further losses have to know of an utterance; None: nothing is to be learned from it.
Targets = Callable[[Utterance], dict[str, torch.Tensor] | None]


@dataclass(frozen=True)
class SampleConfig:
    """How samples are made. Without ``augment`` nothing is drawn and prompts are the scoring ones: dev sets and decoding."""

    mels: int = 80
    filter: FilterConfig = field(default_factory=FilterConfig)
    augment: AugmentConfig | None = None
    seed: int = 0
    epoch: int = 0
    # tokens of prompt and answer that a decoder can take; None: any number
    reach: int | None = None
    answers: bool = True  # False: decoding; no target is needed and the filter does not apply
    on_device: bool = False  # samples carry audio and masks; the device makes the features of them (device_features.py)
    targets: Targets | None = None  # of further losses (models/objective.py); None: there are none
    states: StateStore | None = None  # where states of the encoder are read in the place of features
    prompt_lang: str = "zh"  # language of the one prompt that dev and decoding use, whatever the utterance's: it must not tell the model


def make_sample(utterance: Utterance, data: bytes, task: Task, template: Template, conf: SampleConfig, repeat: int = 0) -> Sample:
    """An utterance with the bytes of its audio file → Sample. ``repeat`` counts its earlier draws in the epoch: each is augmented anew.

    Raises Drop for anything that cannot be used.
    """
    if conf.states is not None:
        return _sample_from_states(utterance, data, task, template, conf, repeat)
    return sample_from_audio(utterance, decode(data, utterance.start, utterance.end), task, template, conf, repeat)


def sample_from_audio(utterance: Utterance, audio: np.ndarray, task: Task, template: Template, conf: SampleConfig, repeat: int = 0) -> Sample:
    """The same for audio in memory, (samples,) float32 at 16 kHz, mono."""
    if conf.answers:
        _check_duration(len(audio) / SAMPLE_RATE, conf.filter)
    utterance = read_tags(utterance, task, template)
    draw_key = _draw_key(utterance, repeat)
    sound, audio, speed = _draw(audio, draw_key, conf)
    utterance = _at_speed(utterance, speed)
    return _complete(utterance, sound, len(audio) / SAMPLE_RATE, task, template, conf, draw_key)


def _draw_key(utterance: Utterance, repeat: int) -> str:
    """What an utterance's draws are made from, beside seed and epoch."""
    return f"{utterance.key}#{repeat}" if repeat else utterance.key


def _draw(
    audio: np.ndarray, draw_key: str, conf: SampleConfig
) -> tuple[dict[str, Any], np.ndarray, float]:
    """Augmented: the sound of a Sample, the audio and its speed factor."""
    draw, speed = augment.rng(conf.seed, conf.epoch, draw_key), 1.0
    if conf.augment:
        audio, speed = augment.augment(audio, _fitting_speeds(conf, len(audio) / SAMPLE_RATE), draw)
    return _sound(audio, conf, draw), audio, speed


def _at_speed(utterance: Utterance, speed: float) -> Utterance:
    """With word times as after a change of speed; it comes before the target is written."""
    if not utterance.words or speed == 1.0:
        return utterance
    return dataclasses.replace(utterance, words=augment.scale_words(utterance.words, speed))


def _complete(
    utterance: Utterance,
    sound: dict[str, Any],
    audio_s: float,
    task: Task,
    template: Template,
    conf: SampleConfig,
    draw_key: str,
) -> Sample:
    """The Sample of a sound, with its texts. Raises Drop."""
    target = _target(utterance, task, template, conf) if conf.answers else Target([], [], [])
    prompt_ids = _prompt(utterance, task, template, conf, draw_key)
    _check_reach(len(prompt_ids) + len(template.suffix_ids) + len(target.ids), conf.reach)
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
    """The same from the encoder's states on disk. Raises Drop where there are none."""
    store = conf.states
    variant = store.variant(conf.epoch, repeat) if conf.augment else None
    digest = store.digest(data, utterance.key, variant)
    if digest not in store:
        # whatever kept it from being encoded is told as it would be without states
        _check_duration(len(decode(data, utterance.start, utterance.end)) / SAMPLE_RATE, conf.filter)
    encoded = store.read(digest)
    _check_duration(encoded.source_s, conf.filter)
    utterance = _at_speed(read_tags(utterance, task, template), encoded.speed)
    sound = _stored_sound(encoded, store)
    return _complete(utterance, sound, encoded.audio_s, task, template, conf, _draw_key(utterance, repeat))


def _stored_sound(encoded: Encoded, store: StateStore) -> dict[str, Any]:
    states = torch.from_numpy(encoded.states)
    return {"features": states, "states_after": store.layout.after, "state_length": encoded.length}


def features_to_encode(
    utterance: Utterance, data: bytes, conf: SampleConfig
) -> tuple[torch.Tensor, Encoded]:
    """Features (frames, mels) of which states are to be kept, and what is known of them before.

    ``conf.epoch`` is the version of the utterance. Raises Drop.
    """
    audio = decode(data, utterance.start, utterance.end)
    source_s = len(audio) / SAMPLE_RATE
    _check_duration(source_s, conf.filter)
    sound, audio, speed = _draw(audio, utterance.key, conf)
    times = (source_s, len(audio) / SAMPLE_RATE, speed)
    return sound["features"], Encoded(np.empty((0, 0), dtype=np.float32), 0, *times)


def _sound(audio: np.ndarray, conf: SampleConfig, draw: np.random.Generator | None = None) -> dict[str, Any]:
    """Features with their masks, or audio with the masks for its features to be. Without ``draw`` nothing is masked."""
    masking = conf.augment.spec_augment if conf.augment and draw is not None else None
    wave, frames = for_device(audio) if conf.on_device else (None, 0)
    features = torch.empty(frames, 0) if conf.on_device else log_mel(audio, conf.mels)
    masks = augment.draw_masks(len(features), conf.mels, masking, draw) if masking else []
    if conf.on_device:
        return {"features": features, "audio": wave, "masks": masks}
    return {"features": augment.apply_masks(features, masks) if masks else features}


def silent_sample(template: Template, conf: SampleConfig) -> Sample:
    """Half a second of silence with weight zero: keeps a rank in step that has nothing to read.

    Its states, where states are read, are zeros: whatever they are, they count nothing.
    """
    task = template.task("asr")
    if conf.states is not None:
        sound = _no_states(conf.states)
    else:
        sound = _sound(np.zeros(SAMPLE_RATE // 2, dtype=np.float32), conf)
    prompt = template.prompt_ids(task, prompt_language(template, task))
    # An empty transcript, not a missing one: further losses have nothing to leave out.
    utterance = Utterance(key="", wav="", txt="")
    answer = {"answer_ids": [template.end_id], "answer_weights": [0.0], "answer_labels": [False]}
    answer["targets"] = conf.targets(utterance) if conf.targets else {}
    answer["suffix_ids"] = template.suffix_ids
    return Sample(key="", task=task.tags, **sound, prompt_ids=prompt, **answer, utterance=utterance, audio_s=0.5)


def _no_states(store: StateStore) -> dict[str, Any]:
    """The sound of half a second, all zeros."""
    length = round(store.layout.states_a_second / 2)
    rows = max(length, store.layout.min_rows)
    zeros = np.zeros((rows, store.layout.width), dtype=store.layout.dtype)
    return _stored_sound(Encoded(zeros, length, 0.5, 0.5, 1.0), store)


def prompt_language(template: Template, task: Task, lang: str = "zh") -> str:
    """``lang`` where the task has prompts in it, else Chinese, else what the user's prompt table has."""
    known = [*template.prompts.get(task.tags, {})] or ["zh", "en"]
    return next((name for name in (lang, "zh") if name in known), known[0])


def read_tags(utterance: Utterance, task: Task, template: Template) -> Utterance:
    """A ``txt`` in the published form (``你好<anger>``) taken apart into fields; any other utterance as it is.

    The reader is the utterance's own task, else the one it is asked now. Fields that the utterance has already win.
    """
    if not utterance.txt or not find_tags(utterance.txt):
        return utterance
    try:
        reader = template.task(utterance.task) if utterance.task else task
    except ValueError:  # a task this model does not know
        reader = task
    reading = reader.read(utterance.txt)
    if reading.unread or [f.tag for f in reader.fields] == ["<TRANSCRIBE>"]:  # a text that only happens to hold < >
        return utterance
    found = {"txt": reading.transcript, "words": reading.words, "reply": reading.reply}
    found |= {f.attribute: reading.labels[f.name] for f in reader.label_fields}
    known = {name for name in found if name != "txt" and utterance.get(name) is not None}
    new = {name: value for name, value in found.items() if name not in known}
    return utterance.with_values(new)


def _check_duration(seconds: float, limits: FilterConfig) -> None:
    # the plan has judged the header's duration; a header can be wrong
    if seconds < limits.min_s - 0.01:
        raise Drop(f"audio: shorter than {limits.min_s} s", f"{seconds:.3f} s; filter.min_s")
    if seconds > limits.max_s + 0.01:
        raise Drop(f"audio: longer than {limits.max_s} s", f"{seconds:.3f} s; filter.max_s")


def _fitting_speeds(conf: SampleConfig, seconds: float) -> AugmentConfig:
    """Without the speeds that would stretch the audio beyond ``filter.max_s``."""
    fitting = [s for s in conf.augment.speeds if seconds / s <= conf.filter.max_s] or [1.0]
    return conf.augment if fitting == conf.augment.speeds else dataclasses.replace(conf.augment, speeds=fitting)


def _prompt(utterance: Utterance, task: Task, template: Template, conf: SampleConfig, key: str) -> list[int]:
    if conf.augment:
        return template.draw_prompt_ids(task, conf.seed, conf.epoch, key)
    return template.prompt_ids(task, prompt_language(template, task, conf.prompt_lang))


def _target(utterance: Utterance, task: Task, template: Template, conf: SampleConfig) -> Target:
    if missing := task.missing(utterance):
        raise Drop(f"target: lacks {missing[0]}", f"task {task.tags} needs {', '.join(missing)}")
    target = template.target(task, utterance)
    limit = conf.filter.target_limit(task.name, task.tags)
    if len(target.ids) > limit:
        raise Drop(f"target: longer than {limit} tokens", f"{len(target.ids)} tokens; filter.max_target_tokens for {task.name}")
    return target


def _check_reach(tokens: int, reach: int | None) -> None:
    if reach is not None and tokens > reach:
        raise Drop(f"target: with its prompt beyond the decoder's {reach} positions", f"{tokens} tokens")
