"""What the routes of a server share."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import Request

from wenet_osum.context import Context
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.decode.speech import Transcriber
from wenet_osum.serve.batcher import Batcher
from wenet_osum.serve.connections import ANSWER_S, Connections, room
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.fields import model_of, read_question
from wenet_osum.serve.metrics import Metrics
from wenet_osum.serve.question import Question
from wenet_osum.serve.settings import Settings
from wenet_osum.serve.upload import Body

LONGEST_RETRY_S = 60


def slots_of(recognizer: Recognizer) -> list[str]:
    """Name what a model can be told of a recording, by the prompt it is asked with."""
    return recognizer.telling.slots(recognizer.template, recognizer.prompt)


class Service:
    """Holds what the routes share: batcher, counts, connections, and requests in flight."""

    def __init__(
        self,
        transcriber: Transcriber,
        settings: Settings,
        loras: dict[str, Recognizer] | None = None,
    ) -> None:
        """Serve a model, and by their names in ``loras`` others that differ in LoRA alone."""
        self.settings = settings
        self.metrics = Metrics()
        request_s = settings.timeout_s + ANSWER_S
        stream_s = settings.max_seconds + request_s
        self.connections = Connections(room(), settings.head_s, request_s, stream_s)
        self.recognizer = transcriber.recognizer
        own = self.recognizer
        self.slots = slots_of(own)
        self.models = {settings.name: own} | (loras or {})
        self.batcher = Batcher(self.models, settings.wait_s, self.metrics)
        # Each stream waits for the model in a thread.
        threads = settings.queue + settings.streams
        self.hearers = ThreadPoolExecutor(threads, "stream")
        self.streams = 0
        self.in_flight = 0
        self.closing = False
        # Called while the server closes, so that nothing that is idle holds it up.
        self.at_closing: list[Callable[[], None]] = []

    def late(self) -> Fault:
        limit = f"{self.settings.timeout_s:g} s"
        message = f"there was no answer within {limit}; try a shorter recording, or later"
        headers = {"x-should-retry": "false"}
        return Fault(504, message, code="timeout", headers=headers)

    @contextlib.asynccontextmanager
    async def room(self, request: Request) -> AsyncIterator[None]:
        """Let a request in. Raises Fault when the queue is full or the server is closing."""
        if self.closing or self.in_flight >= self.settings.queue:
            seconds = str(self.retry_after())
            wait = {"retry-after": seconds}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.timeout_s):
                    await Body(request).drain()
            if self.closing:
                raise Fault(503, "the server is shutting down", code="shutting_down", headers=wait)
            queued = f"{self.settings.queue} requests"
            full = f"server is busy: queue full ({queued}); try again in {seconds} s"
            raise Fault(429, full, code="queue_full", headers=wait)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def retry_after(self) -> int:
        """Return after how many seconds half of those in flight should be answered.

        They are counted at the pace so far.
        """
        answered = self.metrics.batches.sum
        if not answered:
            return 1
        pace_s = self.metrics.busy_s / answered
        wait_s = math.ceil(pace_s * self.in_flight / 2)
        return min(LONGEST_RETRY_S, max(1, wait_s))

    def read(self, fields: dict[str, list[str]]) -> Question:
        """Read what a request asks, from its fields. Raises Fault for what cannot be answered."""
        model = model_of(fields, self.settings)
        own = self.models[model]
        slots = slots_of(own)
        labels = own.template.labels
        question = read_question(fields, self.settings, labels, slots)
        why = own.refusal(question.task)
        if why:
            raise Fault(400, why, "task", "unknown_task")
        return self.decodable(question)

    def decodable(self, question: Question) -> Question:
        """Return the question with the temperature it is answered at.

        Raises Fault where the server's search does not sample.
        """
        own = self.recognizer.options
        if question.temperature is None:
            return dataclasses.replace(question, temperature=own.temperature)
        try:
            dataclasses.replace(own, temperature=question.temperature)
        except ValueError as error:
            fault = f"this server does not sample ({error}); leave it out"
            raise Fault(400, fault, "temperature", "bad_temperature") from None
        return question

    def context(self, question: Question) -> Context:
        """Return what is told of a recording: by its request, else by the server."""
        return question.context.over(self.recognizer.telling.given)

    async def finished(self, within_s: float) -> None:
        """Let nobody in any more and wait for the requests in flight."""
        self.closing = True
        for hurry in self.at_closing:
            hurry()
        until = time.monotonic() + within_s
        while self.in_flight and time.monotonic() < until:
            await asyncio.sleep(0.05)
