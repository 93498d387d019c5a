"""Write and read the members of an utterance in a shard.

There are our layout, WeNet's and the published OSUM one.

json   ``<key>.<audio>``, ``<key>.txt`` (the transcript) and ``<key>.json`` (every other field);
       WeNet reads it
osum   ``<key>.<audio>``, ``.txt`` (the target of the task, composed) and ``.task .lang .speaker
       .emotion .gender .duration .extra``; fields and labels without a member of their own lie in
       ``.extra`` as JSON

The recordings of a conversation's earlier turns lie beside its own, in layout json alone:
``<key>.audio1``, ``<key>.audio2``, …, audio files of any format. Their names stand in ``turns``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.manifest import from_row
from wenet_osum.dataset.tar import AUDIO, BLOCK, EARLIER, OSUM, header, is_plain, member, stem_of
from wenet_osum.records import OWN_FIELDS, Utterance
from wenet_osum.tasks import Task, parse

LAYOUTS = ("json", "osum")
# of a row, what has members of its own in any layout or is gone when a segment was cut out
_ELSEWHERE = frozenset(("key", "wav", "txt", "start", "end", "extra"))
_FIELDS = OWN_FIELDS - _ELSEWHERE
# of a row, what the layout json keeps in other members, or not at all
_NOT_IN_JSON = ("wav", "txt", "start", "end")


def member_parts(
    utterance: Utterance,
    audio: bytes,
    ext: str,
    layout: str = "json",
    row: dict[str, Any] | None = None,
    earlier: Sequence[bytes] = (),
) -> list[bytes]:
    """Return the members of one utterance, ready to be appended to a tar, in pieces, the audio
    uncopied: what ``os.writev`` takes. Raises Drop when the layout cannot hold it.

    ``row`` is the utterance's ``to_dict()``, where it is at hand. ``earlier`` are the recordings of
    a conversation before its own, which is not there where ``ext`` is empty.
    """
    if layout == "json":
        texts = _json_parts(utterance, row or utterance.to_dict())
    else:
        texts = _osum_parts(utterance)
    stem = stem_of(utterance.key)
    sounds = [(ext, audio)] if ext else []
    sounds += zip(EARLIER, earlier, strict=False)
    parts = []
    for name, sound in sounds:
        head = header(f"{stem}.{name}", len(sound))
        padding = bytes(-len(sound) % BLOCK)
        parts += [head, sound, padding]
    for name, text in texts.items():
        content = text.encode()
        parts.append(member(f"{stem}.{name}", content))
    return parts


def _json_parts(utterance: Utterance, row: dict[str, Any]) -> dict[str, str]:
    """Return the text members of layout json by extension."""
    kept = dict(row)
    for name in _NOT_IN_JSON:
        kept.pop(name, None)
    # the member's name tells a plain key
    if is_plain(utterance.key):
        del kept["key"]
    parts = {}
    if utterance.txt is not None:
        parts["txt"] = utterance.txt
    parts["json"] = json.dumps(kept, ensure_ascii=False)
    return parts


def _osum_parts(utterance: Utterance) -> dict[str, str]:
    """Return the text members of layout osum by extension. Raises Drop."""
    key = utterance.key
    if not is_plain(key):
        rule = "must hold no control characters or empty path parts"
        raise Drop("key: no member name in layout osum", f"{key!r} {rule}; use layout json")
    if utterance.turns:
        raise Drop("conversation: no place in layout osum", f"{key!r}; use layout json")
    if not utterance.task:
        told = f"layout osum composes the target of {key!r} from its task"
        raise Drop("no task", f"{told}; give it one in the manifest")
    task, target = _compose(utterance)

    # what has no member of its own lies in ``extra``
    parts = {"txt": target}
    rest = dict(utterance.extra)
    row = utterance.to_dict()
    for name, value in row.items():
        if name not in OSUM and name not in _ELSEWHERE:
            rest[name] = value
    for name in OSUM:
        if name in row and name != "extra":
            parts[name] = str(row[name])
    parts["task"] = task.tags
    parts["extra"] = json.dumps(rest, ensure_ascii=False)
    return parts


def _compose(utterance: Utterance) -> tuple[Task, str]:
    """Return an utterance's task and what it is to answer. Raises Drop."""
    try:
        task = _task(utterance.task)
        missing = task.missing(utterance)
        if missing:
            told = f"task {utterance.task} of {utterance.key!r} needs it"
            raise Drop(f"no {missing[0]}", told)
        return task, task.write(utterance)
    except Drop:
        raise
    except ValueError as error:
        told = f"{utterance.key!r}: {error}"
        raise Drop("task or label cannot be written", told) from None


