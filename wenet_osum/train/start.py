"""What a run starts from: its model and template, its random draws, and the ear for signals."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wenet_osum.config import TrainConfig
from wenet_osum.models import build, parts
from wenet_osum.text.template import Template


class Interrupt:
    """Remembers SIGTERM and SIGUSR1 until the step is over."""

    def __init__(self) -> None:
        self.seen, self.before = False, {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.seen = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def open_model(conf: TrainConfig, source: Path | None) -> tuple[Any, Template]:
    """The model and its template: from a checkpoint of this run, or as the configuration describes it.

    With ``init_from`` labels, prompts and writing come from that model unless the configuration
    gives its own. ``conf`` learns how many frames the model's encoder computes of an utterance at
    least.
    """
    model, template = _open(conf, source)
    if conf.model.lora:
        parts.check_lora_trains(model, conf.train_parts)
    conf.batch.min_frames = max(conf.batch.min_frames, model.encoder.min_frames)
    return model, template


def _open(conf: TrainConfig, source: Path | None) -> tuple[Any, Template]:
    if source is not None:
        model = build.load(source)
        model.ctc_weight = conf.model.ctc_weight
        return _with_tones(model, Template.load(source, loss_weight=conf.loss_weight), conf)
    model, tokenizer = build.build(conf.model)
    template = Template(tokenizer, conf.labels, conf.prompts, conf.model.join, conf.lowercase, conf.loss_weight)
    if conf.model.init_from:
        before = Template.load(conf.model.init_from)
        labels, prompts = before.labels | conf.labels, conf.prompts or before.prompts
        template = Template(tokenizer, labels, prompts, before.join, before.lowercase or conf.lowercase, conf.loss_weight)
    return _with_tones(model, template, conf)


def _with_tones(model: Any, template: Template, conf: TrainConfig) -> tuple[Any, Template]:
    if conf.model.tone_weight:
        model.tone_weight, model.label_words = conf.model.tone_weight, template.label_words()
    return model, template


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Random draws of a step (dropout, …) depend on nothing but these three numbers."""
    value = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)
