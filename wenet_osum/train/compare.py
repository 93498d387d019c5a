"""Compare a phase with what it began from: is it worse?

Two models answer the same dev utterances, and each metric is compared by paired bootstrap.

Models with an LLM are decoded greedily and scored (decode, score). A Whisper of phase 1 is asked
for the right tokens by teacher forcing: its own start has never seen the prompts, and to decode it
would be to compare forms.
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
from wenet_osum.decode.jobs import Job
from wenet_osum.files import write_text
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import Hypothesis, Metric, Utterance
from wenet_osum.score import compare_task, score_task
from wenet_osum.score.bootstrap import Difference, paired
from wenet_osum.tasks import Task
from wenet_osum.text.template import Template

if TYPE_CHECKING:
    from wenet_osum.decode.pipeline import Recognizer

# The metric of phase 1.
TOKENS = Metric("token_accuracy", "token accuracy")


@dataclass
class Verdict:
    """One metric of one task after a phase, minus the same before it."""

    task: str
    metric: Metric
    subset: str
    # After minus before, in points.
    difference: Difference
    # Points by which it may become worse.
    margin: float

    @property
    def worsening(self) -> float:
        """Return by how many points the phase made it worse; negative: better."""
        change = self.difference.difference
        if self.metric.lower_is_better:
            return change
        return -change

    @property
    def certain(self) -> bool:
        """Return whether the 95 % interval leaves out no change."""
        _, low, high, _, _ = self.difference
        return low > 0 or high < 0

    @property
    def outcome(self) -> str:
        """Return ``passed``, ``unclear`` or ``FAILED``.

        Worse by more than the margin is ``FAILED`` when it is certain, and ``unclear`` when it may
        be chance.
        """
        if self.worsening <= self.margin:
            return "passed"
        return "FAILED" if self.certain else "unclear"

    def __str__(self) -> str:
        change, low, high, _, utterances = self.difference
        name = f"{self.metric.name} {self.subset}"
        points = f"{change:+.2f} [{low:+.2f}, {high:+.2f}] points"
        return (
            f"compare {self.task:6s} {self.outcome}: "
            f"{name} {points} on {utterances} utterances, "
            f"margin {self.margin:g}"
        )


def spread(items: Sequence, limit: int) -> list:
    """Choose at most ``limit`` items, evenly spread."""
    if len(items) <= limit:
        return list(items)
    last = len(items) - 1
    indices = np.linspace(0, last, limit).round()
    chosen = []
    for index in indices.astype(int):
        chosen.append(items[index])
    return chosen


def answers(
    recognizer: Recognizer, task: str, jobs: list[Job], out: Path
) -> dict[str, Hypothesis]:
    """Let the model answer; returns the answers by key.

    They are also written to ``out`` as JSON lines.
    """
    asked = dataclasses.replace(recognizer, task=recognizer.template.task(task))
    groups = recognizer.groups(jobs)
    found = {}
    for _, rows in asked.run(groups):
        for _, hypothesis in rows:
            found[hypothesis.key] = hypothesis

    lines = []
    for job in jobs:
        line = found[job.key].to_json()
        lines.append(f"{line}\n")
    write_text(out, "".join(lines))
    return found


def decoded(
    task: Task,
    references: list[Utterance],
    after: dict[str, Hypothesis],
    before: dict[str, Hypothesis],
    normalizer: str,
    margin: float,
    resample: str = "utterance",
) -> list[Verdict]:
    """Compare the metrics that a report shows of this task, as far as they are in percent.

    ``resample`` says what the bootstrap draws (``score.resampling``).
    """
    scores = score_task(task, references, after, normalizer, resamples=1)
    differences = compare_task(task, references, after, before, normalizer, resample=resample)
    verdicts = []
    for score in scores:
        about = score.about
        if score.detail.get("minor") or about.unit != "%":
            continue
        subset = score.subset
        difference = differences.get((score.detail["field"], score.metric, subset))
        if difference is not None:
            verdict = Verdict(task.name, about, subset, difference, margin)
            verdicts.append(verdict)
    return verdicts


def forced(
    model: WhisperPhase,
    template: Template,
    task: str,
    listed: str,
    limit: int,
    mels: int,
) -> tuple[list[str], np.ndarray]:
    """Ask phase 1 for the right tokens by teacher forcing.

    Takes up to ``limit`` utterances of the list, from long to short. Returns their keys and (U, 2):
    per utterance the weight of the answer tokens that are right, and of all. Raises ValueError for
    a list without a readable utterance.
    """
    device = torch.device("cpu")
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
    model.to(device)

    keys, rows = [], []
    with torch.no_grad():
        for batch in eval_loader(listed, task, template, BatchConfig(), mels, max_utterances=limit):
            if batch.filler:
                continue
            batch = batch.to(device)
            keys += batch.keys
            sizes = batch.answer_lengths.tolist()
            weights = batch.answer_weights
            right = model(batch).correct.double() * weights
            pieces = zip(right.split(sizes), weights.split(sizes), strict=True)
            for right_of_one, all_of_one in pieces:
                rows.append([float(right_of_one.sum()), float(all_of_one.sum())])
    if not rows:
        raise ValueError(
            f"dev list {listed} has no readable utterance for task {task}; "
            "check it with tools/check_data_list.py"
        )
    return keys, np.array(rows)


def tokens_compared(
    task: str,
    after: np.ndarray,
    before: np.ndarray,
    margin: float,
    clusters: np.ndarray | None = None,
) -> Verdict:
    """Compare the token accuracy of phase 1 with that of its start, in percent.

    ``clusters`` (U,) numbers what the bootstrap draws together; None draws single utterances.
    """

    def accuracy(sums: np.ndarray) -> np.ndarray:
        right, all_tokens = sums.T
        return 100 * right / all_tokens

    difference = paired(after, before, accuracy, clusters=clusters)
    return Verdict(task, TOKENS, "all", difference, margin)


def save(verdicts: list[Verdict], path: Path) -> None:
    """Write all verdicts as JSON."""
    rows = []
    for verdict in verdicts:
        row = dataclasses.asdict(verdict)
        row["metric"] = verdict.metric.name
        row["difference"] = verdict.difference._asdict()
        row["outcome"] = verdict.outcome
        rows.append(row)
    text = json.dumps(rows, indent=1)
    write_text(path, f"{text}\n")
