"""Bytes from http(s) addresses."""

from __future__ import annotations

import urllib.error
import urllib.request

from wenet_osum.dataset.drop import Drop


def is_url(path: str) -> bool:
    """Whether a path in a list is an address."""
    return path.startswith(("http://", "https://"))


def fetch(url: str, offset: int = 0, size: int | None = None) -> bytes:
    """The bytes of an address, or ``size`` of them from ``offset``. Raises Drop when it cannot be read."""
    request = urllib.request.Request(url)
    if size is not None:
        request.add_header("Range", f"bytes={offset}-{offset + size - 1}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = answer.read()
            partial = answer.status == 206
    except (OSError, ValueError) as error:
        raise Drop("address cannot be read", f"{url}: {error}") from None
    return data if size is None or partial else data[offset : offset + size]  # a plain server sends everything
