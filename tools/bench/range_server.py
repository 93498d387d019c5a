#!/usr/bin/env python3
"""A plain file server with ranges on loopback, which prints its port and serves until it is ended.

    python tools/bench/range_server.py FOLDER --faults 0.05

Files leave by sendfile. ``--faults`` is the share of requests that are answered by 503.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Files(BaseHTTPRequestHandler):
    """Answers with a file of a folder, or the range of it that is asked."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, folder: Path, faults: float, *connection) -> None:
        self.folder = folder
        self.faults = faults
        super().__init__(*connection)

    def do_GET(self) -> None:
        """Answer a request; a range of no bytes is none that the loader asks."""
        path = self.folder / Path(self.path).name
        if random.random() < self.faults:
            self._head(503, 0)
            return
        if not path.is_file():
            self._head(404, 0)
            return
        with path.open("rb") as file:
            self._send(file.fileno(), path.stat().st_size)

    def _send(self, descriptor: int, size: int) -> None:
        """Send a file of ``size`` bytes, or the range of it."""
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        first, end = 0, size
        if asked:
            first = int(asked[1])
            end = min(int(asked[2]) + 1, size)
            self._head(206, end - first, f"bytes {first}-{end - 1}/{size}")
        else:
            self._head(200, size)
        while first < end:
            first += os.sendfile(
                self.connection.fileno(),
                descriptor,
                first,
                end - first,
            )

    def _head(self, status: int, size: int, content_range: str = "") -> None:
        """Send status and headers."""
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def log_message(self, *_) -> None:
        """Log nothing: that would be timed along."""


def main(argv: list[str] | None = None) -> int:
    """Serve a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests")
    args = parser.parse_args(argv)
    answer = partial(Files, args.folder, args.faults)
    server = ThreadingHTTPServer(("127.0.0.1", 0), answer)
    print(server.server_port, flush=True)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
