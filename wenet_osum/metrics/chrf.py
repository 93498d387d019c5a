"""chrF of a translation over the whole list, by sacrebleu (Popović, 2015, W15-3049; Post, 2018,
W18-6319).

It is the F2 of character 1- to 6-grams without spaces, 0 to 100, sacrebleu's chrF2. It needs no
words, so that it is the same for all languages.
"""

from __future__ import annotations

from typing import Any

from wenet_osum.records import Metric
from wenet_osum.score import sacrebleu_sums
from wenet_osum.score.metric_sums import MetricSums, Options, Pair
from wenet_osum.tasks import Field

CHRF = Metric("chrf", "chrF", unit="points", counts=("empty",), faults=("empty",))


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute chrF per target language."""
    return sacrebleu_sums.compute(field, pairs, options, CHRF, scorer)


def scorer(lang: str) -> Any:
    """Make sacrebleu's chrF, which is the same for every language."""
    # Imported here: it takes a while, and only translations need it.
    from sacrebleu.metrics import CHRF as SacreChrf

    return SacreChrf()
