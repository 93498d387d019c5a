"""The tasks. Each file of this folder is one; any other combination of their tags is a task without a file."""

from __future__ import annotations

import os
import re
from functools import lru_cache

from wenet_osum import lookup
from wenet_osum.records import OWN_FIELDS
from wenet_osum.tasks.base import Field, LabelSet, Reading, Task

__all__ = ["Field", "LabelSet", "Reading", "Task", "label_fields", "label_names", "names", "parse"]
NOT_TASKS = ("base", "fields", "label_map")


def names() -> list[str]:
    """Names of the tasks that have a file."""
    return [n for n in lookup.names(__name__) if n not in NOT_TASKS]


def label_fields(labels: dict[str, list[str]] | None = None) -> dict[str, Field]:
    """Label fields of all task files, by name; ``labels`` replaces their sets by field name."""
    if labels:
        return {field.name: field for name in names() for field in parse(name, labels).label_fields}
    return dict(_label_fields(_folders()))


def label_names() -> tuple[str, ...]:
    """The names under which utterances hold labels: on the top level of a manifest's lines, in
    members of shards, as columns of an index.

    It is the only list of labels there is, and grows with a task file, also one of a folder that
    ``lookup.add_folder`` adds later. A label field may also read one of the record's own fields
    (``lang``): that is no label of its own and not among them.
    """
    return _label_names(_folders())


def _folders() -> tuple[tuple[str, int], ...]:
    """Give the folders of tasks with the time of their last change, which a new file makes later.

    A look at each costs a microsecond; reading the task files for every manifest would cost more
    than the manifest.
    """
    known = (folder for folder in __path__ if os.path.isdir(folder))
    return tuple((folder, os.stat(folder).st_mtime_ns) for folder in known)


@lru_cache(maxsize=4)
def _label_fields(folders: tuple[tuple[str, int], ...]) -> dict[str, Field]:
    return {field.name: field for name in names() for field in parse(name).label_fields}


@lru_cache(maxsize=4)
def _label_names(folders: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    found = (field.attribute for field in _label_fields(folders).values())
    return tuple(dict.fromkeys(name for name in found if name not in OWN_FIELDS))


def parse(text: str, labels: dict[str, list[str]] | None = None) -> Task:
    """The task meant by a name (``ser``) or tags (``<transcribe><EMOTION>``, any case, with or without spaces).

    ``labels`` replaces label sets by field name. Raises ValueError for an unknown name or tag, a doubled tag, ``<ALIGN>``
    without ``<TRANSCRIBE>``, a reply that is not last, and label sets for fields that do not exist.
    """
    tasks = {name: lookup.load(__name__, name).TASK for name in names()}
    if "<" not in text:
        name = text.strip().lower()
        if name not in tasks:
            raise ValueError(lookup.unknown("task", text.strip(), [*tasks]))
        task = tasks[name]
    else:
        task = _combine(text, tasks)
    return task.with_labels(_known_labels(labels, tasks)) if labels else task


def _fields(tasks: dict[str, Task]) -> dict[str, Field]:
    """Every field by its tag, collected from the task files."""
    return {f.tag: f for task in tasks.values() for f in task.fields}


def _combine(text: str, tasks: dict[str, Task]) -> Task:
    fields = _fields(tasks)
    parts = sorted({part for tag in fields for part in tag.split()})
    given = [tag.upper() for tag in re.findall(r"<[^<>]*>", text)]
    if rest := re.sub(r"<[^<>]*>", "", text).strip():
        raise ValueError(f"task {text!r}: {rest!r} is not a tag; tags read <LIKE_THIS>, known: {', '.join(parts)}")
    for tag in given:
        if tag not in parts:
            raise ValueError(lookup.unknown("tag", tag, parts))
        if given.count(tag) > 1:
            raise ValueError(f"task {text!r}: tag {tag} stands {given.count(tag)} times; each field is asked for once")
    tags = _attach_modifiers(text, given, fields)
    chosen = tuple(fields[tag] for tag in tags)
    if any(f.kind == "reply" for f in chosen[:-1]):
        raise ValueError(f"task {text!r}: a reply is free text and must be the last tag")
    known = {task.tags: task for task in tasks.values()}
    combined = Task(" ".join(tags), chosen)
    return known.get(combined.tags, combined)


def _attach_modifiers(text: str, given: list[str], fields: dict[str, Field]) -> list[str]:
    """Join a modifier such as <ALIGN> to the tag it modifies, wherever it stands."""
    pairs = {tag.split()[1]: tag for tag in fields if len(tag.split()) == 2}
    tags = [tag for tag in given if tag not in pairs]
    for modifier in (tag for tag in given if tag in pairs):
        base = pairs[modifier].split()[0]
        if base not in tags:
            raise ValueError(f"task {text!r}: {modifier} modifies {base}, which is missing; write {pairs[modifier]}")
        tags[tags.index(base)] = pairs[modifier]
    return tags


def _known_labels(labels: dict[str, list[str]], tasks: dict[str, Task]) -> dict[str, list[str]]:
    known = sorted(f.name for f in _fields(tasks).values() if f.labels)
    for name in labels:
        if name not in known:
            raise ValueError(lookup.unknown("label field", name, known))
    return labels
