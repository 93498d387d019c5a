"""Requests that come at the same time are answered as one batch, by one thread that owns the model.

Answers do not depend on the batch (decode/generate.py), so neither does it matter who asks at the same time.
"""

from __future__ import annotations

import dataclasses
import queue
import sys
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass, field

from wenet_osum.decode.pipeline import Job, Recognizer
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.serve.metrics import Metrics

KEY = "upload"  # what every recording is called: sampling is drawn by it, and file names are the client's business


@dataclass
class Call:
    """A recording that waits for its answer."""

    data: bytes
    seconds: float
    tags: str
    temperature: float | None = None
    future: Future = field(default_factory=Future)  # of a Hypothesis

    def job(self, index: int) -> Job:
        """The recording for the pipeline."""
        return Job(index, KEY, self.seconds, lambda: (Utterance(KEY, KEY, task=self.tags), self.data))


class Batcher:
    """Collects calls for ``wait_s`` from the first on, or until a batch is full, and answers them."""

    def __init__(self, recognizer: Recognizer, wait_s: float, metrics: Metrics) -> None:
        self.recognizer, self.wait_s, self.metrics = recognizer, wait_s, metrics
        self.waiting: queue.SimpleQueue[Call | None] = queue.SimpleQueue()  # None: the end. Its length is bounded by who admits requests
        self.thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self.thread.start()

    def submit(self, call: Call) -> Future:
        """Put a call into the queue. A future that is canceled before its turn is passed over."""
        self.waiting.put(call)
        return call.future

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what waits, then end the thread."""
        self.waiting.put(None)
        self.thread.join(timeout_s)

    def _work(self) -> None:
        open_ = True
        while open_ and (first := self.waiting.get()) is not None:
            calls, open_ = self._collect(first)
            self._answer([call for call in calls if call.future.set_running_or_notify_cancel()])

    def _collect(self, first: Call) -> tuple[list[Call], bool]:
        """The calls of one round, and whether more may come."""
        calls, until = [first], time.monotonic() + self.wait_s
        while len(calls) < self.recognizer.batch_size:
            try:
                call = self.waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if call is None:
                return calls, False
            calls.append(call)
        return calls, True

    def _answer(self, calls: list[Call]) -> None:
        own = self.recognizer.options
        for temperature in dict.fromkeys(call.temperature for call in calls):
            options = own if temperature is None else dataclasses.replace(own, temperature=temperature)
            asked = dataclasses.replace(self.recognizer, task=None, options=options)
            jobs = [call.job(index) for index, call in enumerate(calls) if call.temperature == temperature]
            for batch in reversed(asked.groups(jobs)):  # the short ones need not wait for the long ones
                self._run(asked, batch, calls)

    def _run(self, asked: Recognizer, batch: list[Job], calls: list[Call]) -> None:
        """Answer a batch. Where that fails, each of it alone, so that only those fail that are at fault."""
        begin = time.monotonic()
        try:
            answers: list[tuple[int, Hypothesis]] = [pair for _, found in asked.run([batch]) for pair in found]
        except Exception as error:  # whatever it is, the thread lives on for the others
            if len(batch) > 1:
                for job in batch:
                    self._run(asked, [job], calls)
                return
            traceback.print_exception(error, file=sys.stderr)
            calls[batch[0].index].future.set_exception(error)
            return
        self.metrics.batch(len(batch), sum(job.seconds for job in batch), time.monotonic() - begin)
        for index, answer in answers:
            calls[index].future.set_result(answer)
