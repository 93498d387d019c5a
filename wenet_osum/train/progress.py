"""What a person sees of a run: a line every ``log_every`` steps, a bar on a terminal, TensorBoard, and log.jsonl for the report."""

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


class Tally:
    """Loss, token accuracy and labels right per task, summed on the device so that no step waits for it."""

    def __init__(self, name_of: Callable[[str], str] = str) -> None:
        """``name_of`` makes a short name of a task's tags."""
        self.name_of = name_of
        self.sums: dict[str, Tensor] = {}  # task → (5,) float64: Σ weight·nll, Σ weight, Σ weight·correct, utterances with labels, all of them right

    @torch.no_grad()
    def add(self, batch: Batch, output: Any) -> None:
        """Add a micro-batch; tokens without weight (fillers) count nothing."""
        if batch.filler:
            return
        lengths = batch.answer_lengths.tolist()
        names = sorted(set(batch.tasks))
        device = output.nll.device
        task = torch.tensor([names.index(task) for task in batch.tasks], device=device)  # (B,)
        utterance = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)  # (A,)
        weight = batch.answer_weights.to(device, torch.float64)
        label = (torch.zeros(len(weight)) if batch.answer_labels is None else batch.answer_labels).to(device).double()
        columns = [weight * output.nll.double(), weight, weight * output.correct.double(), label, label * (~output.correct).double()]
        rows = torch.zeros(len(lengths), 5, dtype=torch.float64, device=device).index_add_(0, utterance, torch.stack(columns, dim=1))
        labeled = rows[:, 3] > 0
        rows[:, 4] = (labeled & (rows[:, 4] == 0)).double()
        rows[:, 3] = labeled.double()
        table = rows.new_zeros(len(names), 5).index_add_(0, task, rows)
        for name, row in zip(map(self.name_of, names), table.unbind(), strict=True):
            self.sums[name] = self.sums[name] + row if name in self.sums else row

    def rows(self) -> dict[str, list[float]]:
        """The sums as plain numbers; this is where the device is waited for."""
        return {name: row.tolist() for name, row in self.sums.items()}


