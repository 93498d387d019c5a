"""Make the HTTP application: OpenAI's transcription endpoint, streams, /health, /metrics, page."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from wenet_osum import lookup
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.decode.speech import Transcriber
from wenet_osum.records import Hypothesis
from wenet_osum.serve import recording
from wenet_osum.serve.batcher import Call
from wenet_osum.serve.events import EventResponse, limited
from wenet_osum.serve.fault import Fault, fault_of
from wenet_osum.serve.fields import check_model
from wenet_osum.serve.guard import Guard
from wenet_osum.serve.live import check_stream, file_events
from wenet_osum.serve.question import Question
from wenet_osum.serve.service import Service
from wenet_osum.serve.settings import Settings
from wenet_osum.serve.streams import add_stream_routes
from wenet_osum.serve.upload import CLIENT_CLOSED_REQUEST, read_form
from wenet_osum.serve.writing import FORMATS, ignored_header

# Time between two looks whether the client of a waiting request is still there.
POLL_INTERVAL_S = 0.25
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# /v1/models must say when a model was made, and that is not known.
CREATED = 0


async def transcribe(service: Service, request: Request) -> Response:
    """Answer a request, whatever comes; what goes wrong is a Fault's response."""
    begin = time.monotonic()
    async with contextlib.AsyncExitStack() as held:
        try:
            await held.enter_async_context(service.room(request))
            async with asyncio.timeout(service.settings.timeout_s):
                response = await _answer(service, request, begin)
        except Fault as fault:
            response = fault.response()
        except TimeoutError:
            response = service.late().response()
        if isinstance(response, EventResponse):
            # Its room is held until the last event is sent, and only then it is counted.
            response.held = held.pop_all()
            response.count_in(service.metrics, begin)
            return response
    seconds = time.monotonic() - begin
    service.metrics.request(response.status_code, seconds)
    return response


async def _answer(service: Service, request: Request, begin: float) -> Response:
    """Answer a request that was let in at ``begin``. Raises Fault for what cannot be."""
    form = await read_form(request, service.settings.max_bytes)
    question = service.read(form.fields)
    if question.stream:
        check_stream(service.recognizer, question)
    seconds = await asyncio.to_thread(recording.duration, form.data, service.settings.max_seconds)
    if question.stream:
        events = file_events(service, request, form.data, question)
        return EventResponse(limited(service, events, begin), question.ignored)
    context = service.context(question)
    call = Call(
        form.data,
        seconds,
        question.task.tags,
        question.temperature,
        context,
        question.facts,
        question.model,
    )
    answer = await _wait(service, request, call)
    return written(answer, question)


async def _wait(service: Service, request: Request, call: Call) -> Hypothesis:
    """Wait for the model's answer. Raises Fault when it fails or the client leaves.

    A call whose client leaves, or whose time is over, is taken out of the queue.
    """
    future = asyncio.wrap_future(service.batcher.submit(call))
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


def written(answer: Hypothesis, question: Question) -> Response:
    """Write an answer as the response. Raises Fault for one that failed."""
    if answer.error:
        raise fault_of(answer.error)
    form = FORMATS[question.format]
    content = form.write(answer, question)
    headers = ignored_header(question.ignored)
    if isinstance(content, str):
        data = content.encode("utf-8", "backslashreplace")
        return Response(data, media_type=form.media_type, headers=headers)
    return JSONResponse(content, headers=headers)


def make_app(
    transcriber: Transcriber,
    settings: Settings,
    page: bool = True,
    loras: dict[str, Recognizer] | None = None,
) -> FastAPI:
    """Make the application around a model, and ``loras`` of it by name; ``app.state.service`` is
    its Service."""
    service = Service(transcriber, settings, loras)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await asyncio.to_thread(service.batcher.close, settings.timeout_s)
        service.hearers.shutdown(wait=False)

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

    def described(name: str) -> dict:
        return {"id": name, "object": "model", "created": CREATED, "owned_by": "wenet_osum"}

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        return await transcribe(service, request)

    @app.get("/v1/models")
    async def models() -> dict:
        names = (settings.name, *settings.loras)
        return {"object": "list", "data": [described(name) for name in names]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict:
        return described(check_model(name, settings))

    @app.get("/health")
    async def health() -> Response:
        alive = service.batcher.thread.is_alive() and not service.closing
        state = {"status": "ok" if alive else "closing", "in_flight": service.in_flight}
        return JSONResponse(state, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        waiting = service.batcher.live()
        text = service.metrics.text(service.in_flight, waiting, service.connections)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    add_stream_routes(app, service)
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
