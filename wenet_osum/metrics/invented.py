"""Words invented where nobody speaks: answered words per minute of recordings without speech.

Scored beside the transcript's own metric where a reference is an empty transcript, over these
recordings alone. Words are counted as in the error rates: per word, in Chinese and Japanese per
character. A missing answer has invented nothing. A recording whose duration neither the answer nor
the reference knows is left out and counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wenet_osum.records import Metric
from wenet_osum.score.metric_sums import MetricSums, Options, Pair, share
from wenet_osum.score.normalize import language, prepare
from wenet_osum.tasks import Field

INVENTED = Metric(
    "invented_words",
    "invented words",
    unit="words/min",
    lower_is_better=True,
    scale=None,
    counts=("with_words", "without_duration"),
    faults=("with_words", "without_duration"),
)
# Columns of the counts per recording.
WORDS, MINUTES = range(2)


def applies(field: Field, pairs: list[Pair]) -> bool:
    """Tell whether there is a recording without speech whose duration is known."""
    if field.kind != "transcript":
        return False
    silent = _without_speech(field, pairs)
    return any(map(_seconds, silent))


def compute(field: Field, pairs: list[Pair], options: Options) -> list[MetricSums]:
    """Compute the words per minute of all recordings without speech together."""
    silent = _without_speech(field, pairs)
    timed = list(filter(_seconds, silent))
    rows = []
    keys = []
    for pair in timed:
        words = _words(pair, options)
        minutes = _seconds(pair) / 60
        rows.append((words, minutes))
        keys.append(pair.reference.key)
    columns = np.array(rows, dtype=float)
    has_words = columns[:, WORDS] > 0
    minutes = columns[:, MINUTES].sum()
    detail: dict[str, Any] = {
        "with_words": int(has_words.sum()),
        "without_duration": len(silent) - len(timed),
        "minutes": round(float(minutes), 3),
        "normalizer": options.normalizer,
    }
    rate = share(WORDS, MINUTES, scale=1.0)
    sums = MetricSums(
        INVENTED,
        columns,
        rate,
        len(timed),
        detail=detail,
        keys=keys,
    )
    return [sums]


def _without_speech(field: Field, pairs: list[Pair]) -> list[Pair]:
    """Return the pairs whose reference says that nothing is spoken."""
    found = []
    for pair in pairs:
        text = field.spoken(pair.reference)
        if not text.strip():
            found.append(pair)
    return found


def _seconds(pair: Pair) -> float:
    """Return the duration of a recording, s; 0 where it is not known."""
    if pair.answered and pair.hypothesis.duration:
        return pair.hypothesis.duration
    reference = pair.reference
    if reference.duration:
        return reference.duration
    if reference.start is not None and reference.end is not None:
        return reference.end - reference.start
    return 0.0


def _words(pair: Pair, options: Options) -> int:
    """Count the words of an answer."""
    text = ""
    if pair.answered:
        text = pair.hypothesis.transcript or ""
    # An empty transcript does not tell how its language is written; the answer's own script does.
    lang = language(pair.reference.lang, text)
    words = prepare(text, lang, options.normalizer)
    return len(words)
