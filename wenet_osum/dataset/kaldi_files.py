"""Kaldi's text files: wav.scp, text and segments, read as Utterances."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from wenet_osum.dataset.drop import note
from wenet_osum.dataset.manifest import WHITE_KEY, has_white_space, read_lines
from wenet_osum.records import Utterance

Span = tuple[str, float | None, float | None]  # recording, start and end in s
MALFORMED = "segments: a line must read 'key recording start_s end_s', with an end after the start"


def read_kaldi(
    wav: str | Path,
    text: str | Path,
    segments: str | Path | None = None,
    dropped: Counter | None = None,
) -> Iterator[Utterance]:
    """Yield utterances of Kaldi's ``wav.scp``, ``text`` and ``segments``.

    They come in the order of ``text``. A line of ``segments`` is ``key recording start end``, of
    which an end of -1 is that of the recording. Malformed segments, lines without a partner, keys
    with white space and pipes are counted in ``dropped``. Raises ValueError for a missing file, or
    one that is not UTF-8.
    """
    dropped = Counter() if dropped is None else dropped
    wavs = _table(wav, dropped, "\t")
    if segments:
        spans = _segments(segments, dropped)
    else:
        spans = {key: (key, None, None) for key in wavs}
    used = set()
    for key, txt in _table(text, dropped).items():
        # without segments a recording is named like its text, whether it is there or not
        span = spans.get(key) if segments else (key, None, None)
        fault = WHITE_KEY if has_white_space(key) else _fault(span, wavs)
        if fault:
            note(dropped, key, fault)
            continue
        used.add(key)
        recording, start, end = span
        yield Utterance(key=key, wav=wavs[recording], txt=txt, start=start, end=end)

    noted = {key for key, _ in getattr(dropped, "pairs", [])}
    for key in spans.keys() - used - noted:
        white = has_white_space(key)
        note(dropped, key, WHITE_KEY if white else "recording without a line in text")


def _fault(span: Span | str | None, wavs: dict[str, str]) -> str | None:
    """Say why a line of text has no audio that can be read."""
    if span is None:
        return "text without a line in segments"
    if isinstance(span, str):
        return span
    recording = span[0]
    if recording not in wavs:
        return "text without a recording"
    if wavs[recording].endswith("|"):
        return "wav.scp holds a pipe; run it and give the file it makes"
    return None


def _table(path: str | Path, dropped: Counter, separator: str | None = None) -> dict[str, str]:
    """Read key → the rest of its line, which ``separator`` parts from it where the line has one,
    else any white space."""
    rows: dict[str, str] = {}
    for text in text_lines(path):
        own = separator if separator and separator in text else None
        key, rest = [*text.split(own, maxsplit=1), "", ""][:2]
        if key in rows:
            note(dropped, key, f"duplicate key in {Path(path).name}")
        elif key:
            rows[key] = rest.strip()
    return rows


def text_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a text file without what surrounds them. Raises ValueError for a file that
    is missing, and with the number of a line that is not UTF-8."""
    for number, line in enumerate(read_lines(path), 1):
        try:
            yield line.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} line {number} must be UTF-8: {error}") from None


def _segments(path: str | Path, dropped: Counter) -> dict[str, Span | str]:
    """Read a segments file; a malformed line is what is wrong with it."""
    rows: dict[str, Span | str] = {}
    for key, rest in _table(path, dropped).items():
        try:
            rows[key] = _span(*rest.split())
        except (ValueError, TypeError):
            rows[key] = MALFORMED
    return rows


def _span(recording: str, start: str, end: str, channel: str = "0") -> Span:
    """Read a segment; Kaldi's channel is known of recordings with one. Raises ValueError."""
    first = float(start)
    last = float(end)
    # so does Kaldi write the end of the recording
    if last == -1:
        last = math.inf
    if channel not in ("0", "-1") or not 0 <= first < last:
        raise ValueError
    return recording, first, None if last == math.inf else last
