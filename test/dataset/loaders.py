"""The loader of one epoch, for tests that need no more of a mixture."""

from __future__ import annotations

from typing import Any

from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset.dataset import EpochLoader, Mixture
from wenet_osum.text.template import Template


def train_loader(data: DataConfig, conf: TrainConfig, template: Template, mels: int, epoch: int, **where: Any) -> EpochLoader:
    mixture = Mixture(data, conf, template, mels)
    return mixture.epoch(epoch, **where)
