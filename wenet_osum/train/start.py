"""What a run starts from: its model and template, its random draws, and the ear for signals."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wenet_osum import lookup, tasks
from wenet_osum.config import ContextConfig, DataConfig, TrainConfig
from wenet_osum.context import HOTWORDS, PREVIOUS
from wenet_osum.dataset.estimate import TokenCounter
from wenet_osum.models import build, time_marks
from wenet_osum.models.label_queries import front_names
from wenet_osum.models.objective import make_objective
from wenet_osum.text import chat
from wenet_osum.text.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Interrupt:
    """Remembers SIGTERM and SIGUSR1 until the step is over, and sees a file that asks the same."""

    def __init__(self, file: Path | None = None) -> None:
        """``file``: creating it asks the run to stop; None: signals only."""
        self.file = file
        self.noted = False
        self.before: dict[int, Any] = {}  # signal → its handler outside

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            outside = signal.signal(number, self._note)
            self.before[number] = outside
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.noted = True

    @property
    def seen(self) -> bool:
        """Tell whether somebody has asked to stop."""
        if self.file is not None and self.file.exists():
            self.noted = True
        return self.noted

    def __exit__(self, *_: object) -> None:
        for number in self.before:
            outside = self.before[number]
            signal.signal(number, outside)


def open_model(
    conf: TrainConfig, resumed_from: Path | None, data: DataConfig | None = None
) -> tuple[Any, Template]:
    """Open the model and its template, from a checkpoint of this run or as ``conf`` describes them.

    With ``init_from``, labels, prompts, casing and layout come from that model unless the
    configuration gives its own. The template of a new model lists the tasks of ``data``. Raises
    ``conf.batch.min_frames`` in place to what the encoder pads to.
    """
    lookup.add_plugins(conf.plugins)
    if resumed_from is not None:
        model = build.load(resumed_from, weights_later=weights_later(conf))
        template = Template.load(resumed_from, loss_weight=conf.loss_weight)
    else:
        model, template = _new_model(conf, data)
    objective = make_objective(conf.model, template)
    if conf.model.kind == "osum":
        objective.hear_labels(front_names(model.adapter))
    model.set_objective(objective)

    least = getattr(model.encoder, "min_frames", 0)
    conf.batch.min_frames = max(conf.batch.min_frames, least)
    return model, template


def weights_later(conf: TrainConfig) -> bool:
    """Tell whether an engine reads the weights (models/unread.py): where FSDP shards them, or what
    is frozen is kept in half precision.
    """
    return conf.engine == "fsdp" or conf.dtype == "bfloat16"


def _new_model(conf: TrainConfig, data: DataConfig | None) -> tuple[Any, Template]:
    model, tokenizer = build.build(conf.model, weights_later=weights_later(conf))
    template = _new_template(conf, tokenizer, data)
    if template.template == "chat" and not _began_in_chat(conf):
        # A model new to this layout gets the border that disturbs an Instruct LLM least.
        [token] = template.encode(chat.BOUNDARY)[:1]
        model.set_speech_boundary(token)
    if conf.model.time_marks:
        time_marks.begin(model, conf.model.time_marks, template.encode)
    return model, template


def _began_in_chat(conf: TrainConfig) -> bool:
    """Tell whether the model that training begins from was trained in a chat."""
    begun = conf.model.init_from
    return bool(begun) and Template.load(begun).template == "chat"


def _new_template(
    conf: TrainConfig, tokenizer: PreTrainedTokenizerBase, data: DataConfig | None
) -> Template:
    """Make the template of a new run; ``init_from`` says what the configuration leaves open."""
    settings = {
        "labels": conf.labels,
        "prompts": conf.prompts,
        "target_tokenization": conf.model.target_tokenization,
        "lowercase": conf.lowercase,
        "template": conf.template or "plain",
        "system": conf.system,
        "tasks": tasks.beyond_default([*_asked(data), *_label_query_tasks(conf)]),
        "context": _slots(conf.context),
    }
    if conf.model.init_from:
        before = Template.load(conf.model.init_from)
        settings |= {
            "labels": before.labels | conf.labels,
            "prompts": conf.prompts or before.prompts,
            "target_tokenization": before.target_tokenization,
            "lowercase": before.lowercase or conf.lowercase,
            "template": conf.template or before.template,
            "tasks": sorted({*before.tasks, *settings["tasks"]}),
            "context": settings["context"] + before.context,
        }
        if settings["template"] == "chat" and conf.system is None:
            settings["system"] = before.system
    return Template(tokenizer, loss_weight=conf.loss_weight, **settings)


def _label_query_tasks(conf: TrainConfig) -> list[str]:
    """Return the tasks whose labels the adapter's label queries hear, whatever is asked."""
    queries = conf.model.adapter_conf.get("label_queries") or []
    found = []
    for name in tasks.names():
        fields = {field.name for field in tasks.parse(name).label_fields}
        if fields & set(queries):
            found.append(name)
    return found


def _asked(data: DataConfig | None) -> list[str]:
    """Return the tasks that the sources of a run name."""
    found: list[str] = []
    if data is None:
        return found
    for source in data.train:
        found += source.tasks
    return found


def _slots(context: ContextConfig | None) -> list[str]:
    """Name what the prompts of training tell."""
    if context is None:
        return []
    slots = []
    if context.share:
        slots.append(HOTWORDS)
    if context.previous:
        slots.append(PREVIOUS)
    return slots


def token_counter(model: Any) -> TokenCounter:
    """Let the plan ask the model how many positions speech takes: frames (n,) to tokens (n,)."""

    def count(frames: np.ndarray) -> np.ndarray:
        tokens = model.speech_tokens(torch.from_numpy(frames))
        return tokens.numpy()

    return count


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Let random draws of a step (dropout, …) depend on nothing but these three numbers."""
    sequence = np.random.SeedSequence([seed, step, rank])
    [drawn] = sequence.generate_state(1, np.uint64)
    value = int(drawn)
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)
