"""How an utterance lies in a shard: its members written and read, in our layout, WeNet's and the published OSUM one.

json   ``<key>.<audio>``, ``<key>.txt`` (the transcript) and ``<key>.json`` (every other field); WeNet reads it
osum   ``<key>.<audio>``, ``.txt`` (the target of the task, composed) and ``.task .lang .speaker .emotion .gender .duration .extra``;
       fields and labels without a member of their own lie in ``.extra`` as JSON
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.manifest import from_row
from wenet_osum.dataset.tar import AUDIO, BLOCK, OSUM, header, is_plain, member, stem_of
from wenet_osum.records import OWN_FIELDS, Utterance
from wenet_osum.tasks import Task, parse

LAYOUTS = ("json", "osum")
# of a row, what has members of its own in any layout or is gone when a segment was cut out
_ELSEWHERE = frozenset(("key", "wav", "txt", "start", "end", "extra"))
_FIELDS = OWN_FIELDS - _ELSEWHERE


def write_members(utterance: Utterance, audio: bytes, ext: str, layout: str = "json") -> bytes:
    """The members of one utterance, ready to be appended to a tar. Raises Drop when the layout cannot hold it."""
    return b"".join(member_parts(utterance, audio, ext, layout))


def member_parts(utterance: Utterance, audio: bytes, ext: str, layout: str = "json", row: dict[str, Any] | None = None) -> list[bytes]:
    """The same in pieces, the audio uncopied: what ``os.writev`` takes. ``row`` is the utterance's ``to_dict()``, where it is at hand."""
    parts = _json_parts(utterance, row or utterance.to_dict()) if layout == "json" else _osum_parts(utterance)
    stem = stem_of(utterance.key)
    head = [header(f"{stem}.{ext}", len(audio)), audio, bytes(-len(audio) % BLOCK)]
    return [*head, *(member(f"{stem}.{e}", text.encode()) for e, text in parts.items())]


def _json_parts(utterance: Utterance, row: dict[str, Any]) -> dict[str, str]:
    row = {k: v for k, v in row.items() if k not in ("wav", "txt", "start", "end")}
    if is_plain(utterance.key):
        del row["key"]
    parts = {} if utterance.txt is None else {"txt": utterance.txt}
    return parts | {"json": json.dumps(row, ensure_ascii=False)}


def _osum_parts(utterance: Utterance) -> dict[str, str]:
    if not is_plain(utterance.key):
        raise Drop("key: no member name in layout osum", f"{utterance.key!r} must hold no control characters or empty path parts; use layout json")
    if not utterance.task:
        raise Drop("no task", f"layout osum composes the target of {utterance.key!r} from its task; give it one in the manifest")
    task, target = _compose(utterance)
    row = utterance.to_dict()
    rest = utterance.extra | {k: v for k, v in row.items() if k not in _ELSEWHERE and k not in OSUM}
    own = {name: str(row[name]) for name in OSUM if name in row and name != "extra"}
    parts = {"txt": target} | own
    parts["task"] = task.tags
    return parts | {"extra": json.dumps(rest, ensure_ascii=False)}


def _compose(utterance: Utterance) -> tuple[Task, str]:
    try:
        task = _task(utterance.task)
        if missing := task.missing(utterance):
            raise Drop(f"no {missing[0]}", f"task {utterance.task} of {utterance.key!r} needs it")
        return task, task.write(utterance)
    except Drop:
        raise
    except ValueError as error:
        raise Drop("task or label cannot be written", f"{utterance.key!r}: {error}") from None


@lru_cache(maxsize=64)
def _task(text: str) -> Task:
    return parse(text)


def read_members(stem: str, parts: dict[str, memoryview]) -> tuple[Utterance, str]:
    """Extension → content of one utterance's members → (Utterance, extension of its audio). ``txt`` stays as written, tags and all.

    Raises Drop for a missing audio member, text that is no UTF-8 and fields that cannot be read.
    """
    audio = next((ext for ext in parts if ext in AUDIO), None)
    if audio is None:
        raise Drop("no audio member", f"{stem!r} has only {sorted(parts)}")
    row: dict[str, Any] = {"key": stem} | _texts(stem, parts)
    if "json" in parts:
        row |= _json(stem, parts["json"])
    elif "txt" in row:
        row["txt"] = row["txt"].strip()  # other tools leave line ends
    row["wav"] = f"{stem}.{audio}"
    try:
        return from_row(row), audio
    except ValueError as error:
        raise Drop("shard: field cannot be read", str(error)) from None


def _texts(stem: str, parts: dict[str, memoryview]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for ext in parts.keys() - AUDIO - {"json"}:
        try:
            row[ext] = bytes(parts[ext]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Drop("text is not UTF-8", f"{stem}.{ext}: {error}; a size counted in characters cuts it like this") from None
        if ext != "txt":
            row[ext] = row[ext].strip()
    if "duration" in row:
        row["duration"] = _float(row["duration"])
    if "extra" in row:
        row = _open_extra(row.pop("extra")) | row
    return row


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # the published layout writes "none" at times; the header of the audio knows


def _open_extra(text: str) -> dict[str, Any]:
    """Fields of the record kept in ``.extra`` come out of it; the rest stays extra."""
    try:
        extra = json.loads(text)
    except json.JSONDecodeError:
        return {"extra": {"extra": text}} if text else {}
    if not isinstance(extra, dict):
        return {"extra": {"extra": extra}}
    own = {k: v for k, v in extra.items() if k in _FIELDS}
    return own | {"extra": {k: v for k, v in extra.items() if k not in _FIELDS}}


def _json(stem: str, content: memoryview) -> dict[str, Any]:
    try:
        row = json.loads(bytes(content).decode("utf-8"))
    except ValueError as error:
        raise Drop("json member cannot be read", f"{stem}.json: {error}") from None
    if not isinstance(row, dict):
        raise Drop("json member cannot be read", f"{stem}.json must hold an object, got {str(row)[:80]}")
    return row
