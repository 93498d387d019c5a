"""Show a person how a run goes.

A line every ``log_every`` steps, a bar on a terminal, TensorBoard, and log.jsonl for the report.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wenet_osum.records import Batch
from wenet_osum.train.rehearse import peak_gib

LOG, LINES, BOARD, KEYS = "log.jsonl", "train.log", "tensorboard", "keys"

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

    @torch.no_grad()
    def add(self, batch: Batch, output: Any) -> None:
        """Add a micro-batch; tokens without weight (fillers) count nothing."""
        if batch.filler:
            return
        device = output.nll.device
        per_utterance = self._utterance_sums(batch, output)  # (B, SUMS)

        names = sorted(set(batch.tasks))
        index = [names.index(task) for task in batch.tasks]
        task_of = torch.tensor(index, device=device)  # (B,)
        table = per_utterance.new_zeros(len(names), SUMS)
        table.index_add_(0, task_of, per_utterance)
        for tags, row in zip(names, table.unbind(), strict=True):
            name = self.name_of(tags)
            if name in self.sums:
                self.sums[name] = self.sums[name] + row
            else:
                self.sums[name] = row

    def _utterance_sums(self, batch: Batch, output: Any) -> Tensor:
        """Return the sums of each utterance, (B, SUMS) on the device."""
        device = output.nll.device
        lengths = batch.answer_lengths.cpu()
        count = len(lengths)

        # Which utterance each answer token belongs to, worked out on the CPU.
        owner = torch.repeat_interleave(torch.arange(count), lengths).to(device)  # (A,)
        weight = batch.answer_weights.to(device, torch.float64)
        right = output.correct.double()
        is_label = torch.zeros_like(weight)
        if batch.answer_labels is not None:
            is_label = batch.answer_labels.to(device).double()
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


@dataclass
class Meter:
    """What happened on this process since the last log line."""

    tally: Tally = field(default_factory=Tally)
    start: float = field(default_factory=time.monotonic)
    # Time the loop waited for data.
    wait_s: float = 0.0
    audio_s: float = 0.0
    # Answer tokens.
    tokens: int = 0
    # Feature frames that hold speech.
    frames: int = 0
    # Feature frames computed, padding included.
    padded: int = 0
    # Samples left out, by reason.
    dropped: Counter = field(default_factory=Counter)

    def add(self, batch: Batch) -> None:
        """Count a micro-batch."""
        self.dropped.update(batch.dropped)
        if batch.filler:
            return
        self.audio_s += sum(batch.audio_s)
        self.tokens += len(batch.answer_ids)
        self.frames += int(batch.feature_lengths.sum())
        utterances, longest = batch.features.shape[:2]
        self.padded += utterances * longest

    def add_output(self, batch: Batch, output: Any) -> None:
        """Count what the model made of a micro-batch."""
        self.tally.add(batch, output)
        left_out = output.left_out or {}
        for reason, count in left_out.items():
            self.dropped[reason] += int(count)

    def stats(self) -> dict[str, Any]:
        """Return plain numbers for ``summary``."""
        return {
            "wait_s": self.wait_s,
            "audio_s": self.audio_s,
            "tokens": self.tokens,
            "frames": self.frames,
            "padded": self.padded,
            "dropped": self.dropped,
            "elapsed": time.monotonic() - self.start,
            "tasks": self.tally.rows(),
            "memory": peak_gib(),
        }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the stats of all processes together.

    Rates are over all processes, shares are means, memory is that of the fullest.
    """
    total: Counter = Counter()
    dropped: Counter = Counter()
    elapsed, memory = 1e-9, 0.0
    for row in rows:
        for name in ("wait_s", "audio_s", "tokens", "frames", "padded"):
            total[name] += row[name]
        dropped += row["dropped"]
        elapsed = max(elapsed, row["elapsed"])
        memory = max(memory, row["memory"])
    return {
        "tasks": merge(row["tasks"] for row in rows),
        "audio_h_per_h": total["audio_s"] / elapsed,
        "tokens_per_s": total["tokens"] / elapsed,
        "padding": 1.0 - total["frames"] / max(1, total["padded"]),
        "data_wait": total["wait_s"] / (elapsed * len(rows)),
        "memory_gib": memory,
        "dropped": dropped,
    }


def duration(seconds: float) -> str:
    """Write a time as hours, minutes and seconds: 1:02:03."""
    whole = int(seconds)
    minutes, s = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}"


