"""Read what a request asks from its form fields, in OpenAI's words and ours."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from wenet_osum import lookup, tasks
from wenet_osum.context import HOTWORDS, NOTHING, PREVIOUS, Context, end_of, words_of
from wenet_osum.serve.fault import Fault
from wenet_osum.serve.question import Question
from wenet_osum.serve.settings import Settings
from wenet_osum.serve.writing import FORMATS
from wenet_osum.tasks.base import Task

FIELDS = (
    "model",
    "task",
    "language",
    "response_format",
    "timestamp_granularities[]",
    "timestamp_granularities",
    "temperature",
    "stream",
    "hotwords",
    "hotwords[]",
    "keywords[]",
    "prompt",
)
# OpenAI's fields without a meaning here, whatever brackets follow; the answer's headers say so.
IGNORED = (
    "include",
    "chunking_strategy",
    "languages",
    "known_speaker_names",
    "known_speaker_references",
)
GRANULARITIES = ("segment", "word")
TIMED_TASK, PLAIN_TASK = "srwt", "asr"
LONGEST_TASK = 200  # characters
LONGEST_CONTEXT = 4000  # characters
MAX_TEMPERATURE = 2.0
# Below this temperature the most probable token takes all, and dividing by it would overflow.
COLDEST = 1e-6
LANGUAGE = re.compile(r"[A-Za-z]{2,12}(-[A-Za-z]{2,4})?")


def read_question(
    fields: dict[str, list[str]],
    settings: Settings,
    labels: dict[str, list[str]] | None = None,
    slots: Collection[str] = (),
) -> Question:
    """Read the form's fields; ``labels`` are the model's own label sets, ``slots`` what its prompt
    can tell of a recording.

    Raises Fault, with a suggestion for misspelled names.
    """
    _check_names(fields)
    model = model_of(fields, settings)
    stream = read_flag(fields, "stream", "unsupported_stream")
    form = _one(fields, "response_format", "json")
    if form not in FORMATS:
        fault = lookup.unknown("response_format", form[:40], [*FORMATS])
        raise Fault(400, fault, "response_format", "unknown_format")
    if stream and form != "json":
        rule = f"a streamed answer has response_format json, not {form}"
        raise Fault(400, rule, "response_format", "unsupported_stream")

    granularities = _granularities(fields)
    by_word = "word" in granularities
    task = _task(fields, form, by_word, labels)
    return Question(
        task=task,
        format=form,
        temperature=_temperature(fields),
        language=_language(fields),
        granularities=granularities,
        stream=stream,
        ignored=_ignored(fields, slots),
        context=_context(fields, slots),
        facts=_facts(fields, task),
        model=model,
    )


def _check_names(fields: dict[str, list[str]]) -> None:
    """Raise Fault for a field that nobody knows."""
    facts = tasks.facts()
    for name in fields:
        if name not in (*FIELDS, *facts) and _bare(name) not in IGNORED:
            short = name[:40]
            fault = lookup.unknown("field", short, [*FIELDS, *facts, "file"])
            raise Fault(400, fault, short, "unknown_field")


def _bare(name: str) -> str:
    """Return a field's name without brackets, by which clients write lists and tables."""
    return name.partition("[")[0]


def _ignored(fields: dict[str, list[str]], slots: Collection[str]) -> tuple[str, ...]:
    """Name the fields that were sent and have no effect, as ``IGNORED`` writes them."""
    ignored = []
    if "prompt" in fields and not slots:
        ignored.append("prompt")
    if "keywords[]" in fields and HOTWORDS not in slots:
        ignored.append("keywords[]")
    sent = [_bare(name) for name in fields]
    ignored += [name for name in IGNORED if name in sent]
    return tuple(ignored)


def _facts(fields: dict[str, list[str]], task: Task) -> tuple[tuple[str, str], ...]:
    """Return what the task is told of the recording. Raises Fault where another task is."""
    found = []
    for name in tasks.facts():
        value = _limited(fields, name)
        if value and name not in task.facts:
            why = f"task {task.tags} is told no {name}; leave it out, or ask another task"
            raise Fault(400, why, name, "unused_field")
        if value:
            found.append((name, value))
    return tuple(found)


def _context(fields: dict[str, list[str]], slots: Collection[str]) -> Context:
    """Return what is known of the recording. Raises Fault for hotwords where the model takes none,
    and for a text that is too long.

    OpenAI's ``prompt`` is the text before; a model that is told hotwords alone takes it as such.
    """
    words = _hotwords(fields, slots)
    before = _limited(fields, "prompt")

    if PREVIOUS in slots:
        hotwords = words_of(words)
        return Context(tuple(hotwords), end_of(before))
    if not slots:
        return NOTHING
    hotwords = words_of(f"{words},{before}")
    return Context(tuple(hotwords))


