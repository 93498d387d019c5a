"""``wenet_osum NAME …`` and ``python -m wenet_osum NAME …`` run ``wenet_osum/bin/NAME.py``."""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys

from wenet_osum import __version__, lookup

COMMANDS = "wenet_osum.bin"


def usage() -> str:
    """The help text: every command with the first line of its docstring."""
    names = lookup.names(COMMANDS)
    width = max(map(len, names), default=0)
    lines = [f"  {name:{width}}  {summary(name)}" for name in names]
    return "\n".join(["Usage: wenet_osum COMMAND [options]; wenet_osum COMMAND --help", "", *lines])


def summary(name: str) -> str:
    """First line of a command's docstring, read without importing it: torch takes seconds to load."""
    spec = importlib.util.find_spec(f"{COMMANDS}.{name}")
    assert spec is not None and spec.origin, f"no source for command {name!r}"
    with open(spec.origin, encoding="utf-8") as source:
        return (ast.get_docstring(ast.parse(source.read())) or "").split("\n")[0]


def main() -> int:
    """Run the named command with the remaining arguments; returns the exit status when there is none to run."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    name = arguments[0]
    known = lookup.names(COMMANDS)
    if name not in known:
        print(lookup.unknown("command", name, known), file=sys.stderr)
        return 2
    sys.argv = [f"wenet_osum {name}", *arguments[1:]]
    runpy.run_module(f"{COMMANDS}.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
