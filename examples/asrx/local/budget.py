"""How tokens are made equal: the limit of a micro-batch at which a step holds the tokens wanted.

The plan cuts micro-batches by a cautious estimate that counts the longest prompt and label of a
task, so one limit for all arms would give them different numbers of tokens. Counted here are speech
(12.5 a second) and answer tokens, which is what the table of the page shows.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.plan import Plan
from wenet_osum.text.template import Template

SPEECH_TOKENS_A_SECOND = 12.5
ROUNDS = 6  # of trying a limit and correcting it


def limit_for(
    wanted: float, data: DataConfig, conf: TrainConfig, template: Template, mels: int
) -> int:
    """Return ``batch.max_tokens`` with which the mean step comes nearest to ``wanted`` tokens.

    Raises ValueError for data that cannot be used.
    """
    pools = Mixture(
        data,
        conf,
        template,
        mels,
    ).pools
    answers = []
    for source, pool in zip(data.train, pools, strict=True):
        answers.append(_answers(source.list, pool, template))

    # Tokens grow about as the limit does: it is tried and corrected.
    limit = round(1.5 * wanted)
    tried = {}
    for _ in range(ROUNDS):
        if limit in tried:
            break
        batch = dataclasses.replace(conf.batch, max_tokens=limit)
        tried[limit] = a_step(pools, answers, dataclasses.replace(conf, batch=batch))
        limit = max(1, round(limit * wanted / tried[limit]))
    return min(tried, key=lambda one: abs(tried[one] - wanted))


def a_step(pools: list, answers: list[dict[str, int]], conf: TrainConfig) -> float:
    """Count the tokens of the mean micro-batch of the first epoch."""
    plan = Plan(
        pools,
        conf.batch,
        conf.seed,
        0,
    )
    seconds = float(plan.seconds.sum(dtype=np.float64))
    tokens = seconds * SPEECH_TOKENS_A_SECOND
    answered = 0
    places = zip(plan.source.tolist(), plan.shard.tolist(), plan.row.tolist(), strict=True)
    for source, shard, row in places:
        key = pools[source].indices[shard].keys[row]
        answered += answers[source][str(key)]
    return (tokens + answered) / len(plan)


def _answers(path: str, pool: object, template: Template) -> dict[str, int]:
    """Count the answer tokens by key, of the one task a source of a cell has."""
    (task,) = pool.tasks
    counts = {}
    for utterance in read_manifest(path):
        if task.present(utterance):
            target = template.target(task, utterance)
            counts[utterance.key] = len(target.ids)
    return counts