def _hotwords(fields: dict[str, list[str]], slots: Collection[str]) -> str:
    """Return words that may occur, with commas between them.

    OpenAI's ``keywords[]`` are such words, for models that take them. Raises Fault for ours where
    the model takes none.
    """
    given = [_one(fields, "hotwords"), *fields.get("hotwords[]", [])]
    words = [text for text in given if text]
    if HOTWORDS in slots:
        words += fields.get("keywords[]", [])
    elif words:
        why = "this model was not trained with hotwords; leave them out"
        raise Fault(400, why, "hotwords", "no_hotwords")
    text = ",".join(words)
    return _limited({"hotwords": [text]}, "hotwords")


def _limited(fields: dict[str, list[str]], name: str) -> str:
    """Return a text of the form. Raises Fault for one that is too long."""
    text = _one(fields, name)
    if len(text) > LONGEST_CONTEXT:
        rule = f"{name} has at most {LONGEST_CONTEXT} characters"
        raise Fault(400, f"{rule}, this one {len(text)}", name, "too_long")
    return text


def model_of(fields: dict[str, list[str]], settings: Settings) -> str:
    """Return the name of the model that is asked. Raises Fault for one that is not here."""
    name = _one(fields, "model")
    return check_model(name, settings)


def check_model(name: str, settings: Settings) -> str:
    """Return the model that a client means by a name. Raises Fault for one that is not here."""
    found = settings.model_named(name)
    if found is None:
        fault = lookup.unknown("model", name[:80], [settings.name, *settings.loras])
        raise Fault(404, fault, "model", "model_not_found")
    return found


def _one(fields: dict[str, list[str]], name: str, default: str = "") -> str:
    """Return the value of a field that may stand once. Raises Fault where it stands twice."""
    values = fields.get(name) or [default]
    if len(values) > 1:
        fault = f"{name} stands {len(values)} times; give it once"
        raise Fault(400, fault, name, "repeated_field")
    return values[0].strip() or default


def read_flag(fields: dict[str, list[str]], name: str, code: str) -> bool:
    """Return whether a field is true. Raises Fault for what is neither true nor false."""
    text = _one(fields, name, "false")
    word = text.lower()
    if word in ("true", "1"):
        return True
    if word in ("false", "0"):
        return False
    short = word[:40]
    raise Fault(400, f"{name} {short!r} must be true or false", name, code)


def _task(
    fields: dict[str, list[str]], form: str, by_word: bool, labels: dict[str, list[str]] | None
) -> Task:
    """Return the task asked for; without one asr, or srwt where word times are wanted.

    Raises Fault for an unknown task, and for one without the word times that are wanted.
    """
    if by_word and form != "verbose_json":
        why = f"timestamp_granularities needs response_format verbose_json, not {form}"
        raise Fault(400, why, "timestamp_granularities", "no_word_times")
    asked = _one(fields, "task")
    if len(asked) > LONGEST_TASK:
        rule = f"a task has at most {LONGEST_TASK} characters"
        raise Fault(400, f"{rule}, this one {len(asked)}", "task", "unknown_task")

    needs_times = by_word or FORMATS[form].document
    default = TIMED_TASK if needs_times else PLAIN_TASK
    try:
        task = tasks.parse(asked or default, labels or None)
    except ValueError as error:
        raise Fault(400, str(error), "task", "unknown_task") from None

    has_times = any(field.attribute == "words" for field in task.fields)
    if needs_times and not has_times:
        wanted = "words" if by_word else form
        why = f"{wanted} need word times, and task {asked} asks for none; add <ALIGN>"
        raise Fault(400, why, "task", "no_word_times")
    return task


def _granularities(fields: dict[str, list[str]]) -> tuple[str, ...]:
    """Return the granularities asked for. Raises Fault for an unknown one."""
    asked = []
    # Clients of different age write the field's name in two ways.
    for field in ("timestamp_granularities[]", "timestamp_granularities"):
        asked += fields.get(field, [])
    for name in asked:
        if name not in GRANULARITIES:
            fault = lookup.unknown("granularity", name[:40], [*GRANULARITIES])
            raise Fault(400, fault, "timestamp_granularities", "unknown_granularity")
    return tuple(asked)


def _temperature(fields: dict[str, list[str]]) -> float | None:
    """Return the temperature asked for, None where there is none. Raises Fault for a wrong one."""
    text = _one(fields, "temperature")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_TEMPERATURE:
        rule = f"must be a number from 0 to {MAX_TEMPERATURE:g}"
        fault = f"temperature {text[:40]!r} {rule}"
        raise Fault(400, fault, "temperature", "bad_temperature")
    return 0.0 if value < COLDEST else value


def _language(fields: dict[str, list[str]]) -> str | None:
    """Return the language named, None where there is none. Raises Fault for what is no code."""
    name = _one(fields, "language")
    if not name:
        return None
    if not LANGUAGE.fullmatch(name):
        fault = f"language {name[:40]!r} must be a code such as zh or en"
        raise Fault(400, fault, "language", "bad_language")
    return name
