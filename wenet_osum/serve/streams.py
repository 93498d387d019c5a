"""Answer while sound comes in, and while a long file is decoded.

A program sends a recording as it is made in the body of one request to ``/v1/audio/stream`` and
reads events meanwhile. A browser cannot send so; it opens a stream at ``/v1/audio/streams``, sends
sound to its address in as many requests as it likes, and gets the events of each in its answer.
Every window that is heard is a call of the batcher, as a file is: whoever asks at the same time is
answered in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.sound import RATES
from wenet_osum.decode import incremental
from wenet_osum.decode.blocks import read_blocks
from wenet_osum.decode.incremental import StreamDecoder, StreamEvent, StreamOptions
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.decode.speech import border_of
from wenet_osum.records import SAMPLE_RATE, Hypothesis
from wenet_osum.serve.batcher import Call
from wenet_osum.serve.connections import STREAM_PATH
from wenet_osum.serve.events import Event, EventResponse, Told, fault_event
from wenet_osum.serve.fault import Fault, fault_of
from wenet_osum.serve.pcm import PCM
from wenet_osum.serve.question import Question
from wenet_osum.serve.recording import MAX_RATE
from wenet_osum.serve.service import Service
from wenet_osum.serve.upload import CLIENT_CLOSED_REQUEST, Body
from wenet_osum.tasks.base import escape

OPEN_PATH = "/v1/audio/streams"


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


# -- files ------------------------------------------------------------------------------------


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


# -- sound while it is recorded ---------------------------------------------------------------


class OpenStream:
    """A stream that has a slot of the server's until it is closed."""

    def __init__(self, service: Service, question: Question, rate: int | None) -> None:
        self.service, self.question = service, question
        settings = service.settings
        self.pcm = PCM(rate, settings.max_seconds)
        self.options = StreamOptions(step_s=settings.step_s)
        self.live: Live | None = None
        self.told = Told(live=True)
        # One request at a time may bring sound; so many are heard, or wait for their turn.
        self.lock = asyncio.Lock()
        self.requests = 0

    async def feed(self, data: bytes) -> AsyncIterator[Event]:
        """Take bytes and yield events. Raises Fault for what is no sound, or too much of it."""
        samples = self.pcm.samples(data)
        if not len(samples):
            return
        if self.live is None:
            self.live = Live(self.service, self.question, self.pcm.rate, self.options)
        async for event in self.live.feed(samples):
            for one in self.told.events(event):
                yield one

    async def finish(self) -> AsyncIterator[Event]:
        """Yield the last events."""
        if self.live is not None:
            async for event in self.live.finish():
                for one in self.told.events(event):
                    yield one
        yield self.told.done()


@contextlib.asynccontextmanager
async def slot(service: Service, request: Request) -> AsyncIterator[None]:
    """Let a stream in. Raises Fault when there is no room for it."""
    most = service.settings.streams
    async with service.room(request):
        if service.streams >= most:
            wait = {"retry-after": str(service.retry_after())}
            full = f"server is busy: {most} streams are being heard; try again later"
            raise Fault(429, full, code="streams_full", headers=wait)
        service.streams += 1
        try:
            yield
        finally:
            service.streams -= 1


def read_stream(service: Service, request: Request) -> tuple[Question, int | None]:
    """Read what a stream asks for, and its rate in Hz where it names one, from the address.

    Raises Fault for what cannot be answered.
    """
    fields: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        fields.setdefault(name, []).append(value)
    rate = _rate(fields)
    question = service.read(fields)
    check_stream(service.recognizer, question)
    return question, rate


def _rate(fields: dict[str, list[str]]) -> int | None:
    """Take the rate out of the fields. Raises Fault for one that no recording has."""
    if "rate" not in fields:
        return None
    text = fields.pop("rate")[0]
    lowest, _ = RATES
    # A long row of figures is no rate, and may not be one by its first few.
    if re.fullmatch("[0-9]{1,9}", text) and lowest <= int(text) <= MAX_RATE:
        return int(text)
    rule = f"must be a whole number of Hz from {lowest} to {MAX_RATE}"
    raise Fault(400, f"rate {text[:40]!r} {rule}", "rate", "bad_rate")


