"""Long work in pieces that go on where they stopped.

Each piece runs in a process of its own, so that the memory of a device is free after it, and under
a time limit. What it answers is written to a file when it is done; a piece whose file is there is
not run again. A piece that failed leaves its error there, and is tried again by the next call.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from wenet_osum.files import write_text

# Exit statuses: a call whose time is over asks to be called again, as training does.
DONE, FAILED, AGAIN = 0, 1, 85
# Lines of a traceback that are kept as the error.
LAST_LINES = 3
Answer = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """A piece of work with a name of its own."""

    name: str
    # ``module.function``: it takes ``options`` and returns what JSON can hold.
    work: str
    options: dict[str, Any] = field(default_factory=dict)
    # Seconds after which it is ended.
    limit_s: float = 60.0

    def file(self, folder: Path) -> Path:
        """Return where its answer lies."""
        return folder / f"{self._word}.json"

    def log(self, folder: Path) -> Path:
        """Return where what it prints lies."""
        return folder / f"{self._word}.log"

    @property
    def _word(self) -> str:
        return self.name.replace(" ", "_")


def answer_of(piece: Piece, folder: Path) -> Answer | None:
    """Read what a piece has answered; None: it has not been run."""
    path = piece.file(folder)
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def preload(modules: list[str]) -> None:
    """Import modules once for all pieces: processes are forked from one that has imported much and
    touched no device, so that they begin at once."""
    _context().set_forkserver_preload(modules)


def run_pieces(pieces: list[Piece], folder: Path, call_s: float) -> int:
    """Run what is not done yet, for at most ``call_s`` seconds, and print a line for each piece.

    A piece begins only where its limit fits into the time left, but for the first one, whose limit
    is the time of the call where that is less. Returns ``DONE``, ``FAILED`` when pieces failed,
    ``AGAIN`` when some are left.
    """
    end = time.monotonic() + call_s
    waiting = _waiting(pieces, folder)
    total = len(pieces)
    number = total - len(waiting)
    if number:
        _say(f"{number} of {total} pieces were done before")

    is_first = True
    while waiting:
        piece = waiting[0]
        left_s = end - time.monotonic()
        if left_s < piece.limit_s and not is_first:
            names = ", ".join(each.name for each in waiting)
            _say(f"the time of this call is over; left: {names}; call again with the same --out")
            break
        is_first = False
        limit_s = min(piece.limit_s, call_s)
        told = run_piece(piece, folder, limit_s)

        waiting = waiting[1:]
        number += 1
        following = _next(waiting)
        _say(f"[{number}/{total}] {piece.name}: {told}; {following}")
    return _status(pieces, folder)


def _waiting(pieces: list[Piece], folder: Path) -> list[Piece]:
    """Return the pieces to run: those never run before those that failed."""
    new = []
    failed = []
    for piece in pieces:
        answer = answer_of(piece, folder)
        if answer is None:
            new.append(piece)
        elif "error" in answer:
            failed.append(piece)
    return new + failed


def _next(rest: list[Piece]) -> str:
    if not rest:
        return "nothing comes next"
    first = rest[0]
    return f"next: {first.name} (at most {first.limit_s:.0f} s)"


def _status(pieces: list[Piece], folder: Path) -> int:
    """Return the exit status that follows from the answers that are there."""
    answers = [answer_of(piece, folder) for piece in pieces]
    if None in answers:
        return AGAIN
    failed = any("error" in answer for answer in answers)
    return FAILED if failed else DONE


def run_piece(piece: Piece, folder: Path, limit_s: float) -> str:
    """Run a piece, keep its answer, and return in words what became of it."""
    before = time.monotonic()
    answer = in_own_process(piece, folder, limit_s)
    seconds = time.monotonic() - before
    answer["wall_s"] = round(seconds, 1)
    keep(piece, folder, answer)
    if "error" in answer:
        error = answer["error"]
        log = piece.log(folder)
        return f"failed after {seconds:.0f} s: {error} (log: {log})"
    return f"done in {seconds:.0f} s"


def keep(piece: Piece, folder: Path, answer: Answer) -> None:
    """Write what a piece has answered."""
    text = json.dumps(answer, indent=1, ensure_ascii=False)
    path = piece.file(folder)
    write_text(path, text + "\n")


def in_own_process(piece: Piece, folder: Path, limit_s: float) -> Answer:
    """Return what a piece answers, or its ``error``; what it prints goes to its log."""
    folder.mkdir(parents=True, exist_ok=True)
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    log = str(piece.log(folder))
    process = context.Process(target=_answer, args=(theirs, piece, log), daemon=True)
    process.start()
    # Only the process holds its end now: when it dies, the pipe says so.
    theirs.close()
    try:
        if not ours.poll(limit_s):
            return {"error": f"it took longer than {limit_s:.0f} s and was ended"}
        return ours.recv()
    except EOFError:
        process.join()
        return {"error": f"its process ended with exit status {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _context() -> ForkServerContext:
    return multiprocessing.get_context("forkserver")


def _answer(pipe: Connection, piece: Piece, log: str) -> None:
    """Do the work of a piece in its process."""
    _end_with_parent()
    with open(log, "w", encoding="utf-8", buffering=1) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
        try:
            answer = _function(piece.work)(piece.options)
        # Whatever goes wrong is what the piece has to tell.
        except BaseException:
            text = traceback.format_exc()
            print(text, flush=True)
            last = text.strip().splitlines()[-LAST_LINES:]
            answer = {"error": " ".join(line.strip() for line in last)}
        sys.stdout.flush()
    pipe.send(answer)


def _function(work: str) -> Callable[[dict[str, Any]], Answer]:
    place, _, name = work.rpartition(".")
    module = importlib.import_module(place)
    return getattr(module, name)


def _end_with_parent() -> None:
    """End this process when the one that asked is gone, however that ended."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(FAILED)

    threading.Thread(target=wait, daemon=True).start()


def _say(text: str) -> None:
    print(text, flush=True)