def merge(rows: Iterable[dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Sums of all processes → task → {loss (nats a token), acc (share of tokens right), tokens} and, for tasks with labels, labels: the share of
    utterances whose labels are right, given the words before them."""
    totals: dict[str, list[float]] = {}
    for row in rows:
        for name, sums in row.items():
            totals[name] = [a + b for a, b in zip(totals.get(name, [0.0] * 5), sums, strict=True)]
    rows = {name: {"loss": t[0] / t[1], "acc": t[2] / t[1], "tokens": t[1]} for name, t in sorted(totals.items()) if t[1] > 0}
    return {name: row | ({"labels": totals[name][4] / totals[name][3]} if totals[name][3] else {}) for name, row in rows.items()}


def scores(tasks: dict[str, dict[str, float]]) -> str:
    """``ser 0.412/91.3%/74.0%``: loss, tokens right and, where a task has labels, utterances with right labels."""
    text = ((task, v["loss"], [v["acc"], *([v["labels"]] if "labels" in v else [])]) for task, v in tasks.items())
    return "  ".join(f"{task} {loss:.3f}/" + "/".join(f"{100 * share:.1f}%" for share in shares) for task, loss, shares in text)


@dataclass
class Meter:
    """What happened on this process since the last log line."""

    tally: Tally = field(default_factory=Tally)
    start: float = field(default_factory=time.monotonic)
    wait_s: float = 0.0  # time the loop waited for data
    audio_s: float = 0.0
    tokens: int = 0  # answer tokens
    frames: int = 0  # feature frames that hold speech
    padded: int = 0  # feature frames computed, padding included
    dropped: Counter = field(default_factory=Counter)

    def add(self, batch: Batch) -> None:
        """Count a micro-batch."""
        self.dropped.update(batch.dropped)
        if batch.filler:
            return
        self.audio_s += sum(batch.audio_s)
        self.tokens += len(batch.answer_ids)
        self.frames += int(batch.feature_lengths.sum())
        self.padded += batch.features.shape[0] * batch.features.shape[1]

    def add_output(self, batch: Batch, output: Any) -> None:
        """Count what the model made of a micro-batch."""
        self.tally.add(batch, output)
        for reason, count in (output.left_out or {}).items():
            self.dropped[reason] += int(count)

    def stats(self) -> dict[str, Any]:
        """Plain numbers for ``summary``."""
        own = {name: getattr(self, name) for name in ("wait_s", "audio_s", "tokens", "frames", "padded", "dropped")}
        return own | {"elapsed": time.monotonic() - self.start, "tasks": self.tally.rows(), "memory": peak_gib()}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all processes together: rates over all, shares as means, memory of the fullest."""
    total = {name: sum(row[name] for row in rows) for name in ("wait_s", "audio_s", "tokens", "frames", "padded")}
    elapsed = max(max(row["elapsed"] for row in rows), 1e-9)
    return {
        "tasks": merge(row["tasks"] for row in rows),
        "audio_h_per_h": total["audio_s"] / elapsed,
        "tokens_per_s": total["tokens"] / elapsed,
        "padding": 1.0 - total["frames"] / max(1, total["padded"]),
        "data_wait": total["wait_s"] / (elapsed * len(rows)),
        "memory_gib": max(row["memory"] for row in rows),
        "dropped": sum((row["dropped"] for row in rows), Counter()),
    }


def duration(seconds: float) -> str:
    """1:02:03"""
    minutes, s = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"


class Progress:
    """Writes on the first process; on the others every call does nothing."""

    def __init__(self, exp_dir: Path, active: bool) -> None:
        self.exp_dir, self.active, self.bar, self.board = exp_dir, active, None, None

    def open(self, step: int, total: int | None) -> None:
        """Begin at ``step``; records of later steps, written before a kill, are cut off so that no step stands twice."""
        if not self.active:
            return
        from torch.utils.tensorboard import SummaryWriter

        _cut_log(self.exp_dir / LOG, step)
        self.board = SummaryWriter(str(self.exp_dir / BOARD), purge_step=step + 1 if step else None)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)

    def log(self, text: str) -> None:
        """A line for the terminal and train.log."""
        if not self.active:
            return
        self.bar.write(text) if self.bar else print(text, flush=True)
        with open(self.exp_dir / LINES, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def advance(self) -> None:
        """One step on the bar."""
        if self.bar:
            self.bar.update()

    def record(self, step: int, split: str, tasks: dict[str, dict[str, float]], **stats: Any) -> None:
        """One JSON line a task, one for the step's other figures, and all of it to TensorBoard."""
        if not self.active:
            return
        rows = [{"step": step, "split": split, "task": task, **_short(values)} for task, values in tasks.items()]
        rows += [{"step": step, "split": split, "task": None, **_short(stats)}] if stats else []
        with open(self.exp_dir / LOG, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, value in _flat(split, tasks, stats):
            self.board.add_scalar(name, value, step)

    def count(self, step: int, title: str, counts: dict[str, int]) -> None:
        """Counts by reason to TensorBoard alone; the log has said them."""
        if self.active:
            for reason, number in counts.items():
                self.board.add_scalar(f"{title}/{reason}", number, step)

    def close(self) -> None:
        """Flush everything."""
        for part in (self.bar, self.board):
            if part is not None:
                part.close()
        self.bar = self.board = None


class KeyLog:
    """The utterances of every step of this process, a JSON line each in ``keys/rank_0000.jsonl``; steps after ``step`` are cut off."""

    def __init__(self, exp_dir: Path, rank: int, step: int) -> None:
        self.path = exp_dir / KEYS / f"rank_{rank:04d}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _cut_log(self.path, step)

    def add(self, step: int, epoch: int, batches: list[Batch]) -> None:
        """Note a step before it is taken."""
        keys = [[*pair] for batch in batches if not batch.filler for pair in zip(batch.keys, batch.tasks, strict=True)]
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "epoch": epoch, "keys": keys}, ensure_ascii=False) + "\n")


def _short(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) and abs(v) > 1e-3 else v for k, v in values.items()}


def _flat(split: str, tasks: dict[str, dict[str, float]], stats: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for task, values in tasks.items():
        yield from ((f"{split}_{name}/{task}", value) for name, value in values.items() if name != "tokens")
    for name, value in stats.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{key}", float(v)) for key, v in value.items())
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


def line(step: int, total: int | None, epoch: int, rate: float, norm: float, stats: dict[str, Any], left_s: float | None) -> str:
    """The log line."""
    of = f"/{total}" if total else ""
    left = f"  left {duration(left_s)}" if left_s is not None else ""
    return (
        f"step {step}{of}  epoch {epoch}  loss/tokens/labels {scores(stats['tasks'])}  lr {rate:.2e}  grad {norm:.2f}  {stats['audio_h_per_h']:.1f} h/h  "
        f"{stats['tokens_per_s']:.0f} tok/s  padding {100 * stats['padding']:.1f}%  data wait {100 * stats['data_wait']:.1f}%  "
        f"mem {stats['memory_gib']:.2f} GiB{left}"
    )
