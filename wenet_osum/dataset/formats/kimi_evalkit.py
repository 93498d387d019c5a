"""Lists of Kimi-Audio-Evalkit, whose lines are told in score/benchmarks/kimi_evalkit.py.

The answer of a line becomes the transcript or the label that its data set asks for, in the data
set's spelling; the question is kept under ``extra``. What no task of ours answers is counted.
``write`` keeps our own fields beside those of a line, which the toolkit passes on to its answers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from wenet_osum import tasks
from wenet_osum.dataset.drop import note
from wenet_osum.dataset.formats._fields import SEGMENT, without_conversations
from wenet_osum.dataset.manifest import from_row, reason_of, write_lines
from wenet_osum.dataset.scan import located
from wenet_osum.records import Utterance
from wenet_osum.score.benchmarks._sets import TRANSCRIPT, Row, read_rows
from wenet_osum.score.benchmarks.kimi_evalkit import SETS, compared, fault_of, key_of

FORM = "a list of Kimi-Audio-Evalkit"
# Columns that become fields of ours; ``utterance`` is the transcript of MELD's lines.
TAKEN = ("index", "audio_path", "answer", "task_type", "utterance", "prediction", "real_prompt")
OURS = "wenet_osum"


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the utterances of a list."""
    for number, line in read_rows(path, dropped):
        try:
            utterance = from_row(_row(line, number))
            yield from located([utterance], path)
        except ValueError as error:
            note(dropped, f"line {number}", f"kimi_evalkit: {reason_of(error)}")


def _row(line: Row, number: int) -> Row:
    """Return the row of a manifest. Raises ValueError."""
    row = {name: value for name, value in line.items() if name not in TAKEN}
    row["wav"] = line.get("audio_path")
    if line.get("subset") == OURS:
        for name in ("subset", "question"):
            row.pop(name, None)
        return row

    subset = str(line.get("subset"))
    fault = fault_of(line, subset)
    if fault:
        raise ValueError(fault)
    data_set = SETS[subset]
    row["key"] = key_of(line, data_set, number)
    row["lang"] = data_set.lang
    if "utterance" in line:
        row["txt"] = line["utterance"]
    answer = compared(str(line["answer"]), data_set)
    if data_set.field == TRANSCRIPT:
        row["txt"] = answer
    else:
        field = tasks.label_fields()[data_set.field]
        row[field.attribute] = answer
    return row


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a list for the toolkit; its answer is the transcript, or the target of the task."""
    lines = _lines(utterances, lost)
    return write_lines(path, lines)


def _lines(utterances: Iterable[Utterance], lost: Counter) -> Iterator[str]:
    single = without_conversations(utterances, FORM, lost)
    for index, utterance in enumerate(single):
        task = tasks.parse(utterance.task or "asr")
        answer = utterance.txt or ""
        if task.present(utterance):
            answer = task.write(utterance)
        prompts = task.prompts("en" if utterance.lang == "en" else "zh")
        if (utterance.start, utterance.end) != (None, None):
            lost[SEGMENT] += 1
        row = utterance.to_dict()
        row["audio_path"] = row.pop("wav")
        line = {
            "index": index,
            "question": utterance.prompt or prompts[0],
            "answer": answer,
            "subset": OURS,
            "task_type": "understanding",
        }
        yield json.dumps(line | row, ensure_ascii=False)
