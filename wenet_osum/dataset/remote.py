"""Bytes from http(s) addresses, and from programs: ``pipe:PROGRAM ARGUMENTS…`` is a shard that a program prints, for stores that cannot be mounted.

A program that names ``{first}`` and ``{last}`` (bytes, the last one included, empty for the end) prints that stretch, and reading seeks:

    pipe:aws s3api get-object --bucket b --key train/0001.tar --range bytes={first}-{last} /dev/stdout
    pipe:curl -s -f -r {first}-{last} https://store/train/0001.tar

One that does not, such as ``pipe:aws s3 cp s3://b/train/0001.tar -``, is run once a process that reads from the shard and its output kept in an unnamed file.
No shell is involved. Pipes stand in lists of shards only, which are one's own, never in manifests, which come with data.
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


def is_url(path: str) -> bool:
    """Whether a path in a list is an address."""
    return path.startswith(("http://", "https://"))


def is_pipe(path: str) -> bool:
    """Whether a line of a list of shards is a program."""
    return path.startswith(PIPE)


def seeks(path: str) -> bool:
    """Whether a stretch of this shard can be had without the rest."""
    return is_url(path) or (is_pipe(path) and "{first}" in path)


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


def read_remote(path: str, offset: int = 0, size: int | None = None) -> bytes:
    """The same for addresses and programs; of a program that cannot seek only the whole."""
    if is_url(path):
        return fetch(path, offset, size)
    with tempfile.TemporaryFile() as file:
        _run(path, file, str(offset), "" if size is None else str(offset + size - 1))
        file.seek(0)
        return file.read()


def spooled(path: str) -> int:
    """A descriptor of an unnamed file with all that the program prints; the file goes away when it is closed. Raises Drop."""
    with tempfile.TemporaryFile() as file:
        _run(path, file, "0", "")
        return os.dup(file.fileno())


def _run(path: str, out: IO[bytes], first: str, last: str) -> None:
    """Run the program of a pipe. Raises Drop when it cannot be run or fails."""
    try:
        words = [word.replace("{first}", first).replace("{last}", last) for word in shlex.split(path.removeprefix(PIPE))]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, check=False)
    except (OSError, ValueError) as error:
        raise Drop("pipe cannot be run", f"{path}: {error}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Drop("pipe failed", f"{path}: exit status {done.returncode}{', ' + said[-1] if said else ''}")
