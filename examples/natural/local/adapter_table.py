#!/usr/bin/env python3
"""One table of the adapters that adapters.sh has trained: what each costs and what it hears.

    python local/adapter_table.py --runs adapters --adapters "linear ctc_shrink" --seeds "777 1" \\
        --out adapters/table.md

A row is an adapter, a figure the mean over its seeds; where there are several, the least and the
largest stand in brackets, else the 95 % interval of score.json, which resamples speakers. LLM
tokens per second of speech are those that decoding told for the first test set, recognition; hours
of audio per hour are the training log's, the median of phase 3.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

from tables import arguments, markdown, publish, score_of

# Column → (task, metric).
FIGURES = {
    "ASR, WER %": ("asr", "wer"),
    "SGC, %": ("sgc", "accuracy"),
    "SAP, %": ("sap", "accuracy"),
    "SER, %": ("ser", "accuracy"),
    "VED, %": ("ved", "accuracy"),
    "SRWT, within 100 ms, %": ("srwt", "within_100ms"),
    "STTC, token F1 %": ("sttc", "token_f1"),
}
RATE = re.compile(r"speech: .* ([\d.]+) per second")


def cell(runs: list[Path], task: str, metric: str) -> str:
    """Return the mean of a figure over seeds, with how sure it is."""
    scores = [score_of(run / "exp/score", task, metric) for run in runs]
    if not all(scores):
        return ""
    values = [score.value for score in scores]
    mean = statistics.mean(values)
    low = min(values)
    high = max(values)
    if len(runs) == 1:
        low = scores[0].low
        high = scores[0].high
    return f"{mean:.1f} ({low:.1f}–{high:.1f})"


def tokens_per_second(run: Path) -> float:
    """Return how many positions of the LLM a second of speech took in the first test set."""
    logs = run.glob("exp/decode/*.log")
    told = min(logs).read_text(encoding="utf-8")
    found = RATE.search(told)
    return float(found[1])


def hours_per_hour(run: Path) -> float:
    """Return hours of audio per hour of training, the median of phase 3."""
    log = run / "exp/3_joint/log.jsonl"
    told = log.read_text(encoding="utf-8")
    rates = []
    for line in told.splitlines():
        row = json.loads(line)
        rate = row.get("audio_h_per_h")
        if rate is not None:
            rates.append(rate)
    return statistics.median(rates)


def mean_of(runs: list[Path], measure: Callable[[Path], float]) -> str:
    """Return the mean of a measure over runs."""
    values = [measure(run) for run in runs]
    mean = statistics.mean(values)
    return f"{mean:.1f}"


def row(name: str, runs: list[Path]) -> list[str]:
    """Return the cells of an adapter."""
    rate = mean_of(runs, tokens_per_second)
    speed = mean_of(runs, hours_per_hour)
    cells = [name, rate, speed]
    for task, metric in FIGURES.values():
        figure = cell(runs, task, metric)
        cells.append(figure)
    return cells


def table(runs: Path, adapters: list[str], seeds: list[str]) -> str:
    """Return the table as markdown."""
    columns = ["adapter", "LLM tokens/s", "hours/hour", *FIGURES]
    rows = []
    for name in adapters:
        own = []
        for seed in seeds:
            run = runs / f"{name}.{seed}"
            own.append(run)
        cells = row(name, own)
        rows.append(cells)
    return markdown(columns, rows)


def main() -> int:
    """Write the table and print it."""
    args = arguments(__doc__, ["adapters", "seeds"])
    text = table(args.runs, args.adapters, args.seeds)
    publish(text, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
