"""Limits and names of a server: what it promises and refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MB = 1_000_000  # bytes
ALIASES = ("whisper-1",)  # model names that OpenAI's clients send by default
# Settings that must be above 0.
SIZES = (
    "max_bytes",
    "queue",
    "max_seconds",
    "timeout_s",
    "head_s",
    "streams",
    "step_s",
    "idle_s",
)


@dataclass
class Settings:
    """Limits and names of a server."""

    name: str = "osum"  # of the model, as clients see it
    loras: tuple[str, ...] = ()  # further names, each of a LoRA of that model
    max_bytes: int = 25 * MB  # of an uploaded file
    max_seconds: float = 600.0  # of audio
    # requests in flight at a time: being uploaded, waiting or being answered
    queue: int = 64
    timeout_s: float = 120.0  # for a request, from its first byte to the answer
    head_s: float = 10.0  # for a connection, until the head of a request is complete
    streams: int = 8  # heard while they are recorded, at a time
    step_s: float = 1.0  # of new sound, after which a stream is decoded anew
    idle_s: float = 10.0  # for the next sound of a stream
    wait_s: float = 0.02  # how long the first request of a batch waits for others
    # None: anyone who can reach the port may ask; it stands in no message
    api_key: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] | None = None  # names the server answers to; None: any

    def __post_init__(self) -> None:
        for name in SIZES:
            size = getattr(self, name)
            if not 0 < size < math.inf:
                raise ValueError(f"{name} {size} must be a number above 0")
        self.max_bytes = int(self.max_bytes)
        if not 0 <= self.wait_s <= 1:
            wait_ms = 1000 * self.wait_s
            raise ValueError(f"wait_ms {wait_ms:g} must be from 0 to 1000")
        key = self.api_key
        if key is not None and not _is_sendable(key):
            rule = "the API key must be printable ASCII and not empty"
            raise ValueError(f"{rule}; leave it out for a server without one")

    def model_named(self, name: str) -> str | None:
        """Return the model that a client means, None where there is none of that name."""
        own = (self.name, *ALIASES)
        if not name or name in own:
            return self.name
        if name in self.loras:
            return name
        return None


def _is_sendable(key: str) -> bool:
    """Tell whether a header can hold a key."""
    if not key.strip():
        return False
    return key.isascii() and key.isprintable()
