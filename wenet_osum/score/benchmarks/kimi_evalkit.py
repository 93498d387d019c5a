"""Lists and answers of Kimi-Audio-Evalkit (https://github.com/MoonshotAI/Kimi-Audio-Evalkit).

    {"index": 0, "audio_path": "a.mp3", "question": "Which emotion? (A) neutral (B) joy",
     "answer": "joy", "subset": "emotion", "prediction": "(B) joy", "real_prompt": "…"}

A list is such a line without ``prediction``, which is the text ``null`` where a model gave no
answer. A line names its data set by ``subset`` alone. Transcripts are compared without
``<|special tokens|>``, Chinese ones without spaces. Labels are judged by a language model there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from wenet_osum.score.benchmarks._sets import (
    TRANSCRIPT,
    Answered,
    DataSet,
    Row,
    options_of,
    read_rows,
)

# The rule by which a label is found in a free answer (free_answers.py).
RULE = "named"
NO_ANSWER = "null"
SPECIAL = re.compile(r"<\|.*?\|>")

# Subset as the lines name it → data set.
SETS = {
    "test_clean": DataSet("librispeech_test_clean", TRANSCRIPT, "en"),
    "test_other": DataSet("librispeech_test_other", TRANSCRIPT, "en"),
    "fleurs_en_us": DataSet("fleurs_en", TRANSCRIPT, "en"),
    "fleurs_cmn_hans_cn": DataSet("fleurs_zh", TRANSCRIPT, "zh"),
    "aishell1_test": DataSet("aishell1_test", TRANSCRIPT, "zh"),
    "aishell2_test": DataSet("aishell2_test", TRANSCRIPT, "zh"),
    "test_net": DataSet("wenetspeech_test_net", TRANSCRIPT, "zh"),
    "test_meeting": DataSet("wenetspeech_test_meeting", TRANSCRIPT, "zh"),
    "emotion": DataSet("meld", "emotion", "en"),
    "voice_classification": DataSet("vocalsound", "event"),
    # The lines of Nonspeech7k name its source.
    "https://freesound.org/": DataSet("nonspeech7k", "event"),
    # Scenes are no vocal events: these need a label set of their own.
    "acoustic_scene_classification": DataSet("tut2017", "event"),
    "Test": DataSet("cochlscene_test", "event"),
    "Val": DataSet("cochlscene_val", "event"),
}
NEEDED = ("index", "audio_path", "answer", "subset")


def read(path: str, name: str | None, dropped: Counter) -> Iterator[Answered]:
    """Yield the answers of a file; ``name`` is a subset to take every line for.

    Raises ValueError for a file without answers.
    """
    answered = False
    for number, row in read_rows(path, dropped):
        subset = name or str(row.get("subset"))
        fault = fault_of(row, subset)
        if fault:
            dropped[fault] += 1
            continue
        answered = answered or "prediction" in row
        prediction = row.get("prediction")
        data_set = SETS[subset]
        answer = None
        if prediction not in (None, NO_ANSWER):
            answer = compared(str(prediction), data_set)
        question = str(row.get("question", ""))
        yield Answered(
            key_of(row, data_set, number),
            data_set,
            str(row["audio_path"]),
            compared(str(row["answer"]), data_set),
            answer,
            options_of(question),
        )
    if not answered:
        raise ValueError(f"{path}: no line has a 'prediction'; give the file of answers")


def fault_of(row: Row, subset: str) -> str:
    """Say what keeps a line from being read; empty where nothing does."""
    for name in NEEDED:
        if name not in row:
            return f"line without {name!r}"
    if subset not in SETS:
        return f"subset {subset!r} asks for what no task of ours answers"
    if isinstance(row["audio_path"], list):
        return "question about several recordings"
    return ""


def key_of(row: Row, data_set: DataSet, number: int) -> str:
    """Return the key of a line: the one it has, else its data set and index."""
    index = row.get("index", number)
    return str(row.get("key") or f"{data_set.name}-{index}")


def compared(text: str, data_set: DataSet) -> str:
    """Return a text as the toolkit compares it: no special tokens, no spaces in Chinese."""
    if data_set.field != TRANSCRIPT:
        return text.strip()
    words = SPECIAL.sub(" ", text).split()
    separator = "" if data_set.lang == "zh" else " "
    return separator.join(words)