class Progress:
    """Write on the first process; on the others every call does nothing."""

    def __init__(self, exp_dir: Path, active: bool) -> None:
        self.exp_dir = exp_dir
        self.active = active
        # The bar on a terminal, and TensorBoard's writer; both are opened by ``open``.
        self.bar: Any = None
        self.board: Any = None

    def open(self, step: int, total: int | None) -> None:
        """Begin at ``step``.

        Records of later steps, written before a kill, are cut off so that no step stands twice.
        """
        if not self.active:
            return
        from torch.utils.tensorboard import SummaryWriter

        _cut_log(self.exp_dir / LOG, step)
        board = str(self.exp_dir / BOARD)
        self.board = SummaryWriter(board, purge_step=step + 1 if step else None)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)

    def log(self, text: str) -> None:
        """Write a line to the terminal and to train.log."""
        if not self.active:
            return
        if self.bar:
            self.bar.write(text)
        else:
            print(text, flush=True)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with open(self.exp_dir / LINES, "a", encoding="utf-8") as file:
            file.write(f"{now} {text}\n")

    def advance(self) -> None:
        """Move the bar by one step."""
        if self.bar:
            self.bar.update()

    def record(
        self, step: int, split: str, tasks: dict[str, dict[str, float]], **stats: Any
    ) -> None:
        """Write one JSON line per task, one for the other stats of the step, and TensorBoard."""
        if not self.active:
            return
        rows: list[tuple[str | None, dict[str, Any]]] = [*tasks.items()]
        if stats:
            rows.append((None, stats))
        with open(self.exp_dir / LOG, "a", encoding="utf-8") as file:
            for task, values in rows:
                row = {"step": step, "split": split, "task": task}
                row |= _short(values)
                text = json.dumps(row, ensure_ascii=False)
                file.write(f"{text}\n")
        for name, value in _flat(split, tasks, stats):
            self.board.add_scalar(name, value, step)

    def count(self, step: int, title: str, counts: dict[str, int]) -> None:
        """Write counts by reason to TensorBoard alone; the log holds them already."""
        if not self.active:
            return
        for reason, number in counts.items():
            self.board.add_scalar(f"{title}/{reason}", number, step)

    def close(self) -> None:
        """Flush everything."""
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.close()
        self.bar = self.board = None


class KeyLog:
    """Note the utterances of every step of this process in ``keys/rank_0000.jsonl``.

    One JSON line per step; steps after ``step`` are cut off.
    """

    def __init__(self, exp_dir: Path, rank: int, step: int) -> None:
        folder = exp_dir / KEYS
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"rank_{rank:04d}.jsonl"
        _cut_log(self.path, step)

    def add(self, step: int, epoch: int, batches: list[Batch]) -> None:
        """Note a step before it is taken."""
        keys = []
        for batch in batches:
            if not batch.filler:
                keys += zip(batch.keys, batch.tasks, strict=True)
        row = {"step": step, "epoch": epoch, "keys": keys}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _short(values: dict[str, Any]) -> dict[str, Any]:
    """Round numbers to six digits behind the point, but leave small ones, such as rates, whole."""
    short = {}
    for name, value in values.items():
        if isinstance(value, float) and abs(value) > 1e-3:
            value = round(value, 6)
        short[name] = value
    return short


def _flat(
    split: str, tasks: dict[str, dict[str, float]], stats: dict[str, Any]
) -> Iterator[tuple[str, float]]:
    """Name every number for TensorBoard."""
    for task, values in tasks.items():
        for name, value in values.items():
            if name != "tokens":
                yield f"{split}_{name}/{task}", value
    for name, value in stats.items():
        if isinstance(value, dict):
            for key, part in value.items():
                yield f"{name}/{key}", float(part)
        elif value is not None:
            yield f"{split}/{name}", float(value)


def _cut_log(path: Path, step: int) -> None:
    """Drop records after ``step``, and a line torn by a kill."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["step"] <= step:
            kept.append(line + "\n")
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


def line(
    step: int,
    total: int | None,
    epoch: int,
    rate: float,
    norm: float,
    stats: dict[str, Any],
    left_s: float | None,
) -> str:
    """Write the log line of a step.

    ``total`` is the last step, ``rate`` the learning rate, ``norm`` the norm of the gradient before
    it is clipped, ``stats`` what ``summary`` gives, ``left_s`` the time to the end (s).
    """
    padding = 100 * stats["padding"]
    data_wait = 100 * stats["data_wait"]
    of_total = f"/{total}" if total else ""
    parts = [
        f"step {step}{of_total}",
        f"epoch {epoch}",
        f"loss/tokens/labels {scores(stats['tasks'])}",
        f"lr {rate:.2e}",
        f"grad {norm:.2f}",
        f"{stats['audio_h_per_h']:.1f} h/h",
        f"{stats['tokens_per_s']:.0f} tok/s",
        f"padding {padding:.1f}%",
        f"data wait {data_wait:.1f}%",
        f"mem {stats['memory_gib']:.2f} GiB",
    ]
    if left_s is not None:
        parts.append(f"left {duration(left_s)}")
    return "  ".join(parts)
