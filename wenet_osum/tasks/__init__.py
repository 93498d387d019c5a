"""The tasks. Each file of this folder is one; any other combination of their tags needs no file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from wenet_osum import lookup
from wenet_osum.records import OWN_FIELDS
from wenet_osum.tasks.base import Field, LabelSet, Reading, Task

__all__ = [
    "Field",
    "LabelSet",
    "Reading",
    "Task",
    "beyond_default",
    "default_names",
    "facts",
    "free_texts",
    "label_fields",
    "label_names",
    "names",
    "parse",
]
NOT_TASKS = ("base", "fields", "label_map")
TAG = re.compile(r"<[^<>]*>")


def names() -> list[str]:
    """Return the names of the tasks that have a file."""
    return [name for name in lookup.names(__name__) if name not in NOT_TASKS]


def default_names() -> list[str]:
    """Return the names of the tasks that small models, their tokenizers and prompt tables are made
    for, and that model cards list: the eight of OSUM and those of your own folders.

    The others are named by whoever wants them (``Task.by_default``).
    """
    return [name for name, task in _all().items() if task.by_default]


def beyond_default(asked: Iterable[str]) -> list[str]:
    """Return the tasks that are no default ones and that have a field of their own among those of
    the tasks ``asked`` (names or tags)."""
    known = _all()
    usual = [task for task in known.values() if task.by_default]
    common = {field.tag for task in usual for field in task.fields}
    used = {field.tag for text in asked for field in parse(text).fields}
    found = []
    for name, task in known.items():
        own = {field.tag for field in task.fields} - common
        if not task.by_default and own & used:
            found.append(name)
    return found


def _all() -> dict[str, Task]:
    """Load the tasks that have a file, by name. Raises ValueError for a file that is no task."""
    found = {name: _load(name) for name in names()}
    _check_fields(found)
    return found


def _load(name: str) -> Task:
    """Load the task of one file."""
    try:
        task = lookup.load(__name__, name).TASK
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"task file {name}.py cannot be used: {why}") from error
    if task.name != name:
        raise ValueError(f"task file {name}.py holds task {task.name!r}; give both one name")
    return task


def _check_fields(tasks: dict[str, Task]) -> None:
    """Raise ValueError for a field whose tag or name another field has.

    Transcripts are all named alike.
    """
    by_tag: dict[str, Field] = {}
    by_name: dict[str, Field] = {}
    for task in tasks.values():
        for field in task.fields:
            same = [by_tag.setdefault(field.tag, field)]
            if field.kind != "transcript":
                same.append(by_name.setdefault(field.name, field))
            if any(other != field for other in same):
                raise ValueError(
                    f"task {task.name!r}: another field has the tag {field.tag} or the name "
                    f"{field.name!r} already; import that one, or choose others"
                )


def label_fields(labels: dict[str, list[str]] | None = None) -> dict[str, Field]:
    """Return the label fields of all task files by name; ``labels`` replaces sets by field name."""
    if labels:
        return _read_label_fields(labels)
    return dict(_label_fields(_folders()))


def label_names() -> tuple[str, ...]:
    """Return the names under which utterances hold labels, and free texts that no field of the
    record holds (a translation).

    They stand on the top level of a manifest's lines, in members of shards, as columns of an index.
    It is the only list of labels there is, and grows with a task file, also one of a folder that
    ``lookup.add_folder`` adds later. A label field may also read one of the record's own fields
    (``lang``): that is no label of its own and not among them.
    """
    return _label_names(_folders())


def facts() -> tuple[str, ...]:
    """Return the names of what tasks are told of a recording, such as the language that a
    translation is wanted in."""
    return _facts(_folders())


def free_texts(names: Iterable[str]) -> frozenset[str]:
    """Return those of the label names that are free texts, whose values are no classes."""
    texts = _free_texts(_folders())
    return texts.intersection(names)


def _folders() -> tuple[tuple[str, int], ...]:
    """Give the folders of tasks with the time of their last change, which a new file makes later.

    A look at each costs microseconds; reading the task files for every manifest would cost more
    than the manifest.
    """
    found = []
    for folder in __path__:
        if Path(folder).is_dir():
            changed = Path(folder).stat().st_mtime_ns
            found.append((folder, changed))
    return tuple(found)


@lru_cache(maxsize=4)
def _label_fields(folders: tuple[tuple[str, int], ...]) -> dict[str, Field]:
    return _read_label_fields(None)


@lru_cache(maxsize=4)
def _label_names(folders: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    found = []
    for field in (*_label_fields(folders).values(), *_other_fields()):
        found.append(field.attribute)
        found += field.beside
    # Two fields may read the same label.
    different = dict.fromkeys(found)
    return tuple(name for name in different if name not in OWN_FIELDS)


@lru_cache(maxsize=4)
def _free_texts(folders: tuple[tuple[str, int], ...]) -> frozenset[str]:
    texts = {field.attribute for field in _other_fields()}
    return frozenset(texts - OWN_FIELDS)


@lru_cache(maxsize=4)
def _facts(folders: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    found = []
    for task in _all().values():
        found += task.facts
    return tuple(dict.fromkeys(found))


def _other_fields() -> list[Field]:
    """Collect the fields of all task files that are no labels."""
    found = []
    for task in _all().values():
        found += [field for field in task.fields if field.kind != "label"]
    return found


def _read_label_fields(labels: dict[str, list[str]] | None) -> dict[str, Field]:
    """Collect the label fields of all task files by name."""
    found = {}
    for name in names():
        for field in parse(name, labels).label_fields:
            found[field.name] = field
    return found


def parse(text: str, labels: dict[str, list[str]] | None = None) -> Task:
    """Return the task meant by a name (``ser``) or by tags (``<transcribe><EMOTION>``).

    Tags may be in any case, with or without spaces between them. ``labels`` replaces label sets by
    field name.

    Raises ValueError for an unknown name or tag, a doubled tag, ``<ALIGN>`` without
    ``<TRANSCRIBE>``, a reply that is not last, and label sets for fields that do not exist.
    """
    tasks = _all()
    if "<" in text:
        task = _combine(text, tasks)
    else:
        name = text.strip().lower()
        if name not in tasks:
            raise ValueError(lookup.unknown("task", text.strip(), [*tasks]))
        task = tasks[name]
    if not labels:
        return task
    _check_labels(labels, tasks)
    return task.with_labels(labels)


def _fields(tasks: dict[str, Task]) -> dict[str, Field]:
    """Collect every field of the task files by its tag."""
    found = {}
    for task in tasks.values():
        for field in task.fields:
            found[field.tag] = field
    return found


def _combine(text: str, tasks: dict[str, Task]) -> Task:
    """Return the task of a row of tags: that of a file where it has the same ones."""
    fields = _fields(tasks)
    given = [tag.upper() for tag in TAG.findall(text)]
    _check_tags(text, given, fields)
    tags = _attach_modifiers(text, given, fields)
    chosen = tuple(fields[tag] for tag in tags)
    if any(field.kind == "reply" for field in chosen[:-1]):
        raise ValueError(f"task {text!r}: a reply is free text and must be the last tag")

    known = {task.tags: task for task in tasks.values()}
    combined = Task(" ".join(tags), chosen)
    return known.get(combined.tags, combined)


def _check_tags(text: str, given: list[str], fields: dict[str, Field]) -> None:
    """Raise ValueError for text that is no tag, and for unknown or doubled tags."""
    # The tag of a field may have two parts, such as <TRANSCRIBE> <ALIGN>.
    known = sorted({part for tag in fields for part in tag.split()})
    rest = TAG.sub("", text).strip()
    if rest:
        raise ValueError(
            f"task {text!r}: {rest!r} is not a tag; "
            f"tags read <LIKE_THIS>, known: {', '.join(known)}"
        )
    for tag in given:
        if tag not in known:
            raise ValueError(lookup.unknown("tag", tag, known))
        times = given.count(tag)
        if times > 1:
            raise ValueError(
                f"task {text!r}: tag {tag} stands {times} times; each field is asked for once"
            )


def _attach_modifiers(text: str, given: list[str], fields: dict[str, Field]) -> list[str]:
    """Join a modifier such as <ALIGN> to the tag it modifies, wherever it stands.

    Raises ValueError when that tag is missing.
    """
    # modifier → (tag it modifies, both together)
    modified = {}
    for tag in fields:
        parts = tag.split()
        if len(parts) == 2:
            modified[parts[1]] = (parts[0], tag)

    tags = [tag for tag in given if tag not in modified]
    for modifier in given:
        if modifier not in modified:
            continue
        base, both = modified[modifier]
        other = next((tag for tag in tags if tag.startswith(f"{base} ")), None)
        if other:
            raise ValueError(
                f"task {text!r}: {modifier} modifies {base}, which {other} has modified already; "
                "leave one of them out"
            )
        if base not in tags:
            raise ValueError(
                f"task {text!r}: {modifier} modifies {base}, which is missing; write {both}"
            )
        tags[tags.index(base)] = both
    return tags


def _check_labels(labels: dict[str, list[str]], tasks: dict[str, Task]) -> None:
    """Raise ValueError for label sets of fields that do not exist."""
    fields = _fields(tasks).values()
    known = sorted(field.name for field in fields if field.labels)
    for name in labels:
        if name not in known:
            raise ValueError(lookup.unknown("label field", name, known))
