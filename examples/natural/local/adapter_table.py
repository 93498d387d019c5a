#!/usr/bin/env python3
"""One table of the adapters that adapters.sh has trained: what each costs and what it hears.

    python local/adapter_table.py --runs adapters --adapters "linear ctc_shrink" --seeds "777 1" \\
        --out adapters/table.md

A row is an adapter, a figure the mean over those seeds that are there. In brackets stands the 95 %
interval of score.json, which resamples speakers, of several seeds the mean of both ends, and behind
it the least and the largest of the seeds. LLM tokens per second of speech and the real-time factor
are those that decoding told for the first test set, recognition; hours of audio per hour are the
training log's, the median of phase 3. Beside the table, with the ending .svg, the figures are drawn
over the tokens.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path

from tables import arguments, markdown, publish, score_of

from wenet_osum.files import write_text
from wenet_osum.report import plots

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
FACTOR = re.compile(r"RTF ([\d.]+)")


def cell(runs: list[Path], task: str, metric: str) -> str:
    """Return the mean of a figure over seeds, with how sure it is."""
    scores = [score_of(run / "exp/score", task, metric) for run in runs]
    if not all(scores):
        return ""
    values = []
    lows = []
    highs = []
    for score in scores:
        values.append(score.value)
        lows.append(score.low)
        highs.append(score.high)
    low = statistics.mean(lows)
    high = statistics.mean(highs)
    told = f"{low:.1f}–{high:.1f}"
    if len(runs) > 1:
        least = min(values)
        most = max(values)
        told += f"; seeds {least:.1f}–{most:.1f}"
    mean = statistics.mean(values)
    return f"{mean:.1f} ({told})"


def mean_figure(runs: list[Path], task: str, metric: str) -> float:
    """Return the mean of a figure over seeds, NaN where one of them has none."""
    values = []
    for run in runs:
        score = score_of(run / "exp/score", task, metric)
        value = score.value if score else math.nan
        values.append(value)
    return statistics.mean(values)


def tokens_per_second(run: Path) -> float:
    """Return how many positions of the LLM a second of speech took in the first test set."""
    return _told(run, RATE)


def real_time_factor(run: Path) -> float:
    """Return the seconds that decoding took for a second of speech in the first test set."""
    return _told(run, FACTOR)


def _told(run: Path, number: re.Pattern) -> float:
    """Return the last number of its kind that decoding of the first test set printed."""
    logs = run.glob("exp/decode/*.log")
    first = min(logs)
    told = first.read_text(encoding="utf-8")
    found = number.findall(told)
    last = found[-1]
    return float(last)


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


def mean_of(runs: list[Path], measure: Callable[[Path], float]) -> float:
    """Return the mean of a measure over runs."""
    values = [measure(run) for run in runs]
    return statistics.mean(values)


def row(name: str, runs: list[Path]) -> list[str]:
    """Return the cells of an adapter."""
    rate = mean_of(runs, tokens_per_second)
    factor = mean_of(runs, real_time_factor)
    speed = mean_of(runs, hours_per_hour)
    cells = [
        name,
        f"{rate:.1f}",
        f"{speed:.1f}",
        f"{factor:.2f}",
    ]
    for task, metric in FIGURES.values():
        figure = cell(runs, task, metric)
        cells.append(figure)
    return cells


def trained(runs: Path, adapters: list[str], seeds: list[str]) -> dict[str, list[Path]]:
    """Find the runs of each adapter that have been scored; what has none is left out."""
    found: dict[str, list[Path]] = {}
    for name in adapters:
        for seed in seeds:
            run = runs / f"{name}.{seed}"
            if (run / "exp/score/score.json").is_file():
                found.setdefault(name, []).append(run)
    return found


def table(found: dict[str, list[Path]]) -> str:
    """Return the table as markdown."""
    columns = ["adapter", "LLM tokens/s", "hours/hour", "real-time factor", *FIGURES]
    rows = []
    for name, runs in found.items():
        cells = row(name, runs)
        rows.append(cells)
    return markdown(columns, rows)


def picture(found: dict[str, list[Path]]) -> str:
    """Draw every figure over the LLM tokens per second of speech, as an SVG file."""
    drawn = []
    for title, (task, metric) in FIGURES.items():
        points = {}
        for name, runs in found.items():
            rate = mean_of(runs, tokens_per_second)
            value = mean_figure(runs, task, metric)
            points[name] = (rate, value)
        plot = plots.scatter(points, title, "LLM tokens per second of speech")
        if plot:
            drawn.append(plot)
    return plots.sheet(drawn, {}, name="adapters beside each other")


def main() -> int:
    """Write table and picture, and print the table."""
    args = arguments(__doc__, ["adapters", "seeds"])
    found = trained(args.runs, args.adapters, args.seeds)
    text = table(found)
    publish(text, args.out)
    drawn = picture(found)
    beside = args.out.with_suffix(".svg")
    write_text(beside, drawn)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