@lru_cache(maxsize=64)
def _task(text: str) -> Task:
    return parse(text)


def read_members(stem: str, parts: dict[str, memoryview]) -> tuple[Utterance, str]:
    """Turn one utterance's members, extension → content, into it and the extension of its audio.

    It is empty where only earlier turns have recordings; those are found by ``part_of``. ``txt``
    stays as written, tags and all. Raises Drop for a missing audio member, text that is no
    UTF-8 and fields that cannot be read.
    """
    audio = _audio_of(parts)
    if not audio and not parts.keys() & {*EARLIER}:
        raise Drop("no audio member", f"{stem!r} has only {sorted(parts)}")
    row: dict[str, Any] = {"key": stem}
    row |= _texts(stem, parts)
    if "json" in parts:
        row |= _json(stem, parts["json"])
    elif "txt" in row:
        # other tools leave line ends
        row["txt"] = row["txt"].strip()
    row["wav"] = f"{stem}.{audio}" if audio else ""
    try:
        utterance = from_row(row)
    except ValueError as error:
        raise Drop("shard: field cannot be read", str(error)) from None
    for turn in utterance.turns or ():
        _name_member(turn, stem, parts)
    return utterance, audio


def _audio_of(parts: dict[str, memoryview]) -> str:
    """Return the extension of the audio; empty when there is none."""
    for ext in parts:
        if ext in AUDIO:
            return ext
    return ""


def _name_member(turn: Utterance, stem: str, parts: dict[str, memoryview]) -> None:
    """Give a turn's recording the name of its member. Raises Drop when that is not there."""
    if not turn.wav:
        return
    if turn.wav not in parts:
        told = f"{stem}.{turn.wav} is named in turns; there are {sorted(parts)}"
        raise Drop("no audio member", told)
    turn.wav = f"{stem}.{turn.wav}"


def part_of(turn: Utterance, parts: dict[str, memoryview]) -> memoryview:
    """Return the content of a turn's audio member."""
    _, _, ext = turn.wav.rpartition(".")
    return parts[ext]


def _texts(stem: str, parts: dict[str, memoryview]) -> dict[str, Any]:
    """Read the members that are text. Raises Drop for one that is not UTF-8."""
    row: dict[str, Any] = {}
    for ext in parts.keys() - AUDIO - {*EARLIER, "json"}:
        content = bytes(parts[ext])
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            told = f"{stem}.{ext}: {error}"
            why = "a size counted in characters cuts it like this"
            raise Drop("text is not UTF-8", f"{told}; {why}") from None
        row[ext] = text if ext == "txt" else text.strip()
    if "duration" in row:
        row["duration"] = _float(row["duration"])
    if "extra" in row:
        opened = _open_extra(row.pop("extra"))
        row = opened | row
    return row


def _float(text: str) -> float | None:
    """Read a number; None where the published layout writes "none": the audio's header knows."""
    try:
        return float(text)
    except ValueError:
        return None


def _open_extra(text: str) -> dict[str, Any]:
    """Take fields of the record that are kept in ``.extra`` out of it; the rest stays extra."""
    try:
        extra = json.loads(text)
    except json.JSONDecodeError:
        return {"extra": {"extra": text}} if text else {}
    if not isinstance(extra, dict):
        return {"extra": {"extra": extra}}
    own = {}
    rest = {}
    for name, value in extra.items():
        if name in _FIELDS:
            own[name] = value
        else:
            rest[name] = value
    return own | {"extra": rest}


def _json(stem: str, content: memoryview) -> dict[str, Any]:
    """Read the ``.json`` member. Raises Drop."""
    reason = "json member cannot be read"
    try:
        text = bytes(content).decode("utf-8-sig")
        row = json.loads(text)
    except ValueError as error:
        raise Drop(reason, f"{stem}.json: {error}") from None
    if not isinstance(row, dict):
        got = str(row)[:80]
        raise Drop(reason, f"{stem}.json must hold an object, got {got}")
    return row
