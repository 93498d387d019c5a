"""Lists of UltraEval-Audio: lines with ``WavPath`` and the columns of a data set.

    {"WavPath": "a.wav", "Transcript": "it rains"}

A file named like one of its data sets (``ravdess-emo.jsonl``; score/benchmarks/ultraeval.py) has
its column of references; in any other the transcript is in one of ``TEXTS``, and columns named like
our fields are those fields. A data set that Hugging Face's library saved is read by ``hf``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.dataset.drop import note
from wenet_osum.dataset.formats._fields import SEGMENT, without_conversations
from wenet_osum.dataset.manifest import from_row, reason_of, write_lines
from wenet_osum.dataset.scan import located
from wenet_osum.records import OWN_FIELDS, Utterance
from wenet_osum.score.benchmarks._sets import TRANSCRIPT, Row, read_rows
from wenet_osum.score.benchmarks.ultraeval import SETS

FORM = "a list of UltraEval-Audio"
WAV = "WavPath"
TEXTS = ("Transcript", "text", "Text", "sentence", "raw_transcription", "transcription")


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the utterances of a list; a line without ``key`` is named by its number."""
    stem = Path(path).stem
    for number, line in read_rows(path, dropped):
        # Answers number the utterances from 0.
        name = f"{stem}-{number - 1}"
        try:
            row = _row(line, stem)
            utterance = from_row({"key": name, **row})
            yield from located([utterance], path)
        except ValueError as error:
            note(dropped, name, f"ultraeval: {reason_of(error)}")


def _row(line: Row, stem: str) -> Row:
    """Return the row of a manifest. Raises ValueError."""
    row = dict(line)
    row["wav"] = row.pop(WAV, None)
    known = SETS.get(stem)
    if known is None:
        return _by_columns(row)
    if known.column not in row:
        raise ValueError(f"line without the column {known.column}")
    reference = row.pop(known.column)
    name = "txt"
    if known.field != TRANSCRIPT:
        field = tasks.label_fields()[known.field]
        name = field.attribute
    return {**row, "lang": known.lang, name: reference}


def _by_columns(row: Row) -> Row:
    """Take the transcript from the first column that holds one, labels in whatever case."""
    labels = {*tasks.label_names(), *OWN_FIELDS}
    found = {}
    for name, value in row.items():
        small = name.lower()
        ours = small if small in labels else name
        found[ours] = value
    for name in TEXTS:
        if name in found and "txt" not in found:
            found["txt"] = found.pop(name)
    return found


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a list for the toolkit; the data set's yaml names the column of references."""
    lines = _lines(utterances, lost)
    return write_lines(path, lines)


def _lines(utterances: Iterable[Utterance], lost: Counter) -> Iterator[str]:
    for utterance in without_conversations(utterances, FORM, lost):
        if (utterance.start, utterance.end) != (None, None):
            lost[SEGMENT] += 1
        row = utterance.to_dict()
        wav = row.pop("wav")
        line = {WAV: wav, **row}
        yield json.dumps(line, ensure_ascii=False)
