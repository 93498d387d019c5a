"""What the server counts, in the text format Prometheus reads."""

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
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        """Cumulative buckets, sum and count."""
        rows, total = [], 0
        for bound, count in zip([*self.bounds, "+Inf"], self.counts, strict=True):
            total += count
            rows.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*rows, f"{name}_sum {self.sum:.6f}", f"{name}_count {total}"]


class Metrics:
    """Counted by the event loop and by the worker, so everything goes through one lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests: Counter = Counter()  # by HTTP status
        self.latency, self.batches = Histogram(LATENCIES), Histogram(SIZES)
        self.audio_s = self.busy_s = 0.0

    def request(self, status: int, seconds: float) -> None:
        """Count a request to the transcription endpoint that was answered with ``status``."""
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
        """Everything in Prometheus' text format, version 0.0.4."""
        open_ = len(connections.open)
        closed = [(f'{{reason="{reason}"}}', n) for reason, n in connections.closed.items()]
        with self.lock:
            statuses = [(f'{{status="{status}"}}', n) for status, n in self.requests.items()]
            rows = [
                *_family("requests_total", "counter", "Transcription requests by HTTP status.", statuses),
                *_family("audio_seconds_total", "counter", "Audio the model has worked through, s.", [("", round(self.audio_s, 3))]),
                *_family("busy_seconds_total", "counter", "Time the model has worked, s.", [("", round(self.busy_s, 3))]),
                *_family("requests_in_flight", "gauge", IN_FLIGHT, [("", in_flight)]),
                *_family("requests_waiting", "gauge", "Requests waiting for the model.", [("", waiting)]),
                *_family("connections", "gauge", "Open connections.", [("", open_)]),
                *_family("connections_closed_total", "counter", CLOSED, closed),
                *_family("request_seconds", "histogram", "Time from a request to its answer, s.", []),
                *self.latency.lines(f"{PREFIX}_request_seconds"),
                *_family("batch_size", "histogram", "Requests in a batch.", []),
                *self.batches.lines(f"{PREFIX}_batch_size"),
            ]
        return "\n".join(rows) + "\n"


def _family(name: str, kind: str, what: str, samples: list[tuple[str, float]]) -> list[str]:
    name = f"{PREFIX}_{name}"
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *(f"{name}{labels} {value}" for labels, value in samples)]
