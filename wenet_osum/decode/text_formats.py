"""Answers as text: for reading, as JSON, as subtitles, for Praat and for scoring tools.

Subtitles are SRT or WebVTT, Praat reads TextGrid, scoring tools read CTM. Each format is one
function from a Hypothesis to the text of a file; FORMATS says what it needs.
"""

from __future__ import annotations

import html
import itertools
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import PurePath
from typing import NamedTuple

from wenet_osum.records import Hypothesis, Word
from wenet_osum.tasks.base import join_words

# Columns of a subtitle line; a Chinese character takes two.
LINE = 42
# Lines of a cue.
LINES = 2
# How long a cue stands, in ms. The shorter bound gives way to the next cue.
LONGEST_MS, SHORTEST_MS = 7000, 1000
# The pause from which on a new cue begins, in ms.
PAUSE_MS = 800
SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’」』）)\]]*$")
# SRT has no escapes: players take <…> for markup and --> for times.
SRT_MARKUP = str.maketrans({"<": "‹", ">": "›"})
# Hours, minutes, seconds, decimal sign, milliseconds.
CLOCK = "{:02d}:{:02d}:{:02d}{}{:03d}"

# Praat's TextGrid: a head, then tiers, each followed by its intervals.
GRID = """\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = {end}
tiers? <exists>
size = {size}
item []:
"""
TIER = """\
    item [{number}]:
        class = "IntervalTier"
        name = {name}
        xmin = 0
        xmax = {end}
        intervals: size = {size}
"""
INTERVAL = """\
        intervals [{number}]:
            xmin = {start}
            xmax = {end}
            text = {text}
"""


class Interval(NamedTuple):
    """A text that stands from ``start`` to ``end``, in ms."""

    start: int
    end: int
    text: str


class Cue(NamedTuple):
    """A subtitle that stands from ``start`` to ``end``, in ms."""

    start: int
    end: int
    lines: list[str]


def txt(answer: Hypothesis) -> str:
    """Write an answer for reading.

    The transcript comes first, then one line for each label, timed word, reply and remark.
    """
    if answer.error:
        return f"{answer.key}: failed: {answer.error}\n"
    transcript = answer.transcript or ""
    first = f"{answer.key}: {transcript}"
    lines = [first.rstrip()]

    # The parts of the answer.
    for name, label in answer.labels.items():
        percent = _percent(answer, name, label)
        lines.append(f"  {name}: {label}{percent}")
    for word in answer.words or []:
        times = f"{word.start:9.2f} {word.end:9.2f}"
        lines.append(f"  {times}  {word.text}")
    texts = answer.free_texts()
    for name, text in texts.items():
        line = f"  {name}: {text}"
        lines.append(line)

    # What a reader should know of it.
    for name, found in answer.unread.items():
        quoted = json.dumps(found, ensure_ascii=False)
        lines.append(f"  could not be read: {name}: {quoted}")
    if answer.flags:
        flags = ", ".join(answer.flags)
        lines.append(f"  flags: {flags}")
    return "\n".join(lines) + "\n"


def _percent(answer: Hypothesis, name: str, label: str) -> str:
    """Return the probability of a label in parentheses; nothing where it is not known."""
    probs = answer.probs.get(name, {})
    prob = probs.get(label)
    if prob is None:
        return ""
    return f" ({100 * prob:.0f} %)"


def json_line(answer: Hypothesis) -> str:
    """Write everything known as one line of JSON, as the command recognize does."""
    return answer.to_json() + "\n"


def srt(answer: Hypothesis) -> str:
    """Write SubRip subtitles: numbered cues, times with a comma."""
    blocks = []
    for number, cue in enumerate(cues(answer), 1):
        text = "\n".join(cue.lines)
        text = text.translate(SRT_MARKUP)
        # A brace and a backslash would begin a style override.
        text = text.replace("{\\", "｛\\")
        times = _times(cue, ",")
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def vtt(answer: Hypothesis) -> str:
    """Write WebVTT subtitles (W3C), in which ``& < >`` are entities."""
    blocks = ["WEBVTT\n"]
    for cue in cues(answer):
        text = "\n".join(cue.lines)
        text = html.escape(text, quote=False)
        times = _times(cue, ".")
        blocks.append(f"{times}\n{text}\n")
    return "\n".join(blocks)


def textgrid(answer: Hypothesis) -> str:
    """Write a Praat TextGrid in the long form.

    It has a tier of words without gaps, and a tier for each label.
    """
    words = in_order(answer.words or [])
    last = max(_duration_ms(answer), 1)
    if words:
        last = max(last, words[-1].end)

    tiers = {"words": _without_gaps(words, last)}
    for name, label in answer.labels.items():
        tiers[name] = [Interval(0, last, label)]

    text = GRID.format(end=_s(last), size=len(tiers))
    for number, (name, intervals) in enumerate(tiers.items(), 1):
        text += _tier(number, name, intervals, last)
    return text


def ctm(answer: Hypothesis) -> str:
    """Write NIST CTM: recording, channel, start and duration in s, word.

    The recording is the file's name without folder and suffix. White space would divide fields, and
    becomes ``_``.
    """
    name = PurePath(answer.key).stem
    recording = re.sub(r"\s", "_", name)
    lines = []
    for word in sorted(answer.words or [], key=_start):
        text = re.sub(r"\s", "_", word.text)
        if not text:
            continue
        length = max(word.end - word.start, 0.0)
        times = f"{word.start:.3f} {length:.3f}"
        lines.append(f"{recording} 1 {times} {text}\n")
    return "".join(lines)


