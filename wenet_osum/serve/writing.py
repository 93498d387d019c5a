"""Write an answer in the formats of OpenAI's endpoint.

What only speech understanding has is added: labels, probabilities, a reply.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from wenet_osum.decode import text_formats
from wenet_osum.records import Hypothesis, Word
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.question import Question

# Entries of an answer that OpenAI's have not; those that are empty are left out.
OURS = ("labels", "probs", "reply", "texts", "unread", "flags")


def as_json(answer: Hypothesis, asked: Question) -> dict[str, Any]:
    """Write OpenAI's ``{"text"}``, with labels, probabilities, reply and other texts where the task
    has them."""
    row = {"text": answer.transcript or ""}
    return row | extras(answer)


def as_verbose_json(answer: Hypothesis, asked: Question) -> dict[str, Any]:
    """Write duration (s), segments, words with times (s), the task's tags and the raw answer too.

    Segments and words are those that ``timestamp_granularities`` asks for; without it segments, and
    words where there are any. ``language`` is empty unless the client named it.
    """
    row: dict[str, Any] = {
        "task": "transcribe",
        "language": asked.language or "",
        "duration": answer.duration,
        "text": answer.transcript or "",
    }
    granularities = asked.granularities or ("segment", "word")
    if "segment" in granularities:
        temperature = asked.temperature or 0.0
        row["segments"] = segments(answer, temperature)
    if "word" in granularities and answer.words is not None:
        row["words"] = [_word(word) for word in answer.words]

    row["tags"] = answer.task
    row["raw"] = answer.text
    return row | extras(answer)


def ignored_header(ignored: tuple[str, ...]) -> dict[str, str]:
    """Return the header that names fields without effect, where there are any."""
    return {"x-ignored-fields": ", ".join(ignored)} if ignored else {}


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text, "start": word.start, "end": word.end}


def extras(answer: Hypothesis) -> dict[str, Any]:
    """Return what OpenAI's answers have not: labels, probabilities, a reply, flags."""
    row = {}
    for name in OURS:
        value = getattr(answer, name)
        if value not in (None, {}, []):
            row[name] = value
    return row


def segments(answer: Hypothesis, temperature: float = 0.0) -> list[dict[str, Any]]:
    """Return stretches of the recording with their text.

    They are the cues of subtitles where all words have times, else the whole.
    """
    cues = []
    if answer.words and "words" not in answer.unread:
        cues = text_formats.cues(answer)
    found = []
    for index, cue in enumerate(cues):
        start_s = cue.start / 1000
        end_s = cue.end / 1000
        text = text_formats.join_words(cue.lines)
        found.append(_segment(index, start_s, end_s, text, temperature))

    if not found and answer.transcript:
        whole = _segment(0, 0.0, answer.duration, answer.transcript, temperature)
        found.append(whole)
    return found


def _segment(index: int, start: float, end: float, text: str, temperature: float) -> dict[str, Any]:
    """Return a segment with every field of OpenAI's; those not known here are 0 or empty."""
    return {
        "id": index,
        "start": start,
        "end": end,
        "text": text,
        "temperature": temperature,
        "compression_ratio": compression_ratio(text),
        "seek": 0,
        "tokens": [],
        "avg_logprob": 0.0,
        "no_speech_prob": 0.0,
    }


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes a text, as Whisper counts it.

    It is far above 2 where the model repeats itself.
    """
    data = text.encode("utf-8", "backslashreplace")
    packed = zlib.compress(data)
    return len(data) / len(packed)


def as_text(answer: Hypothesis, asked: Question) -> str:
    """Write the transcript, and a line for each label and further text where the task has them."""
    lines = []
    if answer.transcript is not None:
        lines.append(answer.transcript)
    for name, label in answer.labels.items():
        lines.append(f"{name}: {label}")
    texts = answer.free_texts()
    for name, text in texts.items():
        lines.append(f"{name}: {text}")
    return "\n".join(lines) + "\n"


def _subtitles(write: Callable[[Hypothesis], str]) -> Callable[[Hypothesis, Question], str]:
    """Return a writer of subtitles that raises Fault where word times cannot be read."""

    def document(answer: Hypothesis, asked: Question) -> str:
        if "words" in answer.unread:
            why = "the model gave no readable word times; response_format json has what it wrote"
            raise Fault(422, why, "response_format", "no_word_times")
        return write(answer)

    return document


class Format(NamedTuple):
    """The form of a response."""

    write: Callable[[Hypothesis, Question], Any]
    media_type: str
    # It is made of word times, and asks for them where the request names no task.
    document: bool = False


FORMATS = {
    "json": Format(as_json, "application/json"),
    "verbose_json": Format(as_verbose_json, "application/json"),
    "text": Format(as_text, "text/plain; charset=utf-8"),
    "srt": Format(
        _subtitles(text_formats.srt), "application/x-subrip; charset=utf-8", document=True
    ),
    "vtt": Format(_subtitles(text_formats.vtt), "text/vtt; charset=utf-8", document=True),
}
