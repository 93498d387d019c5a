"""Answer while sound comes in.

A program sends a recording as it is made in the body of one request to ``/v1/audio/stream`` and
reads events meanwhile. A browser cannot send so; it opens a stream at ``/v1/audio/streams``, sends
sound to its address in as many requests as it likes, and gets the events of each in its answer.
A server that closes ends both kinds with what they have heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from wenet_osum.dataset.sound import RATES
from wenet_osum.decode.incremental import StreamOptions
from wenet_osum.serve.connections import STREAM_PATH
from wenet_osum.serve.events import Event, EventResponse, Told
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.fields import read_flag
from wenet_osum.serve.live import Live, check_stream
from wenet_osum.serve.pcm import PCM
from wenet_osum.serve.question import Question
from wenet_osum.serve.recording import MAX_RATE
from wenet_osum.serve.service import Service
from wenet_osum.serve.upload import Body

OPEN_PATH = "/v1/audio/streams"
# How often a stream that waits for sound looks whether the server closes, s.
POLL_INTERVAL_S = 0.25
# For the next request of a stream when the server closes, s.
CLOSING_S = 1.0


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
        # When sound came last, in the event loop's time.
        self.fed_at = asyncio.get_running_loop().time()

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
        """Yield the last events. Raises Fault where the header of a WAV is all that came."""
        self.pcm.finish()
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
            events = _body_events(stream, body, first)
            response = EventResponse(events, question.ignored)
            response.count_in(service.metrics, begin)
            response.held = held.pop_all()
            return response
        except Fault as fault:
            response = fault.response()
    service.metrics.request(response.status_code, time.monotonic() - begin)
    return response


async def _body_events(stream: OpenStream, body: Body, chunk: bytes) -> AsyncIterator[Event]:
    """Yield events while the body of a request comes in. Raises Fault for what goes wrong."""
    while True:
        async for event in stream.feed(chunk):
            yield event
        if body.ended or stream.service.closing:
            break
        chunk = await _chunk(stream.service, body)
    async for event in stream.finish():
        yield event


async def _chunk(service: Service, body: Body) -> bytes:
    """Receive the next sound of a request; none when the server closes.

    Raises Fault when nothing comes in time.
    """
    idle_s = service.settings.idle_s
    until = time.monotonic() + idle_s
    received = asyncio.ensure_future(body.chunk())
    try:
        while not received.done():
            left_s = until - time.monotonic()
            if service.closing:
                return b""
            if left_s <= 0:
                raise _idle(idle_s)
            await asyncio.wait([received], timeout=min(POLL_INTERVAL_S, left_s))
        return received.result()
    finally:
        received.cancel()


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
        """Decode more of a stream; ``?end=true`` ends it, and so does a server that closes.

        A Fault ends it too.
        """
        stream, _ = self._find(name)
        asked = {"end": request.query_params.getlist("end")}
        last = read_flag(asked, "end", "bad_end") or self.service.closing
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
        if data:
            stream.fed_at = asyncio.get_running_loop().time()
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
        """Close a stream for which no sound comes in time."""
        self._stop(name)
        stream, _ = self.open[name]
        until = stream.fed_at + self.service.settings.idle_s
        loop = asyncio.get_running_loop()
        self.timers[name] = loop.call_at(until, self._expire, name)

    def hurry(self) -> None:
        """Wait no longer than a moment for the next request of each stream, to end it."""
        loop = asyncio.get_running_loop()
        for name, timer in [*self.timers.items()]:
            until = min(timer.when(), loop.time() + CLOSING_S)
            timer.cancel()
            self.timers[name] = loop.call_at(until, self._expire, name)

    def _stop(self, name: str) -> None:
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self.close(name))
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)


async def _counted(service: Service, answering: Awaitable[Response]) -> Response:
    """Await an answer and count it; what goes wrong is a Fault's response."""
    begin = time.monotonic()
    try:
        response = await answering
    except Fault as fault:
        response = fault.response()
    service.metrics.request(response.status_code, time.monotonic() - begin)
    return response


def add_stream_routes(app: FastAPI, service: Service) -> None:
    """Add the routes for sound that is heard while it is recorded."""
    streams = Streams(service)
    service.at_closing.append(streams.hurry)

    @app.post(STREAM_PATH)
    async def whole(request: Request) -> Response:
        return await whole_request(service, request)

    @app.post(OPEN_PATH)
    async def begin(request: Request) -> Response:
        return await _counted(service, streams.begin(request))

    @app.post(f"{OPEN_PATH}/{{name}}")
    async def go_on(name: str, request: Request) -> Response:
        return await _counted(service, streams.go_on(name, request))

    @app.delete(f"{OPEN_PATH}/{{name}}")
    async def end(name: str) -> Response:
        await streams.close(name)
        return Response(status_code=204)
