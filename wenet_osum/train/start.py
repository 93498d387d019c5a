"""What a run starts from: its model and template, its random draws, and the ear for signals."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wenet_osum import lookup
from wenet_osum.config import TrainConfig
from wenet_osum.dataset.pool import TokenCounter
from wenet_osum.models import build
from wenet_osum.models.objective import make_objective
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
    lookup.add_plugins(conf.plugins)
    if source is not None:
        model, template = build.load(source), Template.load(source, loss_weight=conf.loss_weight)
    else:
        model, template = _new_model(conf)
    model.set_objective(make_objective(conf.model, template))
    conf.batch.min_frames = max(conf.batch.min_frames, getattr(model.encoder, "min_frames", 0))
    return model, template


def _new_model(conf: TrainConfig) -> tuple[Any, Template]:
    model, tokenizer = build.build(conf.model)
    template = Template(tokenizer, conf.labels, conf.prompts, conf.model.target_tokenization, conf.lowercase, conf.loss_weight)
    if conf.model.init_from:
        before = Template.load(conf.model.init_from)
        labels, prompts = before.labels | conf.labels, conf.prompts or before.prompts
        template = Template(tokenizer, labels, prompts, before.target_tokenization, before.lowercase or conf.lowercase, conf.loss_weight)
    return model, template


def token_counter(model: Any) -> TokenCounter:
    """Let the plan ask the model how many positions speech takes: frames (n,) to tokens (n,)."""

    def count(frames: np.ndarray) -> np.ndarray:
        return model.speech_tokens(torch.from_numpy(frames)).numpy()

    return count


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Random draws of a step (dropout, …) depend on nothing but these three numbers."""
    value = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)
