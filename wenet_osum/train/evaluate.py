"""Dev loss and target-token accuracy per task, by teacher forcing."""

from __future__ import annotations

from typing import Any

import torch

from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset.dataset import EvalLoader, eval_loader
from wenet_osum.dataset.sample import Targets
from wenet_osum.text.template import Template
from wenet_osum.train import dist
from wenet_osum.train.progress import Tally, merge


def dev_loaders(
    data: DataConfig,
    conf: TrainConfig,
    template: Template,
    mels: int,
    world: dist.World,
    **facts: Any,
) -> dict[str, EvalLoader]:
    """Open the dev list of each task once before training, so that a fault shows now.

    Every process gets equally many batches. ``facts`` are those of the model, as in ``build_pool``.
    """
    how = {"limits": conf.filter, "workers": min(conf.workers, 2), **facts}
    ranks = (world.rank, world.size)
    return {
        task: eval_loader(path, task, template, conf.batch, mels, *ranks, **how)
        for task, path in data.dev.items()
    }


@torch.no_grad()
def evaluate(engine: dist.Engine, loaders: dict[str, EvalLoader], data: DataConfig) -> dict[str, dict[str, float]]:
    """task → {loss, acc, tokens, labels} over all processes. Leaves the model in eval mode. Raises ValueError for a list without a usable utterance."""
    engine.module.eval()
    rows = {}
    for task, loader in loaders.items():
        tally = Tally(lambda tags, task=task: task)
        for batch in loader:
            tally.add(batch, engine.plain_loss(batch))
        rows |= merge(dist.gather(tally.rows()))
        if task not in rows:
            raise ValueError(f"dev list of {task!r} ({data.dev[task]}) has no readable utterance; check its audio or drop it from data.dev")
    return rows
