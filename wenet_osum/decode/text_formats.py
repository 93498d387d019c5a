"""Answers as text: for reading, as JSON, as subtitles (SRT, WebVTT), for Praat (TextGrid) and for scoring tools (CTM).

Each format is one function from a Hypothesis to the text of a file; FORMATS says what it needs.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import PurePath
from typing import NamedTuple

from wenet_osum.records import Hypothesis, Word
from wenet_osum.tasks.base import join_words

LINE = 42  # columns of a subtitle line; a Chinese character takes two
LINES = 2  # of a cue
LONGEST_S, SHORTEST_S = 7.0, 1.0  # how long a cue stands; the shorter bound gives way to the next cue
PAUSE_S = 0.8  # a pause from which a new cue begins
SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’」』）)\]]*$")
SRT_MARKUP = str.maketrans({"<": "‹", ">": "›"})  # SRT has no escapes: players take <…> for markup and --> for times


class Cue(NamedTuple):
    """A subtitle."""

    start: int  # ms
    end: int  # ms
    lines: list[str]


def txt(answer: Hypothesis) -> str:
    """For reading: the transcript, then a line for each label, timed word, reply and remark."""
    if answer.error:
        return f"{answer.key}: failed: {answer.error}\n"
    lines = [f"{answer.key}: {answer.transcript or ''}".rstrip()]
    for name, label in answer.labels.items():
        prob = answer.probs.get(name, {}).get(label)
        lines.append(f"  {name}: {label}" + (f" ({100 * prob:.0f} %)" if prob is not None else ""))
    lines += [f"  {word.start:9.2f} {word.end:9.2f}  {word.text}" for word in answer.words or []]
    if answer.reply is not None:
        lines.append(f"  reply: {answer.reply}")
    lines += [f"  could not be read: {name}: {json.dumps(found, ensure_ascii=False)}" for name, found in answer.unread.items()]
    return "\n".join(lines + ([f"  flags: {', '.join(answer.flags)}"] if answer.flags else [])) + "\n"


def json_line(answer: Hypothesis) -> str:
    """One line of JSON with everything known, as recognize writes it."""
    return answer.to_json() + "\n"


def srt(answer: Hypothesis) -> str:
    """SubRip subtitles: numbered cues, times with a comma."""
    blocks = []
    for number, cue in enumerate(cues(answer), 1):
        text = "\n".join(cue.lines).translate(SRT_MARKUP).replace("{\\", "｛\\")  # {\ would begin a style override
        blocks.append(f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def vtt(answer: Hypothesis) -> str:
    """WebVTT subtitles (W3C): ``& < >`` are written as entities."""
    blocks = ["WEBVTT\n"]
    for cue in cues(answer):
        text = html.escape("\n".join(cue.lines), quote=False)
        blocks.append(f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def textgrid(answer: Hypothesis) -> str:
    """A Praat TextGrid in the long form: a tier of words without gaps, and a tier for each label."""
    words = in_order(answer.words or [])
    last = max(round(1000 * (answer.duration or 0.0)), words[-1][1] if words else 0, 1)
    tiers = {"words": _without_gaps(words, last)} | {name: [(0, last, label)] for name, label in answer.labels.items()}
    head = f'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = {_s(last)}\ntiers? <exists>\nsize = {len(tiers)}\nitem []:\n'
    return head + "".join(_tier(number, *tier, last) for number, tier in enumerate(tiers.items(), 1))


def ctm(answer: Hypothesis) -> str:
    """NIST CTM: recording, channel, start and duration in s, word. The recording is the file's name without folder and suffix."""
    name = re.sub(r"\s", "_", PurePath(answer.key).stem)
    rows = [(w.start, max(w.end - w.start, 0.0), re.sub(r"\s", "_", w.text)) for w in sorted(answer.words or [], key=lambda w: w.start)]
    return "".join(f"{name} 1 {start:.3f} {length:.3f} {word}\n" for start, length, word in rows if word)


class Format(NamedTuple):
    """What a format needs and how its files are called."""

    write: Callable[[Hypothesis], str]
    suffix: str
    timed: bool = False  # made of words with times
    document: bool = False  # a whole file each: two of them on one stream are none