async def whole_request(service: Service, request: Request) -> Response:
    """Answer a request whose body is the recording while it is made."""
    begin = time.monotonic()
    async with contextlib.AsyncExitStack() as held:
        try:
            await held.enter_async_context(slot(service, request))
            question, rate = read_stream(service, request)
            body = Body(request)
            # A client may wait for a word of the server's before it sends sound.
            first = await _chunk(service, body)
            stream = OpenStream(service, question, rate)
            response = EventResponse(_body_events(stream, body, first))
            response.held = held.pop_all()
        except Fault as fault:
            response = fault.response()
    service.metrics.request(response.status_code, time.monotonic() - begin)
    return response


async def _body_events(stream: OpenStream, body: Body, chunk: bytes) -> AsyncIterator[Event]:
    """Yield events while the body of a request comes in; a fault is the last of them."""
    try:
        while True:
            async for event in stream.feed(chunk):
                yield event
            if body.ended:
                break
            chunk = await _chunk(stream.service, body)
        async for event in stream.finish():
            yield event
    except Fault as fault:
        yield fault_event(fault)


async def _chunk(service: Service, body: Body) -> bytes:
    """Receive the next sound of a request. Raises Fault when none comes."""
    idle_s = service.settings.idle_s
    try:
        async with asyncio.timeout(idle_s):
            return await body.chunk()
    except TimeoutError:
        raise _idle(idle_s) from None


def _idle(idle_s: float) -> Fault:
    return Fault(408, f"no sound came for {idle_s:g} s", code="idle")


class Streams:
    """Streams that are sent in many requests, by their ids."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.open: dict[str, tuple[OpenStream, contextlib.AsyncExitStack]] = {}
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.closing: set[asyncio.Task] = set()

    async def begin(self, request: Request) -> Response:
        """Open a stream; its id is known to this client alone."""
        async with contextlib.AsyncExitStack() as held:
            await held.enter_async_context(slot(self.service, request))
            question, rate = read_stream(self.service, request)
            stream = OpenStream(self.service, question, rate)
            name = secrets.token_urlsafe(16)
            self.open[name] = (stream, held.pop_all())
        self._wait_for(name)
        return JSONResponse({"id": name})

    async def go_on(self, name: str, request: Request) -> Response:
        """Decode more of a stream; ``?end=true`` ends it. A Fault ends it too."""
        stream, _ = self._find(name)
        last = request.query_params.get("end") == "true"
        # While one request is heard or waits for its turn, the stream is not idle.
        self._stop(name)
        stream.requests += 1
        try:
            async with stream.lock:
                # The request before may have ended it.
                self._find(name)
                events = await self._heard(stream, request, last)
                if last:
                    await self.close(name)
        except BaseException:
            await self.close(name)
            raise
        finally:
            stream.requests -= 1
        if name in self.open and not stream.requests:
            self._wait_for(name)
        return JSONResponse({"events": events})

    async def _heard(self, stream: OpenStream, request: Request, last: bool) -> list[Event]:
        """Return the events of a request's sound."""
        settings = self.service.settings
        parts = [part async for part in Body(request).up_to(settings.max_bytes)]
        data = b"".join(parts)
        events = [event async for event in stream.feed(data)]
        if last:
            events += [event async for event in stream.finish()]
        return events

    def _find(self, name: str) -> tuple[OpenStream, contextlib.AsyncExitStack]:
        if name not in self.open:
            why = "there is no such stream; it ended, or nothing came for too long"
            raise Fault(404, why, code="no_stream")
        return self.open[name]

    async def close(self, name: str) -> None:
        """Forget a stream and free its slot."""
        self._stop(name)
        found = self.open.pop(name, None)
        if found is not None:
            _, held = found
            await held.aclose()

    def _wait_for(self, name: str) -> None:
        """Close a stream for which nothing comes in time."""
        self._stop(name)
        loop = asyncio.get_running_loop()
        idle_s = self.service.settings.idle_s
        self.timers[name] = loop.call_later(idle_s, self._expire, name)

    def _stop(self, name: str) -> None:
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self.close(name))
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)


def add_stream_routes(app: FastAPI, service: Service) -> None:
    """Add the routes for sound that is heard while it is recorded."""
    streams = Streams(service)

    @app.post(STREAM_PATH)
    async def whole(request: Request) -> Response:
        return await whole_request(service, request)

    @app.post(OPEN_PATH)
    async def begin(request: Request) -> Response:
        return await streams.begin(request)

    @app.post(f"{OPEN_PATH}/{{name}}")
    async def go_on(name: str, request: Request) -> Response:
        return await streams.go_on(name, request)

    @app.delete(f"{OPEN_PATH}/{{name}}")
    async def end(name: str) -> Response:
        await streams.close(name)
        return Response(status_code=204)
