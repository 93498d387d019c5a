"""Is a phase worse than what it began from? Two models on the same dev utterances, each figure by paired bootstrap.

Models with an LLM are decoded greedily and scored (decode, score). A Whisper of phase 1 is asked for the right tokens by teacher forcing: its own
start has never seen the prompts, and to decode it would be to compare forms.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.dataset import eval_loader
from wenet_osum.decode import pipeline
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import Hypothesis, Metric, Utterance
from wenet_osum.score import compare_task, score_task
from wenet_osum.score.bootstrap import Difference, paired
from wenet_osum.tasks import Task
from wenet_osum.text.template import Template

if TYPE_CHECKING:
    from wenet_osum.decode.pipeline import Recognizer

TOKENS = Metric("token_accuracy", "token accuracy")  # of phase 1


@dataclass
class Verdict:
    """One figure of one task after a phase, minus the same before it."""

    task: str
    metric: Metric
    subset: str
    difference: Difference  # after minus before, in points
    margin: float  # points

    @property
    def worsening(self) -> float:
        """Points by which the phase made it worse; negative: better."""
        change = self.difference.difference
        return change if self.metric.lower_is_better else -change

    @property
    def certain(self) -> bool:
        """Whether the 95 % interval leaves out no change."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def outcome(self) -> str:
        """``FAILED``: worse by more than the margin, and not by chance; ``unclear``: worse by more, but it may be chance; else ``passed``."""
        if self.worsening <= self.margin:
            return "passed"
        return "FAILED" if self.certain else "unclear"

    def __str__(self) -> str:
        d = self.difference
        change = f"{d.difference:+.2f} [{d.low:+.2f}, {d.high:+.2f}] points on {d.utterances} utterances"
        return f"compare {self.task:6s} {self.outcome}: {self.metric.name} {self.subset} {change}, margin {self.margin:g}"


def spread(items: Sequence, limit: int) -> list:
    """At most ``limit`` items, evenly spread."""
    if len(items) <= limit:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def answers(recognizer: Recognizer, task: str, jobs: list[pipeline.Job], out: Path) -> dict[str, Hypothesis]:
    """The model's answers by key; also written to ``out`` as JSON lines."""
    asked = dataclasses.replace(recognizer, task=recognizer.template.task(task))
    groups = recognizer.groups(jobs)
    found = {h.key: h for _, rows in asked.run(groups) for _, h in rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(found[job.key].to_json() + "\n" for job in jobs), encoding="utf-8")
    return found


def decoded(
    task: Task, references: list[Utterance], after: dict[str, Hypothesis], before: dict[str, Hypothesis], normalizer: str, margin: float
) -> list[Verdict]:
    """The figures a report shows of this task, as far as they are in percent."""
    scores = score_task(task, references, after, normalizer, resamples=1)
    differences = compare_task(task, references, after, before, normalizer)
    verdicts = []
    for score in scores:
        difference = differences.get((score.detail["field"], score.metric, score.subset))
        shown = not score.detail.get("minor") and score.about.unit == "%"
        if shown and difference is not None:
            verdicts.append(Verdict(task.name, score.about, score.subset, difference, margin))
    return verdicts


def forced(model: WhisperPhase, template: Template, task: str, listed: str, limit: int, mels: int) -> np.ndarray:
    """(U, 2): weight of the right answer tokens and of all, of up to ``limit`` utterances from long to short."""
    rows = []
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model.to(device)
    with torch.no_grad():
        for batch in eval_loader(listed, task, template, BatchConfig(), mels, limit=limit):
            batch = batch.to(device)
            right = model(batch).correct.double() * batch.answer_weights
            sizes = batch.answer_lengths.tolist()
            pieces = zip(right.split(sizes), batch.answer_weights.split(sizes), strict=True)
            rows += [[float(a.sum()), float(b.sum())] for a, b in pieces if not batch.filler]
    if not rows:
        raise ValueError(f"dev list {listed} has no readable utterance for task {task}; check it with tools/check_data_list.py")
    return np.array(rows)


def tokens_compared(task: str, after: np.ndarray, before: np.ndarray, margin: float) -> Verdict:
    """Token accuracy of phase 1 against its start, in percent."""
    return Verdict(task, TOKENS, "all", paired(after, before, lambda sums: 100 * sums[:, 0] / sums[:, 1]), margin)


def save(verdicts: list[Verdict], path: Path) -> None:
    """All figures as JSON."""
    rows = []
    for verdict in verdicts:
        own = {"metric": verdict.metric.name, "difference": verdict.difference._asdict()}
        rows.append(dataclasses.asdict(verdict) | own | {"outcome": verdict.outcome})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