class Format(NamedTuple):
    """The needs of a format and the names of its files.

    ``timed`` formats are made of words with times. A ``document`` is a whole file: two of them on
    one stream are none.
    """

    write: Callable[[Hypothesis], str]
    suffix: str
    timed: bool = False
    document: bool = False


FORMATS = {
    "txt": Format(txt, ".txt"),
    "json": Format(json_line, ".json"),
    "srt": Format(srt, ".srt", timed=True, document=True),
    "vtt": Format(vtt, ".vtt", timed=True, document=True),
    "textgrid": Format(textgrid, ".TextGrid", timed=True, document=True),
    "ctm": Format(ctm, ".ctm", timed=True),
}


def _times(cue: Cue, point: str) -> str:
    start = clock(cue.start, point)
    end = clock(cue.end, point)
    return f"{start} --> {end}"


def clock(ms: int, point: str) -> str:
    """Return ``01:02:03.456`` with the decimal sign of the format.

    Hours may take more than two digits.
    """
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return CLOCK.format(hours, minutes, seconds, point, ms)


def in_order(words: list[Word]) -> list[Interval]:
    """Return the words by start, none before the end of the one before, and none empty.

    Formats ask for this, and models do not always keep it: a word ends where the next one begins at
    the latest, so that one that is far too long does not push all others behind it.
    """
    ordered, last = [], 0
    by_start = sorted(words, key=_start)
    following = by_start[1:]
    for word, after in itertools.zip_longest(by_start, following):
        start = max(_ms(word.start), last)
        end = _ms(word.end)
        if after:
            limit = _ms(after.start)
            if limit > start:
                end = min(end, limit)
        last = max(end, start + 1)
        text = " ".join(word.text.split())
        if text:
            ordered.append(Interval(start, last, text))
    return ordered


def _start(word: Word) -> float:
    return word.start


def _duration_ms(answer: Hypothesis) -> int:
    return _ms(answer.duration or 0.0)


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def cues(answer: Hypothesis) -> list[Cue]:
    """Put the words into subtitles of at most two lines.

    A new one begins after a sentence, at a pause, and when the old one is full.
    """
    groups: list[list[Interval]] = []
    for word in in_order(answer.words or []):
        if not groups or _closed(groups[-1], word):
            groups.append([])
        groups[-1].append(word)

    found = []
    followers = [*groups[1:], None]
    for group, following in zip(groups, followers, strict=False):
        start = group[0].start
        end = group[-1].end

        # A short cue stands a second, unless the next cue or the end of the audio comes first.
        if following:
            latest = following[0].start
        else:
            latest = max(_duration_ms(answer), end)
        shown = min(start + SHORTEST_MS, latest)
        end = max(end, shown)

        texts = [word.text for word in group]
        found.append(Cue(start, end, wrap(texts)))
    return found


def _closed(group: list[Interval], word: Interval) -> bool:
    """Return whether a cue of these words ends before the next word."""
    first, last = group[0], group[-1]

    # At a pause, and before it stands too long.
    pause = word.start - last.end
    longer = word.end - first.start
    if pause >= PAUSE_MS or longer > LONGEST_MS:
        return True

    # After a sentence, unless the cue is still short.
    shown = last.end - first.start
    if shown >= SHORTEST_MS and SENTENCE_END.search(last.text):
        return True

    # Where there is no room left.
    texts = [part.text for part in group]
    lines = wrap([*texts, word.text])
    return len(lines) > LINES


def wrap(texts: list[str]) -> list[str]:
    """Set words in lines of at most 42 columns; a longer word has a line to itself."""
    lines: list[list[str]] = [[]]
    for text in texts:
        last = lines[-1]
        longer = join_words([*last, text])
        if last and columns(longer) > LINE:
            last = []
            lines.append(last)
        last.append(text)
    return [join_words(line) for line in lines]


def columns(text: str) -> int:
    """Return the width on a fixed grid, where a Chinese character takes two columns."""
    width = len(text)
    for char in text:
        if unicodedata.east_asian_width(char) in "WF":
            width += 1
    return width


def _without_gaps(words: list[Interval], last: int) -> list[Interval]:
    """Return intervals from 0 to ``last`` ms; those between words are empty."""
    intervals, at = [], 0
    for word in words:
        if word.start > at:
            intervals.append(Interval(at, word.start, ""))
        intervals.append(word)
        at = word.end
    if last > at:
        intervals.append(Interval(at, last, ""))
    return intervals


def _tier(number: int, name: str, intervals: list[Interval], last: int) -> str:
    """Return one tier of a TextGrid that ends at ``last`` ms."""
    text = TIER.format(
        number=number,
        name=_quoted(name),
        end=_s(last),
        size=len(intervals),
    )
    for i, interval in enumerate(intervals, 1):
        text += INTERVAL.format(
            number=i,
            start=_s(interval.start),
            end=_s(interval.end),
            text=_quoted(interval.text),
        )
    return text


def _s(ms: int) -> str:
    return f"{ms / 1000:.3f}"


def _quoted(text: str) -> str:
    """Return a Praat string, in which a quotation mark is doubled."""
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
