"""The fields of a request → what is asked, in OpenAI's words and ours."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from wenet_osum import lookup, tasks
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.settings import ALIASES, Settings
from wenet_osum.serve.writing import FORMATS
from wenet_osum.tasks.base import Task

FIELDS = ("model", "task", "language", "response_format", "timestamp_granularities[]", "timestamp_granularities", "temperature", "stream")
IGNORED = ("prompt", "include[]", "include", "chunking_strategy")  # OpenAI's, without a meaning here; the answer's headers say so
GRANULARITIES = ("segment", "word")
TIMED_TASK, PLAIN_TASK = "srwt", "asr"
LONGEST_TASK = 200  # characters
MAX_TEMPERATURE = 2.0
COLDEST = 1e-6  # below it the most probable token takes all, and dividing by it would overflow
LANGUAGE = re.compile(r"[A-Za-z]{2,12}(-[A-Za-z]{2,4})?")


@dataclass(frozen=True)
class Question:
    """What a request asks of its recording."""

    task: Task
    format: str
    temperature: float | None = None  # None: the server's own
    language: str | None = None  # as the client named it
    granularities: tuple[str, ...] = ()  # of times, in verbose_json; none: the server's choice
    ignored: tuple[str, ...] = ()  # fields that were sent and have no meaning here


def read_question(fields: dict[str, list[str]], settings: Settings, labels: dict[str, list[str]] | None = None) -> Question:
    """Read the form's fields; ``labels`` are the model's own label sets. Raises Fault, with a suggestion for misspelled names."""
    for name in fields:
        if name not in FIELDS + IGNORED:
            raise Fault(400, lookup.unknown("field", name[:40], [*FIELDS, "file"]), name[:40], "unknown_field")
    check_model(_one(fields, "model"), settings)
    if _one(fields, "stream", "false").lower() not in ("false", "0", ""):
        raise Fault(400, "answers are not streamed; leave stream out", "stream", "unsupported_stream")
    form = _one(fields, "response_format", "json")
    if form not in FORMATS:
        raise Fault(400, lookup.unknown("response_format", form[:40], [*FORMATS]), "response_format", "unknown_format")
    ignored = tuple(name for name in IGNORED if name in fields)
    granularities = _granularities(fields)
    task = _task(fields, form, "word" in granularities, labels)
    return Question(task, form, _temperature(fields), _language(fields), granularities, ignored)


def check_model(name: str, settings: Settings) -> None:
    """Raise Fault when a client asks for a model that is not here."""
    if name and name not in (settings.name, *ALIASES):
        raise Fault(404, lookup.unknown("model", name[:80], [settings.name]), "model", "model_not_found")


def _one(fields: dict[str, list[str]], name: str, default: str = "") -> str:
    values = fields.get(name, [default])
    if len(values) > 1:
        raise Fault(400, f"{name} stands {len(values)} times; give it once", name, "repeated_field")
    return values[0].strip() or default


def _task(
    fields: dict[str, list[str]], form: str, by_word: bool, labels: dict[str, list[str]] | None
) -> Task:
    """The task asked for; without one asr, or srwt where word times are asked for or needed."""
    if by_word and form != "verbose_json":
        why = f"timestamp_granularities needs response_format verbose_json, not {form}"
        raise Fault(400, why, "timestamp_granularities", "no_word_times")
    asked = _one(fields, "task")
    if len(asked) > LONGEST_TASK:
        raise Fault(400, f"a task has at most {LONGEST_TASK} characters, this one {len(asked)}", "task", "unknown_task")
    try:
        default = TIMED_TASK if by_word or FORMATS[form].document else PLAIN_TASK
        task = tasks.parse(asked or default, labels or None)
    except ValueError as error:
        raise Fault(400, str(error), "task", "unknown_task") from None
    if (FORMATS[form].document or by_word) and not any(field.attribute == "words" for field in task.fields):
        why = f"{'words' if by_word else form} need word times, and task {asked} asks for none; add <ALIGN>"
        raise Fault(400, why, "task", "no_word_times")
    return task


def _granularities(fields: dict[str, list[str]]) -> tuple[str, ...]:
    asked = [value for name in ("timestamp_granularities[]", "timestamp_granularities") for value in fields.get(name, [])]
    for name in asked:
        if name not in GRANULARITIES:
            raise Fault(400, lookup.unknown("granularity", name[:40], [*GRANULARITIES]), "timestamp_granularities", "unknown_granularity")
    return tuple(asked)


def _temperature(fields: dict[str, list[str]]) -> float | None:
    text = _one(fields, "temperature")
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not 0 <= value <= MAX_TEMPERATURE:
        raise Fault(400, f"temperature {text[:40]!r} must be a number from 0 to {MAX_TEMPERATURE:g}", "temperature", "bad_temperature")
    if value is not None and value < COLDEST:
        return 0.0
    return value


def _language(fields: dict[str, list[str]]) -> str | None:
    name = _one(fields, "language")
    if name and not LANGUAGE.fullmatch(name):
        raise Fault(400, f"language {name[:40]!r} must be a code such as zh or en", "language", "bad_language")
    return name or None
