"""Lists and answers of UltraEval-Audio (https://github.com/OpenBMB/UltraEval-Audio).

A list is one of Hugging Face's data sets, or lines with ``WavPath`` and a column of references
that the data set's yaml names. A run writes several lines per utterance, by its number:

    {"type": "inference", "id": 0, "data": {"content": "{'content': 'hello'}"}}
    {"type": "post_process", "id": 0, "data": {"content": "hello"}}
    {"type": "eval", "id": 0, "data": {"pred": "hello", "ref": "hello", "wer%": 0.0}}

The answer is that of ``post_process``, the reference that of ``eval``; with the line ``error`` an
utterance has no answer. The data set is the folder of the file, ``res/MODEL/DATASET/TIME.jsonl``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wenet_osum import lookup
from wenet_osum.score.benchmarks._sets import (
    TRANSCRIPT,
    Answered,
    DataSet,
    Row,
    options_of,
    read_rows,
)

# The rule by which a label is found in a free answer (free_answers.py).
RULE = "begins"
# Types of lines whose content is an answer, the last one first.
ANSWERS = ("post_process", "inference")


def _table() -> dict[str, DataSet]:
    """Return the data sets that ask for a transcript or a label, by name."""
    sets = {}
    for field, lang, column, names in ROWS:
        for name in names.split():
            sets[name] = DataSet(name, field, lang, column)
    return sets


# Field, language, column of the reference, names.
ROWS = [
    (TRANSCRIPT, "en", "text", "librispeech-dev-clean librispeech-dev-other"),
    (TRANSCRIPT, "en", "text", "librispeech-test-clean librispeech-test-other"),
    (TRANSCRIPT, "en", "text", "tedlium-release1 tedlium-release2 tedlium-release3 gigaspeech"),
    (TRANSCRIPT, "en", "label", "peoples-speech"),
    (TRANSCRIPT, "en", "normalized_text", "voxpopuli-en"),
    (TRANSCRIPT, "en", "sentence", "cv-15-en"),
    (TRANSCRIPT, "en", "raw_transcription", "fleurs-en_us"),
    (TRANSCRIPT, "en", "Text", "sample-en"),
    (TRANSCRIPT, "zh", "text", "aishell-1 WenetSpeech-test-net WenetSpeech-test-meeting"),
    (TRANSCRIPT, "zh", "Text", "KeSpeech sample"),
    (TRANSCRIPT, "zh", "sentence", "cv-15-zh"),
    (TRANSCRIPT, "zh", "raw_transcription", "fleurs-zh"),
    (TRANSCRIPT, "fr", "sentence", "cv-15-fr"),
    (TRANSCRIPT, "fr", "raw_transcription", "fleurs-fr_fr"),
    (TRANSCRIPT, "de", "raw_transcription", "fleurs-de_de"),
    (TRANSCRIPT, "hi", "raw_transcription", "fleurs-hi_in"),
    (TRANSCRIPT, "ru", "raw_transcription", "fleurs-ru_ru"),
    (TRANSCRIPT, "fa", "raw_transcription", "fleurs-fa_ir"),
    (TRANSCRIPT, "ar", "raw_transcription", "fleurs-ar_eg"),
    (TRANSCRIPT, "ko", "raw_transcription", "fleurs-ko_kr"),
    (TRANSCRIPT, "nl", "Text", "mls_dutch"),
    (TRANSCRIPT, "fr", "Text", "mls_french"),
    (TRANSCRIPT, "de", "Text", "mls_german"),
    (TRANSCRIPT, "it", "Text", "mls_italian"),
    (TRANSCRIPT, "pl", "Text", "mls_polish"),
    (TRANSCRIPT, "pt", "Text", "mls_portuguese"),
    (TRANSCRIPT, "es", "Text", "mls_spanish"),
    ("emotion", "en", "Emotion", "meld-emo"),
    ("emotion", "en", "emotion", "ravdess-emo"),
    ("emotion", "en", "label", "TESS"),
    ("gender", "en", "Gender", "ravdess-gender voxceleb1 voxceleb2"),
    ("event", None, "label", "vocalsound"),
]
SETS = _table()


def read(path: str, name: str | None, dropped: Counter) -> Iterator[Answered]:
    """Yield the answers of a run; ``name`` is its data set, default: that of its folder.

    Raises ValueError for a data set whose answers no task of ours gives.
    """
    data_set = named(name or Path(path).resolve().parent.name)
    by_id = _by_id(path, dropped)
    unscored = 0
    for number in sorted(by_id):
        lines = by_id[number]
        # Where it failed, nothing tells its reference.
        if "ref" not in lines.get("eval", {}):
            unscored += 1
            continue
        reference = str(lines["eval"]["ref"])
        key = f"{data_set.name}-{number}"
        wav = _of_prompt(lines, "audio") or key
        question = _of_prompt(lines, "text")
        answer = _answer(lines)
        options = options_of(question)
        yield Answered(key, data_set, wav, reference.strip(), answer, options)
    if unscored:
        dropped["utterance that the run has not scored, so that its reference is unknown"] = (
            unscored
        )


def named(name: str) -> DataSet:
    """Return a data set by its name. Raises ValueError for an unknown one."""
    if name not in SETS:
        unknown = lookup.unknown("data set of UltraEval-Audio", name, sorted(SETS))
        raise ValueError(f"{unknown}; only those with transcripts or labels of ours can be read")
    return SETS[name]


def _by_id(path: str, dropped: Counter) -> dict[int, dict[str, Row]]:
    """Collect the lines of each utterance by their type; a run that went on has the last say."""
    found: dict[int, dict[str, Row]] = {}
    for _, row in read_rows(path, dropped):
        data = row.get("data")
        number = row.get("id")
        if not isinstance(data, dict) or not isinstance(number, int) or "type" not in row:
            dropped["line without type, id and data"] += 1
            continue
        lines = found.setdefault(number, {})
        lines[str(row["type"])] = data
    return found


def _answer(lines: dict[str, Row]) -> str | None:
    """Return the answer of an utterance, None where there is none."""
    for kind in ANSWERS:
        content = lines.get(kind, {}).get("content")
        if content is not None:
            return str(content).strip()
    return None


def _of_prompt(lines: dict[str, Row], kind: str) -> str:
    """Return the first text, or the path of the first audio, in an utterance's prompt; "" for
    none."""
    messages: Any = lines.get("prompt", {}).get("content")
    if not isinstance(messages, list):
        return ""
    for message in messages:
        for part in message.get("contents", []):
            if part.get("type") == kind:
                return str(part.get("value"))
    return ""
