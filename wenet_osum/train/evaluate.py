"""Measure dev loss and answer-token accuracy per task, by teacher forcing."""

from __future__ import annotations

from typing import Any

import torch

from wenet_osum import dist
from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset.dataset import EvalLoader, eval_loader
from wenet_osum.text.template import Template
from wenet_osum.train.tally import Tally, merge, merge_further


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
    how = {
        "filter_conf": conf.filter,
        "workers": min(conf.workers, 2),
        "store": conf.store,
        **facts,
    }
    loaders = {}
    for task, path in data.dev.items():
        loaders[task] = eval_loader(
            path, task, template, conf.batch, mels, world.rank, world.size, **how
        )
    return loaders


@torch.no_grad()
def evaluate(
    engine: dist.Engine, loaders: dict[str, EvalLoader], data: DataConfig
) -> dict[str, dict[str, float]]:
    """Measure every dev list over all processes, and leave the model in eval mode.

    Returns, by task, loss, acc, tokens and labels as ``tally.merge`` gives them, and ``loss_NAME``
    of each further loss. Raises ValueError for a list without a usable utterance.
    """
    engine.module.eval()
    rows = {}
    for task, loader in loaders.items():
        # One row per dev list, whatever further tags its utterances have.
        tally = Tally(lambda tags, task=task: task)
        for batch in loader:
            output = engine.plain_loss(batch)
            tally.add(batch, output)
        own = (tally.rows(), tally.further_sums())
        sums, further = zip(*dist.gather(own), strict=True)
        merged = merge(sums)
        rows |= merged
        if task not in rows:
            raise ValueError(
                f"dev list of {task!r} ({data.dev[task]}) has no readable utterance; "
                "check its audio or drop it from data.dev"
            )
        for name, value in merge_further(further, merged).items():
            rows[task][f"loss_{name}"] = value
    return rows
