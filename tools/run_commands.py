#!/usr/bin/env python3
"""Run commands of the toolkit, a line of standard input each, in a few processes that stay.

    printf '%s\n' "recognize --model M --list a.list --task asr --out a" \
      "recognize --model M --list b.list --task ser --out b" | python tools/run_commands.py --jobs 2

A command of its own takes seconds to load torch and transformers; here each of the processes does
so once. Words are split as a shell does. Exit status: 0 all commands ended with 0, 1 another one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum import lookup  # noqa: E402

COMMANDS = "wenet_osum.bin"


def run(line: str) -> int:
    """Run a command, say so when it fails, and return its exit status."""
    try:
        name, *words = shlex.split(line)
        command = lookup.load(COMMANDS, name)
    except ValueError as error:
        print(f"run_commands.py: {error}, in: {line}", file=sys.stderr, flush=True)
        return 2
    try:
        status = command.main(words)
    except SystemExit as leaving:  # a fault of the arguments
        status = leaving.code
    sys.stdout.flush()
    if status:
        print(f"run_commands.py: exit status {status} of: {line}", file=sys.stderr, flush=True)
    return status or 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args(argv)
    lines = [line.strip() for line in sys.stdin if line.strip()]

    # Fresh processes, not forks: each loads torch for itself and keeps its threads to itself.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        statuses = list(pool.map(run, lines))
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
