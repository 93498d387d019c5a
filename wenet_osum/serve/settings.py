"""What a server promises and refuses."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000  # bytes
ALIASES = ("whisper-1",)  # model names that OpenAI's clients send by default


@dataclass
class Settings:
    """Limits and names of a server."""

    name: str = "osum"  # of the model, as clients see it
    max_bytes: int = 25 * MB  # of an uploaded file
    max_seconds: float = 600.0  # of audio
    queue: int = 64  # requests in flight at a time: being uploaded, waiting or being answered
    timeout_s: float = 120.0  # for a request, from its first byte to the answer
    head_s: float = 10.0  # for a connection, until the head of a request is complete
    wait_s: float = 0.02  # how long the first request of a batch waits for others
    api_key: str | None = None  # None: anyone who can reach the port may ask
    hosts: tuple[str, ...] | None = None  # names the server answers to; None: any

    def __post_init__(self) -> None:
        least = min(self.max_seconds, self.timeout_s, self.head_s)
        if self.max_bytes < 1 or self.queue < 1 or least <= 0 or not 0 <= self.wait_s <= 1:
            raise ValueError(f"{self}: sizes, seconds and the queue must be above 0, and wait_ms from 0 to 1000")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key.strip()):
            raise ValueError("the API key must be printable ASCII and not empty; leave it out for a server without one")
