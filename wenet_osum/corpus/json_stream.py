"""Read one array of a JSON file that is too large to hold, entry by entry.

Such as the ``audios`` of WenetSpeech.json, which has over a gigabyte. The standard library parses
an entry as fast as it parses the whole; all that is needed besides is where an entry begins. So
there is no dependency for it, and the memory holds one entry and one read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

READ = 1 << 20  # characters per read
MOST = 1 << 28  # characters of one value; beyond, the file is taken for damaged
_SPACE = " \t\r\n"
# A number at the end of what was read may go on in the next read.
_MORE = tuple("0123456789+-.eE")


def entries(path: str | Path, key: str) -> Iterator[Any]:
    """Give the entries of the array under ``key`` of the object that the file holds, in order.

    Everything else is passed over. Raises ValueError when the file is not there, is no such JSON,
    or ends early, and when it has no array of this name.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _Reader(file, str(path)).entries(key)
    except FileNotFoundError:
        advice = "does --data_dir point at the folder of the official download?"
        raise ValueError(f"{path} does not exist; {advice}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}; download it again") from None


class _Reader:
    """Holds what was read and not used yet, and a position in it."""

    def __init__(self, file: IO[str], path: str) -> None:
        self.file = file
        self.path = path
        self.text = ""  # what was read last
        self.at = 0  # position in it
        self.passed = 0  # characters of the file before it
        self.ended = False
        self.decoder = json.JSONDecoder()

    def entries(self, key: str) -> Iterator[Any]:
        """Give the entries of the array under ``key``. Raises ValueError when there is none."""
        self.expect("{")
        while True:
            name = self.value()
            self.expect(":")
            if name == key:
                if self.peek() != "[":
                    raise self.fault(f"{key!r} is no array")
                yield from self.array()
                return
            self.value()
            if self.expect(",}") == "}":
                raise self.fault(f"there is no array {key!r}")

    def array(self) -> Iterator[Any]:
        """Give the entries of the array that begins here."""
        self.expect("[")
        if self.peek() == "]":
            return
        while True:
            yield self.value()
            if self.expect(",]") == "]":
                return

    def value(self) -> Any:
        """Read the next value. One cut off at the end of a read is tried again with twice as much.

        Raises ValueError for what is no JSON.
        """
        self.peek()
        size = READ
        while True:
            try:
                found, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # Either the value is cut off or it is damaged; only more text can tell.
                waiting = len(self.text) - self.at
                if self.ended or waiting > MOST:
                    self.at = error.pos
                    raise self.fault(error.msg) from None
            else:
                if self.ended or not self.may_go_on(end):
                    self.at = end
                    return found
            self.read(size)
            size *= 2

    def may_go_on(self, end: int) -> bool:
        """Tell whether the value that ends at ``end`` may be the beginning of a longer number."""
        return end == len(self.text) and self.text[end - 1] in _MORE

    def expect(self, signs: str) -> str:
        """Pass over the next sign and return it. Raises ValueError when it is none of ``signs``."""
        found = self.peek()
        if found not in signs:
            wanted = " ".join(signs)
            raise self.fault(f"one of {wanted} was expected, got {found!r}")
        self.at += 1
        return found

    def peek(self) -> str:
        """Return the next sign that is no white space. Raises ValueError at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                raise self.fault("the file ends early")
            self.read(READ)

    def read(self, size: int) -> None:
        """Read on; what was used is forgotten."""
        more = self.file.read(size)
        self.passed += self.at
        self.text = self.text[self.at :] + more
        self.at = 0
        self.ended = not more

    def fault(self, what: str) -> ValueError:
        """Return the error for a fault at the present position."""
        position = self.passed + self.at
        return ValueError(f"{self.path}, character {position}: {what}; download it again")
