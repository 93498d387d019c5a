"""What stands before every request: who may ask, under which name, from which page, and what of the page's framework is reachable.

A server on 127.0.0.1 is still within reach of every web page its user opens. So requests of other origins are refused, and so are names
that merely point here (DNS rebinding). Gradio brings far more routes than the page needs (uploads, a proxy, files): only what the page
loads is let through, and only for reading.
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
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": (  # nothing is loaded from, or sent to, anywhere else
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; media-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
    ),
}


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

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
        await (fault.response() if fault else self.app)(scope, receive, send_with_headers)

    def fault(self, scope: Scope) -> Fault | None:
        """What is wrong with a request, by its head alone."""
        headers, path = Headers(scope=scope), scope["path"]
        host = hostname(headers.get("host", ""))
        if self.settings.hosts is not None and host not in self.settings.hosts:
            return Fault(421, "this server does not answer to that name; start it with --allow_host NAME", code="unknown_host")
        origin = headers.get("origin")
        if origin and place_of(origin) != headers.get("host", "").lower():
            return Fault(403, "requests from pages of other origins are refused", code="other_origin")
        if self.settings.api_key and path != "/health" and not self._knows_the_key(headers.get("authorization", "")):
            ask = 'Bearer realm="wenet_osum"' if path.startswith("/v1/") else 'Basic realm="wenet_osum", charset="UTF-8"'
            missing = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
            return Fault(401, missing, code="invalid_api_key", headers={"www-authenticate": ask})
        if not path.startswith(OURS) and not (scope["method"] in ("GET", "HEAD") and (path in PAGE_FILES or path.startswith(PAGE))):
            return Fault(404, "there is nothing here; see /v1/models, /v1/audio/transcriptions, /health and /metrics", code="not_found")
        return None

    def _knows_the_key(self, header: str) -> bool:
        """Bearer KEY, or Basic with the key for a password, which is what a browser can be asked for."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return compare_digest(value.strip().encode("utf-8", "replace"), self.settings.api_key.encode())


def place_of(origin: str) -> str | None:
    """Name and port of an Origin header; None for one that is no URL, such as ``http://[``."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def hostname(host: str) -> str:
    """A Host header without its port."""
    return (host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]).lower()
