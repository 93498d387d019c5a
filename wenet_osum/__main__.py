"""``wenet_osum NAME …`` and ``python -m wenet_osum NAME …`` run ``wenet_osum/bin/NAME.py``, as ``python -m wenet_osum.bin.NAME`` does.

A command is a file of that folder with ``main(argv)``; the first line of its docstring stands in the list. Only the command that is run
is imported. Files that begin with ``_`` are no commands.
"""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys

from wenet_osum import __version__, lookup

COMMANDS = "wenet_osum.bin"
INTERRUPTED = 130  # what shells report after Ctrl-C
HELP = """usage: wenet_osum COMMAND [options]
       wenet_osum COMMAND --help | --version

commands:
{commands}

example:
  wenet_osum transcribe --model exp/x/final --task ser a.wav b.flac

Results go to stdout, progress and faults to stderr. Exit status: 0 done, 1 some input failed, 2 a fault of the arguments;
what else a command returns stands in its --help."""


def usage() -> str:
    """The help text: every command with the first line of its docstring."""
    names = lookup.names(COMMANDS)
    width = max(map(len, names), default=0)
    return HELP.format(commands="\n".join(f"  {name:{width}}  {summary(name)}" for name in names))


def summary(name: str) -> str:
    """First line of a command's docstring, read without importing it: torch takes seconds to load."""
    spec = importlib.util.find_spec(f"{COMMANDS}.{name}")
    assert spec is not None and spec.origin, f"no source for command {name!r}"
    with open(spec.origin, encoding="utf-8") as source:
        return (ast.get_docstring(ast.parse(source.read())) or "").split("\n")[0]


def main(argv: list[str] | None = None) -> int:
    """Run the named command with the remaining arguments; returns the exit status when the command does not end the process itself."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    if arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    name = arguments[0]
    known = lookup.names(COMMANDS)
    if name not in known:
        print(f"wenet_osum: {lookup.unknown('command', name, known)}", file=sys.stderr)
        return 2
    sys.argv = [f"wenet_osum {name}", *arguments[1:]]
    try:
        runpy.run_module(f"{COMMANDS}.{name}", run_name="__main__")
    except KeyboardInterrupt:
        print(f"wenet_osum {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
