"""Tell a client why there is no answer: in OpenAI's error form, without details of the server."""

from __future__ import annotations

from starlette.responses import JSONResponse

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Fault(Exception):
    """A request that is not answered.

    ``param`` is the form field at fault, ``code`` a word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers

    def response(self) -> JSONResponse:
        """Make ``{"error": {message, type, param, code}}`` with the fault's status."""
        error = self.body()
        return JSONResponse({"error": error}, self.status, self.headers)

    def body(self) -> dict[str, str | None]:
        """Return message, type, param and code."""
        if self.status in KINDS:
            kind = KINDS[self.status]
        elif self.status < 500:
            kind = "invalid_request_error"
        else:
            kind = "server_error"
        return {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }


def fault_of(error: str) -> Fault:
    """Return the fault of a recording that has no answer, by its ``error``.

    It tells the reason without details, which may name files here.
    """
    reason = error.split(": ")
    if reason[0] == "audio":
        return Fault(400, ": ".join(reason[:2]), "file", "invalid_audio")
    return Fault(500, "the model failed on this recording", code="internal_error")
