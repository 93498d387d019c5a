"""Bytes from http(s) addresses, and from programs.

``pipe:PROGRAM ARGUMENTS…`` is a shard that a program prints, for stores that cannot be mounted. A
program that names ``{first}`` and ``{last}`` (bytes, the last one included, empty for the end)
prints that stretch, and reading seeks:

    pipe:aws s3api get-object --bucket b --key 0001.tar --range bytes={first}-{last} /dev/stdout
    pipe:curl -s -f -r {first}-{last} https://store/train/0001.tar

One that does not, such as ``pipe:aws s3 cp s3://b/train/0001.tar -``, is run once by each process
that reads from the shard, and its output kept in an unnamed file. No shell is involved. Pipes stand
in lists of shards only, which are one's own, never in manifests, which come with data.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import urllib.error
import urllib.request
from typing import IO

from wenet_osum.dataset.drop import Drop

PIPE = "pipe:"
TIMEOUT_S = 60
PARTIAL_CONTENT = 206  # HTTP's answer to a range


def is_url(path: str) -> bool:
    """Tell whether a path in a list is an address."""
    return path.startswith(("http://", "https://"))


def is_pipe(path: str) -> bool:
    """Tell whether a line of a list of shards is a program."""
    return path.startswith(PIPE)


def seeks(path: str) -> bool:
    """Tell whether a stretch of this shard can be had without the rest."""
    if is_url(path):
        return True
    return is_pipe(path) and "{first}" in path


def fetch(url: str, offset: int = 0, size: int | None = None) -> bytes:
    """Read an address, or ``size`` bytes of it from ``offset``.

    Raises Drop when it cannot be read.
    """
    request = urllib.request.Request(url)
    if size is not None:
        last = offset + size - 1
        request.add_header("Range", f"bytes={offset}-{last}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            data = answer.read()
            status = answer.status
    except (OSError, ValueError) as error:
        raise Drop("address cannot be read", f"{url}: {error}") from None

    # a plain server sends everything
    if size is None or status == PARTIAL_CONTENT:
        return data
    return data[offset : offset + size]


def read_remote(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """Do the same for addresses and programs; of a program that cannot seek only the whole."""
    if is_url(path):
        return fetch(path, offset, size)
    last = ""
    if size is not None:
        last = str(offset + size - 1)
    with tempfile.TemporaryFile() as file:
        _run(path, file, str(offset), last)
        file.seek(0)
        return file.read()


def spooled(path: str) -> int:
    """Return a descriptor of an unnamed file with all that the program prints.

    The file goes away when it is closed. Raises Drop.
    """
    with tempfile.TemporaryFile() as file:
        _run(path, file, "0", "")
        return os.dup(file.fileno())


def _run(path: str, out: IO[bytes], first: str, last: str) -> None:
    """Run the program of a pipe. Raises Drop when it cannot be run or fails."""
    try:
        done = subprocess.run(
            _arguments(path, first, last),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
    except (OSError, ValueError) as error:
        raise Drop("pipe cannot be run", f"{path}: {error}") from None
    if done.returncode:
        told = f"{path}: exit status {done.returncode}"
        said = done.stderr.decode("utf-8", "replace").strip()
        lines = said.splitlines()
        if lines:
            told += f", {lines[-1]}"
        raise Drop("pipe failed", told)


def _arguments(path: str, first: str, last: str) -> list[str]:
    """Return the words of a pipe's program. Raises ValueError for a quote that does not end."""
    words = []
    for word in shlex.split(path.removeprefix(PIPE)):
        word = word.replace("{first}", first)
        word = word.replace("{last}", last)
        words.append(word)
    return words
