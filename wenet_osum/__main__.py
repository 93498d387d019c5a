"""Run a command: ``wenet_osum NAME …`` and ``python -m wenet_osum NAME …`` run ``bin/NAME.py``.

So does ``python -m wenet_osum.bin.NAME``. A command is a file of that folder with ``main(argv)``;
the first line of its docstring stands in the list. Only the command that is run is imported. Files
that begin with ``_`` are no commands.
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

Results go to stdout, progress and faults to stderr. Exit status: 0 done, 1 some input failed,
2 a fault of the arguments; what else a command returns stands in its --help."""


def usage() -> str:
    """Write the help text: every command with the first line of its docstring."""
    names = lookup.names(COMMANDS)
    width = max(map(len, names), default=0)
    lines = []
    for name in names:
        padded = name.ljust(width)
        lines.append(f"  {padded}  {summary(name)}")
    commands = "\n".join(lines)
    return HELP.format(commands=commands)


def summary(name: str) -> str:
    """Return the first line of a command's docstring.

    It is read without importing the command, for torch takes seconds to load.
    """
    spec = importlib.util.find_spec(f"{COMMANDS}.{name}")
    assert spec is not None and spec.origin, f"no source for command {name!r}"
    with open(spec.origin, encoding="utf-8") as file:
        source = file.read()
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree) or ""
    return docstring.split("\n")[0]


def main(argv: list[str] | None = None) -> int:
    """Run the named command with the remaining arguments.

    Returns the exit status when the command does not end the process itself.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    name = arguments[0]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    known = lookup.names(COMMANDS)
    if name not in known:
        fault = lookup.unknown("command", name, known)
        print(f"wenet_osum: {fault}", file=sys.stderr)
        return 2
    return _run(name, arguments[1:])


def _run(name: str, arguments: list[str]) -> int:
    """Run a command's file as a program, which sees its own name and arguments in sys.argv."""
    sys.argv = [f"wenet_osum {name}", *arguments]
    try:
        runpy.run_module(f"{COMMANDS}.{name}", run_name="__main__")
    except KeyboardInterrupt:
        print(f"wenet_osum {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
