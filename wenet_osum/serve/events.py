"""Server-sent events, named as OpenAI's streamed transcriptions name them.

``transcript.text.delta`` brings new text that stays, ``transcript.text.done`` the whole of it. Only
streams that are recorded while they are heard have two more: ``transcript.text.held``, the words
that may still change, and ``transcript.utterance.done``, an utterance with its labels. A fault
after the first event is an ``error`` event with the body of an error response; it is the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wenet_osum.decode.incremental import StreamEvent
from wenet_osum.records import Hypothesis
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.metrics import Metrics
from wenet_osum.serve.service import Service
from wenet_osum.serve.writing import extras, ignored_header

Event = dict[str, Any]
MEDIA_TYPE = "text/event-stream"
# Proxies must pass on events one by one.
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class EventResponse(Response):
    """A response whose events are sent as they come; ``held`` is let go of after the last."""

    def __init__(self, events: AsyncIterator[Event], ignored: tuple[str, ...] = ()) -> None:
        super().__init__(media_type=MEDIA_TYPE, headers=HEADERS | ignored_header(ignored))
        self.events = events
        self.held: contextlib.AsyncExitStack | None = None
        # Where it is counted, and when its request began.
        self.metrics: Metrics | None = None
        self.begin = 0.0

    def count_in(self, metrics: Metrics, begin: float) -> None:
        """Count the request, which began at ``begin``, after its last event."""
        self.metrics = metrics
        self.begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. What goes wrong on the way still frees what is held."""
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        status = 500
        try:
            await send(start)
            status = await self._send_events(send)
            await send(_part(b"", more=False))
        finally:
            if self.held is not None:
                await self.held.aclose()
            if self.metrics is not None:
                self.metrics.request(status, time.monotonic() - self.begin)

    async def _send_events(self, send: Send) -> int:
        """Send the events; a fault is the last of them. Returns the status they amount to."""
        try:
            async for event in self.events:
                await send(_part(line_of(event), more=True))
        except Fault as fault:
            event = {"type": "error", "error": fault.body()}
            await send(_part(line_of(event), more=True))
            return fault.status
        return 200


def _part(data: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def line_of(event: Event) -> bytes:
    """Write an event as it is sent, in ASCII: some clients end a line at other characters too."""
    text = json.dumps(event)
    return f"data: {text}\n\n".encode()


async def limited(
    service: Service, events: AsyncIterator[Event], begin: float
) -> AsyncIterator[Event]:
    """Yield events. Raises Fault when a request that began at ``begin`` is out of time."""
    until = begin + service.settings.timeout_s
    try:
        while True:
            left_s = until - time.monotonic()
            async with asyncio.timeout(left_s):
                event = await anext(events, None)
            if event is None:
                return
            yield event
    except TimeoutError:
        raise service.late() from None


class Told:
    """Turns what changes in a stream into events, and remembers the text for the last one."""

    def __init__(self, live: bool) -> None:
        # Whether held words and utterances are told too.
        self.live = live
        self.text = ""
        self.held = ""
        self.answers: list[Hypothesis] = []

    def events(self, event: StreamEvent) -> list[Event]:
        """Write what has changed as events."""
        found: list[Event] = []
        if event.committed:
            self.text += event.committed
            found.append({"type": "transcript.text.delta", "delta": event.committed})
        if self.live and event.held != self.held:
            self.held = event.held
            held = {"type": "transcript.text.held", "text": event.held}
            found.append(held | {"heard_s": round(event.heard_s, 3)})
        if event.answer is not None:
            self.answers.append(event.answer)
            if self.live:
                found.append(_utterance(event))
        return found

    def done(self) -> Event:
        """Write the last event: the whole text, and what else the only answer has."""
        done = {"type": "transcript.text.done", "text": self.text}
        if len(self.answers) == 1:
            done |= extras(self.answers[0])
        return done


def _utterance(event: StreamEvent) -> Event:
    """Write an utterance that is over; its times are s of the stream."""
    row: Event = {
        "type": "transcript.utterance.done",
        "text": event.answer.transcript or "",
        "start": round(event.start, 3),
        "end": round(event.end, 3),
    }
    return row | extras(event.answer)
