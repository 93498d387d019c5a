"""NIST CTM as Kaldi and scoring tools write it, for many recordings per file.

Each line is ``recording channel start_s duration_s word [confidence]``.
"""

from __future__ import annotations

from wenet_osum.records import Word

SUFFIXES = (".ctm",)


def read(data: bytes) -> dict[str | None, list[Word]]:
    """Read recording → words. Lines that begin with ``;;`` are remarks.

    Raises ValueError with the number of a line that does not fit.
    """
    found: dict[str | None, list[Word]] = {}
    text = data.decode("utf-8-sig")
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells or cells[0].startswith(";;"):
            continue

        try:
            name, _, start, duration, text = cells[:5]
            start_s = float(start)
            end_s = start_s + float(duration)
        except ValueError:
            rule = "must read 'recording channel start_s duration_s word'"
            got = repr(line[:80])
            raise ValueError(f"line {number} {rule}, got {got}") from None

        word = Word(text, start_s, end_s)
        found.setdefault(name, []).append(word)
    return found
