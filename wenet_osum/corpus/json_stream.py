"""The entries of one array of a JSON file too large to hold, such as the ``audios`` of WenetSpeech.json (over a gigabyte): an entry at a time.

The standard library parses an entry as fast as it parses the whole; all that is needed besides is where one begins. So there is no dependency for it,
and the memory holds one entry and a read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

READ = 1 << 20  # characters a read
MOST = 1 << 28  # characters of one value; beyond, the file is taken for damaged
_SPACE = " \t\r\n"
_MORE = tuple("0123456789+-.eE")  # a number at the end of what was read may go on in the next


def entries(path: str | Path, key: str) -> Iterator[Any]:
    """The entries of the array under ``key`` of the object that the file holds, in order; everything else is passed over.

    Raises ValueError when the file is not there, is no such JSON, or ends early, and when it has no array of this name.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _Reader(file, str(path)).entries(key)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; does --data_dir point at the folder of the official download?") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}; download it again") from None


class _Reader:
    """What was read and not used yet, and a place in it."""

    def __init__(self, file: IO[str], path: str) -> None:
        self.file, self.path, self.text, self.at, self.passed = file, path, "", 0, 0
        self.ended = False
        self.decoder = json.JSONDecoder()

    def entries(self, key: str) -> Iterator[Any]:
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
        self.expect("[")
        if self.peek() == "]":
            return
        while True:
            yield self.value()
            if self.expect(",]") == "]":
                return

    def value(self) -> Any:
        """The next value. What is cut off at the end of a read is tried again with twice as much."""
        self.peek()
        wanted = READ
        while True:
            try:
                found, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.ended or len(self.text) - self.at > MOST:
                    self.at = error.pos
                    raise self.fault(error.msg) from None
            else:
                if self.ended or not (end == len(self.text) and self.text[end - 1] in _MORE):
                    self.at = end
                    return found
            self.read(wanted)
            wanted *= 2

    def expect(self, signs: str) -> str:
        found = self.peek()
        if found not in signs:
            raise self.fault(f"one of {' '.join(signs)} was expected, got {found!r}")
        self.at += 1
        return found

    def peek(self) -> str:
        """The next sign that is no white space. Raises ValueError at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                raise self.fault("the file ends early")
            self.read(READ)

    def read(self, size: int) -> None:
        more = self.file.read(size)
        self.passed += self.at
        self.text, self.at, self.ended = self.text[self.at :] + more, 0, not more

    def fault(self, what: str) -> ValueError:
        return ValueError(f"{self.path}, character {self.passed + self.at}: {what}; download it again")
