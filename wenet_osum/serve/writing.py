"""An answer in the formats of OpenAI's endpoint, with what only speech understanding has beside it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from wenet_osum.decode import text_formats
from wenet_osum.records import Hypothesis
from wenet_osum.serve.fault import Fault

if TYPE_CHECKING:
    from wenet_osum.serve.question import Question

OURS = ("labels", "probs", "reply", "unread", "flags")  # entries of an answer that OpenAI's have not; only those there are


def as_json(answer: Hypothesis, asked: Question) -> dict[str, Any]:
    """OpenAI's ``{"text"}``, and labels, probabilities and reply where the task asks for them."""
    return {"text": answer.transcript or ""} | _ours(answer)


def as_verbose_json(answer: Hypothesis, asked: Question) -> dict[str, Any]:
    """With duration (s), segments, words with times (s), the task's tags and the raw answer.

    Segments and words are those that ``timestamp_granularities`` asks for; without it segments, and
    words where there are any. ``language`` is null unless the client named it.
    """
    row: dict[str, Any] = {"task": "transcribe", "language": asked.language}
    row |= {"duration": answer.duration, "text": answer.transcript or ""}
    if "segment" in asked.granularities or not asked.granularities:
        row["segments"] = segments(answer, asked.temperature or 0.0)
    if answer.words is not None and ("word" in asked.granularities or not asked.granularities):
        row["words"] = [{"word": w.text, "start": w.start, "end": w.end} for w in answer.words]
    return row | {"tags": answer.task, "raw": answer.text} | _ours(answer)


def _ours(answer: Hypothesis) -> dict[str, Any]:
    return {name: value for name in OURS if (value := getattr(answer, name)) not in (None, {}, [])}


def segments(answer: Hypothesis, temperature: float = 0.0) -> list[dict[str, Any]]:
    """Stretches of the recording with their text: the cues of subtitles where there are word times, else the whole."""
    cues = text_formats.cues(answer) if answer.words else []
    rows = [(cue.start / 1000, cue.end / 1000, text_formats.join_words(cue.lines)) for cue in cues]
    if not rows and answer.transcript:
        rows = [(0.0, answer.duration, answer.transcript)]
    return [_segment(index, *row, temperature) for index, row in enumerate(rows)]


def _segment(index: int, start: float, end: float, text: str, temperature: float) -> dict[str, Any]:
    """A segment with every field of OpenAI's; those that are not known here are 0 or empty."""
    known = {"id": index, "start": start, "end": end, "text": text, "temperature": temperature}
    known["compression_ratio"] = compression_ratio(text)
    return known | {"seek": 0, "tokens": [], "avg_logprob": 0.0, "no_speech_prob": 0.0}


def compression_ratio(text: str) -> float:
    """How many times smaller zlib makes a text, as Whisper counts it; far above 2 in a loop."""
    data = text.encode("utf-8", "backslashreplace")
    return len(data) / len(zlib.compress(data))


def as_text(answer: Hypothesis, asked: Question) -> str:
    """The transcript, and a line for each label and the reply where the task asks for them."""
    lines = [answer.transcript] if answer.transcript is not None else []
    lines += [f"{name}: {label}" for name, label in answer.labels.items()]
    return "\n".join(lines + ([f"reply: {answer.reply}"] if answer.reply is not None else [])) + "\n"


def _subtitles(write: Callable[[Hypothesis], str]) -> Callable[[Hypothesis, Question], str]:
    def document(answer: Hypothesis, asked: Question) -> str:
        if not answer.words and "words" in answer.unread:
            why = "the model gave no readable word times; response_format json has what it wrote"
            raise Fault(422, why, "response_format", "no_word_times")
        return write(answer)

    return document


class Format(NamedTuple):
    """How a response is written."""

    write: Callable[[Hypothesis, Question], Any]
    media_type: str
    document: bool = False  # is made of word times: asks for them where the request names no task


FORMATS = {
    "json": Format(as_json, "application/json"),
    "verbose_json": Format(as_verbose_json, "application/json"),
    "text": Format(as_text, "text/plain; charset=utf-8"),
    "srt": Format(_subtitles(text_formats.srt), "application/x-subrip; charset=utf-8", document=True),
    "vtt": Format(_subtitles(text_formats.vtt), "text/vtt; charset=utf-8", document=True),
}
