"""Answer requests that come at the same time as one batch, by one thread that owns the model.

Answers do not depend on the batch (decode/generate.py), so it does not matter who asks at the same
time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import sys
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass, field

from wenet_osum.context import NOTHING, Context, with_context
from wenet_osum.decode.context import Telling
from wenet_osum.decode.jobs import Job
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.models import lora, loras
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.metrics import Metrics

# Every recording is called so: sampling is drawn by it, and file names are the client's business.
KEY = "upload"


@dataclass
class Call:
    """A recording that waits for its answer."""

    data: bytes
    seconds: float
    tags: str
    temperature: float | None = None
    context: Context = NOTHING  # what the prompt tells
    facts: tuple[tuple[str, str], ...] = ()  # what the task is told, by name
    model: str = ""  # the one that answers; empty: the first
    # what the answer begins with, as raw text; None: whatever the model says
    prefix_text: str | None = None
    future: Future = field(default_factory=Future)  # of a Hypothesis

    def __post_init__(self) -> None:
        self.future.add_done_callback(self._forget)

    def _forget(self, future: Future) -> None:
        """Let go of the upload: answered or given up, the call may stay in memory for a while."""
        self.data = b""

    def job(self, index: int) -> Job:
        """Return the recording as a job of the pipeline."""
        return Job(index, KEY, self.seconds, self._load)

    def _load(self) -> tuple[Utterance, bytes]:
        utterance = Utterance(KEY, KEY, task=self.tags, labels=dict(self.facts))
        return with_context(utterance, self.context), self.data


class Batcher:
    """Collects calls for ``wait_s`` from the first on, or until a batch is full; answers them."""

    def __init__(self, models: dict[str, Recognizer], wait_s: float, metrics: Metrics) -> None:
        """Answer with ``models`` by name; those after the first are LoRAs of its weights."""
        self.models = models
        self.recognizer = next(iter(models.values()))
        self.wait_s = wait_s
        self.metrics = metrics
        # None in it is the end. Whoever admits requests bounds its length.
        self.waiting: queue.Queue[Call | None] = queue.Queue()
        self.thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self.thread.start()

    def submit(self, call: Call) -> Future:
        """Put a call into the queue. A future that is canceled before its turn is passed over.

        Raises Fault where the thread has ended, and nobody would answer.
        """
        if not self.thread.is_alive():
            raise Fault(503, "the model has stopped; start the server again", code="model_stopped")
        self.waiting.put(call)
        return call.future

    def live(self) -> int:
        """Count the calls that wait for their turn, without those that were given up."""
        with self.waiting.mutex:
            calls = [call for call in self.waiting.queue if call is not None]
        return sum(not call.future.done() for call in calls)

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what waits, then end the thread."""
        self.waiting.put(None)
        self.thread.join(timeout_s)

    def _work(self) -> None:
        """Answer round by round until the end is taken from the queue."""
        while self._round():
            pass

    def _round(self) -> bool:
        """Wait for calls and answer them; return whether more may come."""
        first = self.waiting.get()
        if first is None:
            return False
        calls, more = self._collect(first)
        wanted = []
        for call in calls:
            if call.future.set_running_or_notify_cancel():
                wanted.append(call)
        # Whatever it is, nobody waits in vain, and the thread lives on for the others.
        try:
            self._answer(wanted)
        except Exception as error:
            _fail(wanted, error)
        return more

    def _collect(self, first: Call) -> tuple[list[Call], bool]:
        """Return the calls of one round, and whether more may come."""
        calls = [first]
        until = time.monotonic() + self.wait_s
        while len(calls) < self.recognizer.batch_size:
            left_s = max(0.0, until - time.monotonic())
            try:
                call = self.waiting.get(timeout=left_s)
            except queue.Empty:
                break
            if call is None:
                return calls, False
            calls.append(call)
        return calls, True

    def _answer(self, calls: list[Call]) -> None:
        """Answer the calls of one round, those of the same search together."""
        jobs: dict[tuple[str, float | None, str | None], list[Job]] = {}
        for index, call in enumerate(calls):
            job = call.job(index)
            search = (call.model, call.temperature, call.prefix_text)
            jobs.setdefault(search, []).append(job)

        for (model, temperature, prefix_text), alike in jobs.items():
            own = self._chosen(model)
            options = own.options
            if temperature is not None:
                options = dataclasses.replace(options, temperature=temperature)
            if prefix_text is not None:
                options = dataclasses.replace(options, prefix_text=prefix_text)
            # Each call brings its own context.
            asked = dataclasses.replace(own, task=None, options=options, telling=Telling())
            # The short ones need not wait for the long ones.
            for batch in reversed(asked.groups(alike)):
                self._run(asked, batch, calls)

    def _chosen(self, model: str) -> Recognizer:
        """Return the model of a name, its LoRA at work."""
        found = self.models.get(model, self.recognizer)
        if len(self.models) > 1:
            # The first has what it was loaded with.
            own = lora.NAME if found.model.lora is not None else None
            name = own if found is self.recognizer else model
            loras.choose(found.model.llm, name)
        return found

    def _run(self, asked: Recognizer, batch: list[Job], calls: list[Call]) -> None:
        """Answer a batch. Where that fails, answer each call alone: only those at fault fail."""
        begin = time.monotonic()
        answers: list[tuple[int, Hypothesis]] = []
        try:
            for _, found in asked.run([batch]):
                answers += found
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._run(asked, [job], calls)
                return
            [job] = batch
            _fail([calls[job.index]], error)
            return

        audio_s = sum(job.seconds for job in batch)
        busy_s = time.monotonic() - begin
        self.metrics.batch(len(batch), audio_s, busy_s)
        for index, answer in answers:
            calls[index].future.set_result(answer)


def _fail(calls: list[Call], error: Exception) -> None:
    """Answer the calls that have no answer yet by an error, and print it."""
    for call in calls:
        if not call.future.done():
            call.future.set_exception(error)
    # A server whose terminal or log is gone answers all the same.
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error, file=sys.stderr)
