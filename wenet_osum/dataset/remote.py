"""Shards that are not files: http(s) addresses, and programs that print them.

``pipe:PROGRAM ARGUMENTS…`` is a shard that a program prints, for stores that cannot be mounted. A
program that names ``{first}`` and ``{last}`` (bytes, the last one included, empty for the end)
prints that stretch, and reading seeks:

    pipe:aws s3api get-object --bucket b --key 0001.tar --range bytes={first}-{last} /dev/stdout
    pipe:curl -s -f -r {first}-{last} https://store/train/0001.tar

One that does not, such as ``pipe:aws s3 cp s3://b/train/0001.tar -``, is run once for all processes
of a node, which read its output from a file (spool.py). No shell is involved. Pipes stand in lists
of shards only, which are one's own, never in manifests, which come with data.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import IO

from wenet_osum.config import StoreConfig
from wenet_osum.dataset import spool
from wenet_osum.dataset.address import SLOWEST, fetch, is_url
from wenet_osum.dataset.drop import STORE, Drop
from wenet_osum.dataset.retry import DEFAULT_STORE, with_retries

PIPE = "pipe:"
PROGRAM_TRIES = 3  # most programs have tries of their own
SAID = 120  # characters of what a program says before it fails, in the reason of a Drop


class Failed(Drop):
    """A program that was run and failed; the next time it may not."""


def is_pipe(path: str) -> bool:
    """Tell whether a line of a list of shards is a program."""
    return path.startswith(PIPE)


def seeks(path: str) -> bool:
    """Tell whether a stretch of this shard can be had without the rest."""
    if is_url(path):
        return True
    return is_pipe(path) and "{first}" in path


def read_remote(
    path: str, offset: int = 0, size: int | None = None, conf: StoreConfig = DEFAULT_STORE
) -> bytes:
    """Read an address or what a program prints; of a program that cannot seek only the whole.

    Raises Drop.
    """
    if is_url(path):
        return fetch(path, offset, size, conf)
    if not seeks(path):
        with open(spooled(path, conf), "rb") as file:
            return file.read()
    last = ""
    timeout_s = None
    if size is not None:
        last = str(offset + size - 1)
        timeout_s = conf.timeout_s + size / SLOWEST
    with tempfile.TemporaryFile() as file:
        _run_with_retries(path, (str(offset), last), conf, timeout_s, file)
        file.seek(0)
        return file.read()


def spooled(path: str, conf: StoreConfig = DEFAULT_STORE) -> int:
    """Return a descriptor of a file with the whole shard, which the processes of a node share.

    Raises Drop.
    """
    if is_url(path):

        def write(out: IO[bytes]) -> None:
            out.write(fetch(path, conf=conf))
    else:
        write = partial(_run_with_retries, path, ("", ""), conf, None)
    limit = int(conf.spool_gb * 1e9)
    try:
        return spool.spooled(path, write, limit)
    except OSError as error:
        raise Drop(f"{STORE}{error.filename or 'TMPDIR'}: {error.strerror}", path) from None


def _run_with_retries(
    path: str,
    stretch: tuple[str, str],
    conf: StoreConfig,
    timeout_s: float | None,
    out: IO[bytes],
) -> None:
    """Run the program until it succeeds. Raises Drop when it does not."""

    def run() -> None:
        out.seek(0)
        out.truncate()
        _run(path, out, *stretch, timeout_s)

    tries = min(conf.tries, PROGRAM_TRIES)
    with_retries(run, conf, lambda error: isinstance(error, Failed), tries)


def _run(path: str, out: IO[bytes], first: str, last: str, timeout_s: float | None) -> None:
    """Run the program of a pipe. Raises Drop when it cannot be run, Failed when it fails."""
    name = path
    try:
        words = _arguments(path, first, last)
        name = Path(words[0]).name
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        told = f"not done within {timeout_s:.0f} s"
        raise Failed(f"{STORE}{PIPE}{name}: {told}", path) from None
    except (OSError, ValueError, IndexError) as error:
        raise Drop(f"{STORE}{PIPE}{name}: cannot be run", f"{path}: {error}") from None
    if done.returncode:
        told = f"exit status {done.returncode}"
        said = done.stderr.decode("utf-8", "replace").strip()
        lines = said.splitlines()
        if lines:
            told += f", {lines[-1][:SAID]}"
        raise Failed(f"{STORE}{PIPE}{name}: {told}", path)


def _arguments(path: str, first: str, last: str) -> list[str]:
    """Return the words of a pipe's program. Raises ValueError for a quote that does not end."""
    words = []
    for word in shlex.split(path.removeprefix(PIPE)):
        word = word.replace("{first}", first)
        word = word.replace("{last}", last)
        words.append(word)
    return words
