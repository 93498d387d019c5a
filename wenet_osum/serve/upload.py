"""A multipart form → its fields and the bytes of its file, all of it in memory and none of it above its limit."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from wenet_osum.serve.fault import Fault
from wenet_osum.serve.settings import MB

FORM_ROOM = 64 * 1024  # bytes a form may have beside its file
MAX_FIELDS = 32
DRAINED = 64 * MB  # at most, of a body that is refused
CLIENT_CLOSED_REQUEST = 499  # what nginx logs for a client that left; nobody receives it


@dataclass
class Form:
    """What was sent."""

    fields: dict[str, list[str]]
    data: bytes  # of the file


class InMemory(MultiPartParser):
    """Starlette's parser, whose files never go to the disk."""

    spool_max_size = sys.maxsize


class Body:
    """The body of a request as it comes in, which may be refused at any point."""

    def __init__(self, request: Request) -> None:
        self.receive, self.ended = request.receive, False
        length = request.headers.get("content-length", "0")
        self.declared = int(length) if length.isascii() and length.isdigit() else 0
        self.waits = request.headers.get("expect", "").lower() == "100-continue"  # the client sends nothing before we ask for it

    async def chunk(self) -> bytes:
        """The next bytes. Raises Fault when the client leaves."""
        message = await self.receive()
        self.ended = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            raise Fault(CLIENT_CLOSED_REQUEST, "the client left", code="client_left")
        return message.get("body", b"")

    async def up_to(self, max_bytes: int) -> AsyncIterator[bytes]:
        """All of it. Raises Fault when it is larger than a form with a file of ``max_bytes``."""
        total = 0
        while not self.ended:
            total += len(chunk := await self.chunk())
            if total > max_bytes + FORM_ROOM:
                raise _too_large(max_bytes)
            yield chunk

    async def drain(self) -> None:
        """Read and forget the rest, up to a bound: a client that is still sending would not see our answer."""
        if self.waits or self.declared > DRAINED:
            return
        left = DRAINED
        with contextlib.suppress(Fault):
            while not self.ended and left > 0:
                left -= len(await self.chunk())


async def read_form(request: Request, max_bytes: int) -> Form:
    """Read a form with one file. Raises Fault for another content type, a broken form, no file, and a file above ``max_bytes``."""
    body = Body(request)
    try:
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "multipart/form-data":
            raise Fault(415, "send the recording as multipart/form-data with a field 'file'", code="unsupported_content_type")
        if body.declared > max_bytes + FORM_ROOM:
            raise _too_large(max_bytes)
        parser = InMemory(request.headers, body.up_to(max_bytes), max_files=1, max_fields=MAX_FIELDS, max_part_size=FORM_ROOM)
        form = await parser.parse()
    except Fault:
        await body.drain()
        raise
    except (MultiPartException, UnicodeError) as error:
        await body.drain()
        raise Fault(400, f"the form cannot be read: {getattr(error, 'message', 'bad encoding')}", code="bad_form") from None
    try:
        return await _taken_apart(form.multi_items(), max_bytes)
    finally:
        await form.close()


async def _taken_apart(items: list[tuple[str, str | UploadFile]], max_bytes: int) -> Form:
    fields: dict[str, list[str]] = {}
    data = None
    for name, value in items:
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
        elif name != "file":
            raise Fault(400, f"the recording must be in the field 'file', it came in {name[:40]!r}", "file", "missing_file")
        else:
            data = await value.read()
    if data is None:
        raise Fault(400, "the form has no file in the field 'file'", "file", "missing_file")
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return Form(fields, data)


def _too_large(max_bytes: int) -> Fault:
    return Fault(413, f"the file is larger than {max_bytes / MB:g} MB, which is the most this server takes", "file", "file_too_large")
