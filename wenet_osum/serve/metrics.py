"""Count what the server does, in the text format Prometheus reads."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wenet_osum.serve.connections import Connections

PREFIX = "wenet_osum"
LATENCIES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)  # s
IN_FLIGHT = "Requests being uploaded, waiting or being answered."
CLOSED = "Connections the server closed, by reason."
SIZES = (1, 2, 4, 8, 16, 32, 64)  # requests in a batch


class Histogram:
    """Counts of values up to each bound, with their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        # One count per bound, and one for the values beyond all of them.
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        """Write cumulative buckets, sum and count."""
        rows = []
        total = 0
        bounds = [*self.bounds, "+Inf"]
        for bound, count in zip(bounds, self.counts, strict=True):
            total += count
            rows.append(f'{name}_bucket{{le="{bound}"}} {total}')
        rows.append(f"{name}_sum {self.sum:.6f}")
        rows.append(f"{name}_count {total}")
        return rows


class Metrics:
    """Holds the counts of a server.

    The event loop and the worker both count, so everything goes through one lock.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: Counter = Counter()  # by HTTP status
        self.latency = Histogram(LATENCIES)
        self.batches = Histogram(SIZES)
        self.audio_s = 0.0
        self.busy_s = 0.0

    def request(self, status: int, seconds: float) -> None:
        """Count a request, or a stream in one, that was answered with ``status``."""
        with self.lock:
            self.requests[status] += 1
            self.latency.add(seconds)

    def batch(self, size: int, audio_s: float, busy_s: float) -> None:
        """Count a batch the model has worked through."""
        with self.lock:
            self.batches.add(size)
            self.audio_s += audio_s
            self.busy_s += busy_s

    def text(self, in_flight: int, waiting: int, connections: Connections) -> str:
        """Write everything in Prometheus' text format, version 0.0.4."""
        with self.lock:
            families = [
                _labeled(
                    "requests_total",
                    "Transcription requests by HTTP status.",
                    "status",
                    self.requests,
                ),
                _single(
                    "audio_seconds_total",
                    "counter",
                    "Audio the model has worked through, s.",
                    round(self.audio_s, 3),
                ),
                _single(
                    "busy_seconds_total",
                    "counter",
                    "Time the model has worked, s.",
                    round(self.busy_s, 3),
                ),
                _single("requests_in_flight", "gauge", IN_FLIGHT, in_flight),
                _single(
                    "requests_waiting",
                    "gauge",
                    "Requests waiting for the model.",
                    waiting,
                ),
                _single("connections", "gauge", "Open connections.", len(connections.open)),
                _labeled("connections_closed_total", CLOSED, "reason", connections.closed),
                _histogram(
                    "request_seconds",
                    "Time from a request to its answer, s.",
                    self.latency,
                ),
                _histogram("batch_size", "Requests in a batch.", self.batches),
            ]
        rows = []
        for family in families:
            rows += family
        return "\n".join(rows) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    """Write the two lines before the samples of a metric, whose full name is ``name``."""
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _single(name: str, kind: str, text: str, value: float) -> list[str]:
    """Write a metric of one value."""
    name = f"{PREFIX}_{name}"
    rows = _head(name, kind, text)
    rows.append(f"{name} {value}")
    return rows


def _labeled(name: str, text: str, label: str, counts: Counter) -> list[str]:
    """Write a counter with one value per label."""
    name = f"{PREFIX}_{name}"
    rows = _head(name, "counter", text)
    for key, count in counts.items():
        rows.append(f'{name}{{{label}="{key}"}} {count}')
    return rows


def _histogram(name: str, text: str, histogram: Histogram) -> list[str]:
    name = f"{PREFIX}_{name}"
    rows = _head(name, "histogram", text)
    return rows + histogram.lines(name)
