"""Make the HTTP application: OpenAI's transcription endpoint, /health, /metrics, the page at /."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from wenet_osum import lookup
from wenet_osum.decode.speech import Transcriber
from wenet_osum.records import Hypothesis
from wenet_osum.serve import recording
from wenet_osum.serve.batcher import Batcher, Call
from wenet_osum.serve.connections import ANSWER_S, Connections, room
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.fields import check_model, read_question
from wenet_osum.serve.guard import Guard
from wenet_osum.serve.metrics import Metrics
from wenet_osum.serve.question import Question
from wenet_osum.serve.settings import Settings
from wenet_osum.serve.upload import CLIENT_CLOSED_REQUEST, Body, read_form
from wenet_osum.serve.writing import FORMATS

# Time between two looks whether the client of a waiting request is still there.
POLL_INTERVAL_S = 0.25
LONGEST_RETRY_S = 60
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# /v1/models must say when a model was made, and that is not known.
CREATED = 0


class Service:
    """Holds what the routes share: batcher, counts, connections, and requests in flight."""

    def __init__(self, transcriber: Transcriber, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        request_s = settings.timeout_s + ANSWER_S
        self.connections = Connections(room(), settings.head_s, request_s)
        self.recognizer = transcriber.recognizer
        own = self.recognizer
        self.slots = own.telling.slots(own.template, own.prompt)
        self.batcher = Batcher(self.recognizer, settings.wait_s, self.metrics)
        self.in_flight = 0
        self.closing = False

    async def transcribe(self, request: Request) -> Response:
        """Answer a request, whatever comes; what goes wrong is a Fault's response."""
        begin = time.monotonic()
        try:
            async with self._room(request), asyncio.timeout(self.settings.timeout_s):
                response = await self._answer(request)
        except Fault as fault:
            response = fault.response()
        except TimeoutError:
            response = self._late().response()
        seconds = time.monotonic() - begin
        self.metrics.request(response.status_code, seconds)
        return response

    def _late(self) -> Fault:
        limit = f"{self.settings.timeout_s:g} s"
        message = f"there was no answer within {limit}; try a shorter recording, or later"
        headers = {"x-should-retry": "false"}
        return Fault(504, message, code="timeout", headers=headers)

    @contextlib.asynccontextmanager
    async def _room(self, request: Request) -> AsyncIterator[None]:
        """Let a request in. Raises Fault when the queue is full or the server is closing."""
        if self.closing or self.in_flight >= self.settings.queue:
            wait = {"retry-after": str(self.retry_after())}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.timeout_s):
                    await Body(request).drain()
            if self.closing:
                raise Fault(503, "the server is shutting down", code="shutting_down", headers=wait)
            queued = f"{self.settings.queue} requests"
            full = f"server is busy: queue full ({queued}); try again in {wait['retry-after']} s"
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
        pace_s = self.metrics.busy_s / answered if answered else 0.0
        wait_s = math.ceil(pace_s * self.in_flight / 2)
        return min(LONGEST_RETRY_S, max(1, wait_s))

    async def _answer(self, request: Request) -> Response:
        """Answer a request that was let in. Raises Fault for what cannot be answered."""
        form = await read_form(request, self.settings.max_bytes)
        labels = self.recognizer.template.labels
        slots = self.slots
        question = self._decodable(read_question(form.fields, self.settings, labels, slots))
        seconds = await asyncio.to_thread(recording.duration, form.data, self.settings.max_seconds)
        context = question.context.over(self.recognizer.telling.given)
        call = Call(form.data, seconds, question.task.tags, question.temperature, context)
        answer = await self._wait(request, call)
        return written(answer, question)

    def _decodable(self, question: Question) -> Question:
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

    async def _wait(self, request: Request, call: Call) -> Hypothesis:
        """Wait for the model's answer. Raises Fault when it fails or the client leaves.

        A call whose client leaves, or whose time is over, is taken out of the queue.
        """
        future = asyncio.wrap_future(self.batcher.submit(call))
        try:
            while not future.done():
                await asyncio.wait([future], timeout=POLL_INTERVAL_S)
                if not future.done() and await request.is_disconnected():
                    raise Fault(CLIENT_CLOSED_REQUEST, "the client left", code="client_left")
        finally:
            future.cancel()
        # The traceback is on the server's stderr.
        if future.exception() is not None:
            fault = "the model failed on this recording; the server's log says why"
            raise Fault(500, fault, code="internal_error")
        return future.result()

    async def finished(self, within_s: float) -> None:
        """Let nobody in any more and wait for the requests in flight."""
        self.closing = True
        until = time.monotonic() + within_s
        while self.in_flight and time.monotonic() < until:
            await asyncio.sleep(0.05)


def written(answer: Hypothesis, question: Question) -> Response:
    """Write an answer as the response.

    Raises Fault for one that failed: the reason without details, which may name files here.
    """
    if answer.error:
        reason = answer.error.split(": ")
        if reason[0] == "audio":
            raise Fault(400, ": ".join(reason[:2]), "file", "invalid_audio")
        raise Fault(500, "the model failed on this recording", code="internal_error")
    form = FORMATS[question.format]
    content = form.write(answer, question)
    headers = {}
    if question.ignored:
        headers["x-ignored-fields"] = ", ".join(question.ignored)
    if isinstance(content, str):
        data = content.encode("utf-8", "backslashreplace")
        return Response(data, media_type=form.media_type, headers=headers)
    return JSONResponse(content, headers=headers)


def make_app(transcriber: Transcriber, settings: Settings, page: bool = True) -> FastAPI:
    """Make the application around a model; ``app.state.service`` is its Service."""
    service = Service(transcriber, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await asyncio.to_thread(service.batcher.close, settings.timeout_s)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    _add_routes(app, service)
    if page:
        from wenet_osum.serve.page import mount

        mount(app, service.recognizer.template, settings, service.slots)
    app.add_middleware(Guard, settings=settings)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes that programs ask, and answers to what goes wrong."""
    settings = service.settings
    model = {"id": settings.name, "object": "model", "created": CREATED, "owned_by": "wenet_osum"}

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        return await service.transcribe(request)

    @app.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> dict:
        check_model(name, settings)
        return model

    @app.get("/health")
    async def health() -> Response:
        alive = service.batcher.thread.is_alive() and not service.closing
        state = {"status": "ok" if alive else "closing", "in_flight": service.in_flight}
        return JSONResponse(state, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        waiting = service.batcher.waiting.qsize()
        text = service.metrics.text(service.in_flight, waiting, service.connections)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    _add_fault_handlers(app)


def _add_fault_handlers(app: FastAPI) -> None:
    """Answer whatever goes wrong in OpenAI's form; added last, so that it takes only the rest."""

    @app.api_route("/v1/{rest:path}", methods=METHODS)
    async def nothing(request: Request) -> Response:
        known = []
        for route in app.routes:
            if route.path.startswith("/v1/") and "rest" not in route.path:
                known += [f"{method} {route.path}" for method in route.methods]
        asked = f"{request.method} {request.url.path[:80]}"
        raise Fault(404, lookup.unknown("route", asked, sorted(known)), code="not_found")

    @app.exception_handler(Fault)
    async def faulty(request: Request, fault: Fault) -> Response:
        return fault.response()

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return Fault(error.status_code, str(error.detail), code="refused").response()

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return Fault(500, "the server failed; its log says why", code="internal_error").response()