FORMATS = {
    "txt": Format(txt, ".txt"),
    "json": Format(json_line, ".json"),
    "srt": Format(srt, ".srt", timed=True, document=True),
    "vtt": Format(vtt, ".vtt", timed=True, document=True),
    "textgrid": Format(textgrid, ".TextGrid", timed=True, document=True),
    "ctm": Format(ctm, ".ctm", timed=True),
}


def clock(ms: int, point: str) -> str:
    """``01:02:03.456`` with the decimal sign of the format; hours may take more than two digits."""
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{ms:03d}"


def in_order(words: list[Word]) -> list[tuple[int, int, str]]:
    """(start, end, text) in ms, none before the end of the one before and none empty: what formats ask for and models do not always keep."""
    ordered, last = [], 0
    for word in sorted(words, key=lambda word: word.start):
        start = max(round(1000 * word.start), last)
        last = max(round(1000 * word.end), start + 1)
        if text := " ".join(word.text.split()):
            ordered.append((start, last, text))
    return ordered


def cues(answer: Hypothesis) -> list[Cue]:
    """The words in subtitles of at most two lines; a new one begins after a sentence, at a pause, and when the old one is full."""
    groups: list[list[tuple[int, int, str]]] = []
    for word in in_order(answer.words or []):
        if not groups or _closed(groups[-1], word):
            groups.append([])
        groups[-1].append(word)
    ends = [group[0][0] for group in groups[1:]] + [max(round(1000 * (answer.duration or 0.0)), groups[-1][-1][1])] if groups else []
    found = []
    for group, latest in zip(groups, ends, strict=True):
        shown = max(group[-1][1], min(group[0][0] + round(1000 * SHORTEST_S), latest))
        found.append(Cue(group[0][0], shown, wrap([text for _, _, text in group])))
    return found


def _closed(group: list[tuple[int, int, str]], word: tuple[int, int, str]) -> bool:
    """Whether a cue of these words ends before the next word."""
    first, last = group[0], group[-1]
    if word[0] - last[1] >= 1000 * PAUSE_S or word[1] - first[0] > 1000 * LONGEST_S:
        return True
    if SENTENCE_END.search(last[2]) and last[1] - first[0] >= 1000 * SHORTEST_S:
        return True
    return len(wrap([text for _, _, text in [*group, word]])) > LINES


def wrap(texts: list[str]) -> list[str]:
    """Words in lines of at most 42 columns; a longer word has a line to itself."""
    lines: list[list[str]] = [[]]
    for text in texts:
        if lines[-1] and columns(join_words([*lines[-1], text])) > LINE:
            lines.append([])
        lines[-1].append(text)
    return [join_words(line) for line in lines]


def columns(text: str) -> int:
    """Width on a fixed grid, where a Chinese character takes two columns."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _without_gaps(words: list[tuple[int, int, str]], last: int) -> list[tuple[int, int, str]]:
    """Intervals from 0 to ``last`` ms; what lies between words is empty."""
    intervals, at = [], 0
    for start, end, text in [*words, (last, last, "")]:
        intervals += [(at, start, "")] if start > at else []
        intervals += [(start, end, text)] if end > start else []
        at = end
    return intervals


def _tier(number: int, name: str, intervals: list[tuple[int, int, str]], last: int) -> str:
    lines = [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}", "        xmin = 0"]
    lines += [f"        xmax = {_s(last)}", f"        intervals: size = {len(intervals)}"]
    for i, (start, end, text) in enumerate(intervals, 1):
        lines += [f"        intervals [{i}]:", f"            xmin = {_s(start)}", f"            xmax = {_s(end)}"]
        lines.append(f"            text = {_quoted(text)}")
    return "\n".join(lines) + "\n"


def _s(ms: int) -> str:
    return f"{ms / 1000:.3f}"


def _quoted(text: str) -> str:
    """A Praat string, in which a quotation mark is doubled."""
    return '"' + text.replace('"', '""') + '"'
