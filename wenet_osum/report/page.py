"""The elements of the report: one HTML page that needs no network, readable in light and dark, on
paper and on a phone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape

from wenet_osum.report.style import STYLE
from wenet_osum.score.align import align
from wenet_osum.score.normalize import tokens

# Languages whose text is put together without spaces.
UNSPACED = ("zh", "yue", "ja")
# Stands for a side without any token.
EMPTY = '<span class="dim">(empty)</span>'


def document(title: str, body: str) -> str:
    """Write a whole page."""
    name = escape(title)
    head = (
        '<meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name}</title>\n"
        f"<style>{STYLE}</style>"
    )
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head>{head}</head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def table(
    head: list[str], rows: list[list[str]], kind: str = "", first: set[int] = frozenset()
) -> str:
    """Write a table of ready cells; a heading that starts with ``>`` is a column of numbers.

    ``first`` are rows that open a group, ``kind`` is the class of the whole table.
    """
    right = [heading.startswith(">") for heading in head]
    top = ""
    for heading, numbers in zip(head, right, strict=True):
        name = heading.lstrip(">")
        top += f"<th{_aligned(numbers)}>{name}</th>"

    body = ""
    for index, row in enumerate(rows):
        cells = _cells(row, right)
        opens = " class=first" if index in first else ""
        body += f"<tr{opens}>{cells}</tr>"
    return (
        f'<div class="wide"><table class="{kind}">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: list[str], right: list[bool]) -> str:
    """Write the cells of a row; one that is a ``<td>`` already stays as it is."""
    written = ""
    for content, numbers in zip(row, right, strict=True):
        if content.startswith("<td"):
            written += content
        else:
            written += f"<td{_aligned(numbers)}>{content}</td>"
    return written


def _aligned(numbers: bool) -> str:
    """Return the class of a cell, that of numbers or none."""
    return " class=n" if numbers else ""


def section(anchor: str, title: str, content: str) -> str:
    """Write a section with its heading; links lead to ``anchor``."""
    heading = escape(title)
    return f'<section id="{anchor}"><h2>{heading}</h2>{content}</section>'


def details(summary: str, content: str) -> str:
    """Fold content away under a summary."""
    line = f"<summary>{summary}</summary>"
    return f"<details>{line}{content}</details>"


def caption(text: str) -> str:
    """Write a line above a table or a plot."""
    return f'<div class="caption">{text}</div>'


def chips(facts: dict[str, object], bad: set[str] = frozenset()) -> str:
    """Write small labels, one per fact; those in ``bad`` stand out when they are not zero."""
    written = ""
    for name, value in facts.items():
        loud = " warn" if name in bad and value else ""
        text = escape(f"{name} {value}")
        written += f'<span class="chip{loud}">{text}</span>'
    if not written:
        return ""
    return f'<div class="chips">{written}</div>'


def side_by_side(reference: str, hypothesis: str, lang: str = "mixed") -> str:
    """Write the reference above the hypothesis with the differences marked."""
    left = tokens(reference, lang)
    right = tokens(hypothesis, lang)
    ref, hyp = [], []
    for expected, answered in _pairs(left, right):
        same = expected == answered
        if expected is not None:
            ref.append(_marked(expected, "" if same else "del"))
        if answered is not None:
            hyp.append(_marked(answered, "" if same else "ins"))

    glue = _glue(reference + hypothesis, lang)
    above = glue.join(ref) or EMPTY
    below = glue.join(hyp) or EMPTY
    return (
        f'<div class="pair"><span>ref</span><span>{above}</span>'
        f"<span>hyp</span><span>{below}</span></div>"
    )


def _pairs(left: list[str], right: list[str]) -> Iterator[tuple[str | None, str | None]]:
    """Align two sides; None stands where a token has no partner."""
    for first, second in align(left, right):
        expected = None if first is None else left[first]
        answered = None if second is None else right[second]
        yield expected, answered


def _marked(token: str, tag: str) -> str:
    """Write a token, in a tag where it differs from its partner."""
    text = escape(token)
    if not tag:
        return text
    return f"<{tag}>{text}</{tag}>"


def _glue(text: str, lang: str) -> str:
    """Return what stands between two tokens of a text: a space, or nothing."""
    if lang in UNSPACED:
        return ""
    # Of mixed text, what holds no space is written without any.
    if lang == "mixed" and " " not in text:
        return ""
    return " "


def player(audio: tuple[bytes, str]) -> str:
    """Write an audio player with the sound inside the page; ``audio`` is (bytes, MIME type)."""
    data, mime = audio
    kind = escape(mime, quote=True)
    inside = base64.b64encode(data).decode()
    return f'<audio controls preload="metadata" src="data:{kind};base64,{inside}"></audio>'
