"""Read a multipart form: its fields and the bytes of its file.

All of it stays in memory, and none of it is above its limit.
"""

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
    """The fields and the file of a request."""

    fields: dict[str, list[str]]
    data: bytes  # of the file


class InMemory(MultiPartParser):
    """Starlette's parser, whose files never go to the disk."""

    spool_max_size = sys.maxsize


class Body:
    """The body of a request as it comes in, which may be refused at any point."""

    def __init__(self, request: Request) -> None:
        self.receive = request.receive
        self.ended = False
        length = request.headers.get("content-length", "0")
        self.declared = 0
        if length.isascii() and length.isdigit():
            self.declared = int(length)
        # Such a client sends nothing before we ask for it.
        expected = request.headers.get("expect", "")
        self.waits = expected.lower() == "100-continue"

    async def chunk(self) -> bytes:
        """Receive the next bytes. Raises Fault when the client leaves."""
        message = await self.receive()
        self.ended = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            raise Fault(CLIENT_CLOSED_REQUEST, "the client left", code="client_left")
        return message.get("body", b"")

    async def up_to(self, max_bytes: int) -> AsyncIterator[bytes]:
        """Receive all of it.

        Raises Fault when it is larger than a form with a file of ``max_bytes``.
        """
        total = 0
        while not self.ended:
            chunk = await self.chunk()
            total += len(chunk)
            if total > max_bytes + FORM_ROOM:
                raise _too_large(max_bytes)
            yield chunk

    async def drain(self) -> None:
        """Read and forget the rest, up to a bound.

        A client that is still sending would not see our answer.
        """
        if self.waits or self.declared > DRAINED:
            return
        left = DRAINED
        with contextlib.suppress(Fault):
            while not self.ended and left > 0:
                chunk = await self.chunk()
                left -= len(chunk)


async def read_form(request: Request, max_bytes: int) -> Form:
    """Read a form with one file.

    Raises Fault for another content type, a broken form, no file, and a file above ``max_bytes``.
    """
    body = Body(request)
    try:
        _check_head(request, body, max_bytes)
        parser = InMemory(
            request.headers,
            body.up_to(max_bytes),
            max_files=1,
            max_fields=MAX_FIELDS,
            max_part_size=FORM_ROOM,
        )
        form = await parser.parse()
    except Fault:
        await body.drain()
        raise
    except (MultiPartException, UnicodeError) as error:
        await body.drain()
        reason = getattr(error, "message", "bad encoding")
        raise Fault(400, f"the form cannot be read: {reason}", code="bad_form") from None
    try:
        return await _taken_apart(form.multi_items(), max_bytes)
    finally:
        await form.close()


def _check_head(request: Request, body: Body, max_bytes: int) -> None:
    """Raise Fault where the head of a request already says that its body is of no use."""
    header = request.headers.get("content-type", "")
    content_type = header.split(";")[0].strip().lower()
    if content_type != "multipart/form-data":
        rule = "send the recording as multipart/form-data with a field 'file'"
        raise Fault(415, rule, code="unsupported_content_type")
    if body.declared > max_bytes + FORM_ROOM:
        raise _too_large(max_bytes)


def _check_text(text: str) -> None:
    """Raise Fault for half a character, which a form may hold in an encoding of its own."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Fault(400, "the form cannot be read: bad encoding", code="bad_form") from None


async def _taken_apart(items: list[tuple[str, str | UploadFile]], max_bytes: int) -> Form:
    """Take the fields and the file from a parsed form. Raises Fault where there is no one file."""
    fields: dict[str, list[str]] = {}
    data = None
    for name, value in items:
        if isinstance(value, str):
            _check_text(name + value)
            fields.setdefault(name, []).append(value)
        elif name != "file":
            rule = "the recording must be in the field 'file'"
            raise Fault(400, f"{rule}, it came in {name[:40]!r}", "file", "missing_file")
        else:
            data = await value.read()

    if data is None:
        raise Fault(400, "the form has no file in the field 'file'", "file", "missing_file")
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return Form(fields, data)


def _too_large(max_bytes: int) -> Fault:
    megabytes = max_bytes / MB
    rule = f"the file is larger than {megabytes:g} MB, which is the most this server takes"
    return Fault(413, rule, "file", "file_too_large")
