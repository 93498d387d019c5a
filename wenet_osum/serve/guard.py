"""Guard every request: who may ask, under which name, from which page, and for which routes.

A server on 127.0.0.1 is still within reach of every web page its user opens. So requests of other
origins are refused, and so are names that merely point here (DNS rebinding). Gradio brings far more
routes than the page needs (uploads, a proxy, files): only what the page loads is let through, and
only for reading.
"""

from __future__ import annotations

import base64
import binascii
from secrets import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wenet_osum.serve.fault import Fault
from wenet_osum.serve.settings import Settings

OURS = ("/v1/", "/health", "/metrics")
PAGE = ("/assets/", "/static/")  # folders the page loads from
PAGE_FILES = ("/", "/theme.css", "/favicon.ico", "/manifest.json")
# Nothing is loaded from, or sent to, anywhere else.
POLICY = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "font-src 'self' data:",
    "media-src 'self' blob:",
    "connect-src 'self'",
    "frame-ancestors 'none'",
    "base-uri 'self'",
    "form-action 'self'",
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "; ".join(POLICY),
}


class Guard:
    """An ASGI application around another, to which it lets requests through."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, with security headers on its answer, or answer it with a fault."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        fault = self.fault(scope)
        answer = self.app
        if fault is not None:
            answer = fault.response()
        await answer(scope, receive, send_with_headers)

    def fault(self, scope: Scope) -> Fault | None:
        """Return what is wrong with a request, by its head alone."""
        headers = Headers(scope=scope)
        path = scope["path"]
        host = headers.get("host", "")

        # A name that the server does not know may be another's that points here.
        hosts = self.settings.hosts
        if hosts is not None and hostname(host) not in hosts:
            rule = "this server does not answer to that name"
            advice = "start it with --allow_host NAME"
            return Fault(421, f"{rule}; {advice}", code="unknown_host")

        # Browsers say which page asks.
        origin = headers.get("origin")
        if origin and place_of(origin) != host.lower():
            rule = "requests from pages of other origins are refused"
            return Fault(403, rule, code="other_origin")

        # Whoever watches over the server may ask for its health without a key.
        authorization = headers.get("authorization", "")
        needs_key = self.settings.api_key and path != "/health"
        if needs_key and not self._knows_the_key(authorization):
            return _no_key(path)
        if not _is_reachable(scope["method"], path):
            routes = "/v1/models, /v1/audio/transcriptions, /v1/audio/stream, /health and /metrics"
            return Fault(404, f"there is nothing here; see {routes}", code="not_found")
        return None

    def _knows_the_key(self, header: str) -> bool:
        """Tell whether an Authorization header holds the key.

        It is Bearer KEY, or Basic with the key for a password: a browser can ask its user for that.
        """
        scheme, _, value = header.partition(" ")
        scheme = scheme.lower()
        if scheme == "basic":
            try:
                decoded = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                return False
            text = decoded.decode("utf-8", "replace")
            _, _, value = text.partition(":")
        elif scheme != "bearer":
            return False
        given = value.strip().encode("utf-8", "replace")
        key = self.settings.api_key.encode()
        return compare_digest(given, key)


def _no_key(path: str) -> Fault:
    """Ask for the key: programs for a Bearer header, browsers for a password."""
    if path.startswith("/v1/"):
        ask = 'Bearer realm="wenet_osum"'
    else:
        ask = 'Basic realm="wenet_osum", charset="UTF-8"'
    missing = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
    headers = {"www-authenticate": ask}
    return Fault(401, missing, code="invalid_api_key", headers=headers)


def _is_reachable(method: str, path: str) -> bool:
    """Tell whether a route is ours, or a file that the page only reads."""
    if path.startswith(OURS):
        return True
    if method not in ("GET", "HEAD"):
        return False
    return path in PAGE_FILES or path.startswith(PAGE)


def place_of(origin: str) -> str | None:
    """Return name and port of an Origin header; None for what is no URL, such as ``http://[``."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def hostname(host: str) -> str:
    """Return a Host header without its port."""
    host = host.lower()
    if host.startswith("["):
        address, _, _ = host.partition("]")
        return f"{address}]"
    name, _, _ = host.partition(":")
    return name
