"""Let the batcher hear a recording window by window, and tell what it hears as events.

Every window is a call of the batcher, as a file is: whoever asks at the same time is answered in
between.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator

import numpy as np
from fastapi import Request

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.drop import Drop
from wenet_osum.decode import incremental
from wenet_osum.decode.blocks import read_blocks
from wenet_osum.decode.incremental import StreamDecoder, StreamEvent, StreamOptions
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.decode.speech import border_of
from wenet_osum.records import SAMPLE_RATE, Hypothesis
from wenet_osum.serve.batcher import Call
from wenet_osum.serve.events import Event, Told
from wenet_osum.serve.fault import Fault, fault_of
from wenet_osum.serve.question import Question
from wenet_osum.serve.service import Service
from wenet_osum.serve.upload import CLIENT_CLOSED_REQUEST
from wenet_osum.tasks.base import escape


def check_stream(recognizer: Recognizer, question: Question) -> None:
    """Raise Fault for a task that cannot be answered while it is heard."""
    why = incremental.refusal(question.task, recognizer.options)
    if why:
        raise Fault(400, why, "stream", "unsupported_stream")


class Live:
    """One stream: sound in, events out."""

    def __init__(
        self, service: Service, question: Question, rate: int, options: StreamOptions
    ) -> None:
        self.service, self.question = service, question
        recognizer = service.models[question.model]
        border = border_of(recognizer.template)
        self.decoder = StreamDecoder(
            self._hear,
            question.task,
            options,
            rate,
            recognizer.longest_s,
            border,
        )

    def _hear(self, samples: np.ndarray, said: str) -> Hypothesis:
        """Let the batcher answer a window. Raises Fault where it fails or takes too long."""
        data = write_wav(samples, SAMPLE_RATE, "FLOAT")
        seconds = len(samples) / SAMPLE_RATE
        prefix = escape(said) or None
        tags = self.question.task.tags
        context = self.service.context(self.question)
        temperature = self.question.temperature
        facts = self.question.facts
        model = self.question.model
        call = Call(data, seconds, tags, temperature, context, facts, model, prefix)
        future = self.service.batcher.submit(call)
        try:
            answer = future.result(self.service.settings.timeout_s)
        except TimeoutError:
            future.cancel()
            raise self.service.late() from None
        # The traceback is on the server's stderr.
        except Exception:
            why = "the model failed on this recording; the server's log says why"
            raise Fault(500, why, code="internal_error") from None
        if answer.error:
            raise fault_of(answer.error)
        return answer

    async def feed(self, samples: np.ndarray) -> AsyncIterator[StreamEvent]:
        """Take sound and yield what changes, each as soon as it is known."""
        async for event in self._stepped(self.decoder.feed(samples)):
            yield event

    async def finish(self) -> AsyncIterator[StreamEvent]:
        """Yield what is left to be said."""
        async for event in self._stepped(self.decoder.finish()):
            yield event

    async def _stepped(self, events: Iterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        loop = asyncio.get_running_loop()
        while True:
            event = await loop.run_in_executor(self.service.hearers, next, events, None)
            if event is None:
                return
            yield event


async def file_events(
    service: Service, request: Request, data: bytes, question: Question
) -> AsyncIterator[Event]:
    """Answer an uploaded file piece by piece. Raises Fault for what goes wrong."""
    # Each piece is decoded once: all of it is here.
    once = StreamOptions(step_s=math.inf, pause_s=math.inf)
    told = Told(live=False)
    live = None
    blocks = read_blocks(data)
    while True:
        try:
            block = await asyncio.to_thread(next, blocks, None)
        except Drop as error:
            raise Fault(400, error.reason, "file", "invalid_audio") from None
        if block is None:
            break
        samples, rate = block
        live = live or Live(service, question, rate, once)
        async for event in live.feed(samples):
            for one in told.events(event):
                yield one
        if await request.is_disconnected():
            raise Fault(CLIENT_CLOSED_REQUEST, "the client left", code="client_left")

    if live is not None:
        async for event in live.finish():
            for one in told.events(event):
                yield one
    yield told.done()
