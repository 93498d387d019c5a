"""Tables in markdown."""

from __future__ import annotations

from collections.abc import Iterable


def table_lines(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Write a table as lines, its heading first; a ``|`` in a cell is escaped."""
    rule = "|" + "---|" * len(head)
    lines = [_line(head), rule]
    for row in rows:
        lines.append(_line(row))
    return lines


def titled_table(
    title: str, head: list[str], rows: Iterable[list[str]], above: Iterable[str] = ()
) -> str:
    """Write a table under its heading, with the lines ``above`` between them."""
    lines = [f"## {title}", ""]
    lines += above
    lines += table_lines(head, rows)
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    escaped = []
    for cell in cells:
        escaped.append(cell.replace("|", "\\|"))
    joined = " | ".join(escaped)
    return f"| {joined} |"
