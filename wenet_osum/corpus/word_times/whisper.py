"""JSON as Whisper and its kin write it.

``words`` stand in each of ``segments``, or at the top; a word is ``{word, start, end}``, in s.
"""

from __future__ import annotations

import json
from typing import Any

from wenet_osum.records import Word

SUFFIXES = (".json",)
FORM = "{segments: [{words: [{word, start, end}]}]}"


def read(data: bytes) -> dict[str | None, list[Word]]:
    """Read the words in order. Those without times are left out: whisperX gives numbers none.

    Raises ValueError when there are no word times.
    """
    try:
        tree = json.loads(data.decode("utf-8-sig"))
        segments = tree.get("segments") or []
        words = _words(tree, segments)
    except (
        UnicodeDecodeError,
        json.JSONDecodeError,
        AttributeError,
        KeyError,
        TypeError,
    ) as error:
        raise ValueError(f"no JSON of Whisper's form, {FORM}: {error!r}") from None

    if not words:
        hint = "no segments and no words"
        if segments:
            hint = "segments without words; run Whisper with word timestamps"
        raise ValueError(f"there are no word times in it: {hint}")
    return {None: words}


def _words(tree: dict[str, Any], segments: list[dict[str, Any]]) -> list[Word]:
    """Return the words of the segments, or those at the top when the segments have none."""
    rows: list[dict[str, Any]] = []
    for segment in segments:
        rows += segment.get("words") or []
    if not rows:
        rows = tree.get("words") or tree.get("word_segments") or []

    words = []
    for row in rows:
        if row.get("start") is None or row.get("end") is None:
            continue
        text = row["word"] if "word" in row else row["text"]
        word = Word(str(text), float(row["start"]), float(row["end"]))
        words.append(word)
    return words
