"""Sum the losses, right tokens and right labels of each task, over batches and processes.

Further losses (models/losses) are summed by name, over all tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from wenet_osum.devices import to_device
from wenet_osum.records import Batch

# Sums that are kept per task: Σ weight · nll, Σ weight, Σ weight · correct, utterances with
# labels, utterances whose labels are all right.
SUMS = 5


class Tally:
    """Sum loss, token accuracy and right labels per task.

    The sums stay on the device, so that no step waits for it.
    """

    def __init__(self, name_of: Callable[[str], str] = str) -> None:
        """``name_of`` makes a short name of a task's tags."""
        self.name_of = name_of
        # task → (SUMS,) float64
        self.sums: dict[str, Tensor] = {}
        # further loss → its sum, float64, not times its weight
        self.further: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, batch: Batch, output: Any) -> None:
        """Add a micro-batch; tokens without weight (fillers) count nothing."""
        if batch.filler:
            return
        device = output.nll.device
        per_utterance = self._utterance_sums(batch, output)  # (B, SUMS)

        names = sorted(set(batch.tasks))
        index = [names.index(task) for task in batch.tasks]
        task_of = to_device(torch.tensor(index), device)  # (B,)
        table = per_utterance.new_zeros(len(names), SUMS)
        table.index_add_(0, task_of, per_utterance)
        for tags, row in zip(names, table.unbind(), strict=True):
            name = self.name_of(tags)
            if name in self.sums:
                self.sums[name] = self.sums[name] + row
            else:
                self.sums[name] = row
        further = output.further or {}
        for name, value in further.items():
            self.further[name] = self.further.get(name, 0.0) + value.double()

    def _utterance_sums(self, batch: Batch, output: Any) -> Tensor:
        """Return the sums of each utterance, (B, SUMS) on the device."""
        device = output.nll.device
        lengths = batch.answer_counts()
        count = len(lengths)

        # Which utterance each answer token belongs to, worked out on the CPU.
        owner = torch.repeat_interleave(torch.arange(count), lengths)
        owner = to_device(owner, device)  # (A,)
        weight = to_device(batch.answer_weights, device).double()
        right = output.correct.double()
        is_label = torch.zeros_like(weight)
        if batch.answer_labels is not None:
            is_label = to_device(batch.answer_labels, device).double()
        columns = [
            weight * output.nll.double(),
            weight,
            weight * right,
            is_label,
            is_label * (1.0 - right),
        ]
        per_token = torch.stack(columns, dim=1)  # (A, SUMS)
        sums = per_token.new_zeros(count, SUMS)
        sums.index_add_(0, owner, per_token)

        # Labels are right or wrong as a whole: label tokens and wrong ones become yes or no.
        labels, wrong = sums[:, 3], sums[:, 4]
        labeled = labels > 0
        all_right = labeled & (wrong == 0)
        sums[:, 3] = labeled.double()
        sums[:, 4] = all_right.double()
        return sums

    def rows(self) -> dict[str, list[float]]:
        """Return the sums as plain numbers; this is where the device is waited for."""
        found = {}
        for name, row in self.sums.items():
            found[name] = row.tolist()
        return found

    def further_sums(self) -> dict[str, float]:
        """Return the sums of further losses as plain numbers."""
        found = {}
        for name, value in self.further.items():
            found[name] = float(value)
        return found


def merge(rows: Iterable[dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Merge the sums of all processes.

    Returns, by task, loss (nats per token), acc (share of tokens right), tokens (their weights)
    and, for tasks with labels, labels: the share of utterances whose labels are right, given the
    words before them.
    """
    totals: dict[str, list[float]] = {}
    for row in rows:
        for name, sums in row.items():
            before = totals.get(name, [0.0] * SUMS)
            both = zip(before, sums, strict=True)
            totals[name] = [a + b for a, b in both]

    merged = {}
    for name, total in sorted(totals.items()):
        nll, weight, right, labeled, labels_right = total
        if weight <= 0:
            continue
        merged[name] = {
            "loss": nll / weight,
            "acc": right / weight,
            "tokens": weight,
        }
        if labeled:
            merged[name]["labels"] = labels_right / labeled
    return merged


def merge_further(
    rows: Iterable[dict[str, float]], tasks: dict[str, dict[str, float]]
) -> dict[str, float]:
    """Merge the sums of further losses of all processes, and divide them by the weights of all
    answer tokens, which ``tasks`` hold as ``merge`` gives them.

    So the loss that is trained is ce_weight · cross-entropy + Σ weight · what stands here.
    """
    total: Counter = Counter()
    for row in rows:
        for name, value in row.items():
            total[name] += value

    weight = 0.0
    for task in tasks.values():
        weight += task["tokens"]
    if not weight:
        return {}
    merged = {}
    for name, value in total.items():
        merged[name] = value / weight
    return merged


def scores(tasks: dict[str, dict[str, float]]) -> str:
    """Write loss, right tokens and, where a task has labels, utterances with right labels.

    For example ``ser 0.412/91.3%/74.0%``.
    """
    texts = []
    for task, values in tasks.items():
        text = f"{task} {values['loss']:.3f}"
        for name in ("acc", "labels"):
            if name in values:
                percent = 100 * values[name]
                text += f"/{percent:.1f}%"
        texts.append(text)
    return "  ".join(texts)
