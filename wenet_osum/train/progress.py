"""Show a person how a run goes.

A line every ``log_every`` steps, a bar on a terminal, TensorBoard, and log.jsonl for the report.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wenet_osum.files import write_text
from wenet_osum.progress import ProgressBar, on_terminal
from wenet_osum.records import Batch
from wenet_osum.train.rehearse import peak_gib
from wenet_osum.train.tally import Tally, merge, merge_further, scores

LOG, LINES, BOARD, KEYS = "log.jsonl", "train.log", "tensorboard", "keys"
# What is added up over processes.
SUMMED = ("wait_s", "audio_s", "tokens", "speech_tokens", "speech_s", "frames", "padded")


@dataclass
class Meter:
    """Counts of this process since the last log line."""

    tally: Tally = field(default_factory=Tally)
    # The step before the first that is counted.
    since: int = 0
    start: float = field(default_factory=time.monotonic)
    # Time the loop waited for data.
    wait_s: float = 0.0
    audio_s: float = 0.0
    # Answer tokens.
    tokens: int = 0
    # Positions that speech took in the LLM, and the audio it was, s.
    speech_tokens: int = 0
    speech_s: float = 0.0
    # Feature frames that hold speech.
    frames: int = 0
    # Feature frames computed, padding included.
    padded: int = 0
    # Samples left out, by reason.
    dropped: Counter = field(default_factory=Counter)
    # Utterances that a further loss could not count, by reason.
    left_out: dict[str, Any] = field(default_factory=dict)

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
        speech_lengths = getattr(output, "speech_lengths", None)
        if speech_lengths is not None and not batch.filler:
            self.speech_tokens += int(speech_lengths.sum())
            self.speech_s += sum(batch.audio_s)
        # Counts stay on the device, so that no step waits for it.
        left_out = output.left_out or {}
        for reason, count in left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def stats(self) -> dict[str, Any]:
        """Return plain numbers for ``summary``; this is where the device is waited for."""
        dropped = Counter(self.dropped)
        for reason, count in self.left_out.items():
            dropped[reason] += int(count)
        return {
            "wait_s": self.wait_s,
            "audio_s": self.audio_s,
            "tokens": self.tokens,
            "speech_tokens": self.speech_tokens,
            "speech_s": self.speech_s,
            "frames": self.frames,
            "padded": self.padded,
            "dropped": dropped,
            "elapsed": time.monotonic() - self.start,
            "tasks": self.tally.rows(),
            "further": self.tally.further_sums(),
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
        for name in SUMMED:
            total[name] += row[name]
        dropped += row["dropped"]
        elapsed = max(elapsed, row["elapsed"])
        memory = max(memory, row["memory"])
    tasks = merge(row["tasks"] for row in rows)
    losses = merge_further((row["further"] for row in rows), tasks)
    found = {
        "tasks": tasks,
        "audio_h_per_h": total["audio_s"] / elapsed,
        "tokens_per_s": total["tokens"] / elapsed,
        "padding": 1.0 - total["frames"] / max(1, total["padded"]),
        "data_wait": total["wait_s"] / (elapsed * len(rows)),
        "memory_gib": memory,
        "dropped": dropped,
    }
    # What the LLM did not listen to has no rate.
    if total["speech_s"]:
        found["speech_tokens_per_s"] = total["speech_tokens"] / total["speech_s"]
    if losses:
        found["losses"] = losses
    return found


def duration(seconds: float) -> str:
    """Write a time as hours, minutes and seconds: 1:02:03."""
    whole = int(seconds)
    minutes, s = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{minutes:02d}:{s:02d}"
    return f"{hours}:{clock}"


class Progress:
    """Write on the first process; on the others every call does nothing."""

    def __init__(self, exp_dir: Path, active: bool) -> None:
        self.exp_dir = exp_dir
        self.active = active
        # The bar on a terminal, and TensorBoard's writer; both are opened by ``open``.
        self.bar: ProgressBar | None = None
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
        # Where stderr is no terminal, the log's own lines are the progress.
        if on_terminal():
            self.bar = ProgressBar(total, "steps", done=step)

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
            self.bar.add()

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
        text = json.dumps(row, ensure_ascii=False)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")


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
                number = float(part)
                yield f"{name}/{key}", number
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
    write_text(path, "".join(kept))


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
    losses = scores(stats["tasks"])
    for name, value in stats.get("losses", {}).items():
        losses += f"  {name} {value:.3f}"
    of_total = ""
    if total:
        of_total = f"/{total}"
    parts = [
        f"step {step}{of_total}",
        f"epoch {epoch}",
        f"loss/tokens/labels {losses}",
        f"lr {rate:.2e}",
        f"grad {norm:.2f}",
        f"{stats['audio_h_per_h']:.1f} h/h",
        f"{stats['tokens_per_s']:.0f} tok/s",
        f"padding {padding:.1f}%",
        f"data wait {data_wait:.1f}%",
        f"mem {stats['memory_gib']:.2f} GiB",
    ]
    if "speech_tokens_per_s" in stats:
        parts.append(f"speech {stats['speech_tokens_per_s']:.2f} tok/s of audio")
    if left_s is not None:
        parts.append(f"left {duration(left_s)}")
    return "  ".join(parts)
