"""Build an index where there is none: one walk over the headers of a tar, or one pass over the lines of a raw list."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wenet_osum import tasks
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.index import Index, build
from wenet_osum.dataset.layout import read_members
from wenet_osum.dataset.manifest import parse_line, reason_of
from wenet_osum.dataset.tar import BadTar, Member, known_extensions, split_name, walk
from wenet_osum.records import Utterance

CUT = "tar cut short or damaged (this utterance and what follows are lost)"
Faults = list[tuple[str, str]]  # (key, reason)


class Group(NamedTuple):
    """The members of one utterance that lie side by side. Positions are bytes from the start of the buffer."""

    stem: str
    start: int
    end: int
    members: dict[str, Member]  # extension → member


def groups(buffer: memoryview, faults: Faults, ended: bool = True) -> Iterator[Group]:
    """Yield runs of members with the same key. A damaged tar ends with a fault; an utterance that may lack members is left out."""
    group, known = None, known_extensions()
    try:
        for member in walk(buffer, check=ended, ended=ended):
            stem, ext = split_name(member.name, known)
            if not ext:
                if not (group and stem.startswith(group.stem + ".")):  # a side file of the utterance, such as .npy, is passed over
                    faults.append((_printable(member.name), "member without a known extension"))
                continue
            if group and group.stem == stem and ext not in group.members:
                group.members[ext] = member
                group = group._replace(end=member.end)
                continue
            if group:
                yield group
            group = Group(stem, member.start, member.end, {ext: member})
    except BadTar as error:
        lost, _ = split_name(error.name)
        if group and lost and lost != group.stem:
            yield group
        else:
            lost = group.stem if group else lost
        faults.append((_printable(lost), CUT))
        return
    if group:
        yield group


def scan_tar(buffer: memoryview, path: str) -> tuple[Index, Faults]:
    """Index a whole tar. Later copies of a key are faults; so are all pieces of an utterance whose members are not side by side."""
    faults: Faults = []
    found: dict[str, Group] = {}
    torn: set[str] = set()
    for group in groups(buffer, faults):
        first = found.setdefault(group.stem, group)
        if first is group:
            continue
        if first.members.keys() & group.members.keys():
            faults.append((_printable(group.stem), "duplicate key"))
        else:
            torn.add(group.stem)
    rows = [_tar_row(group, buffer, faults) for stem, group in found.items() if stem not in torn]
    faults += [(_printable(stem), "interleaved members (those of one utterance must lie side by side)") for stem in sorted(torn)]
    return build(path, "tar", [row for row in rows if row]), faults


def scan_file(file_path: str, path: str) -> tuple[Index, Faults]:
    """Index the tar in ``file_path``, which will be known as ``path``, without reading it into memory."""
    with open(file_path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as buffer:
        return scan_tar(buffer, path)


def _tar_row(group: Group, buffer: memoryview, faults: Faults) -> tuple[Utterance, int, int, float] | None:
    try:
        group.stem.encode()
        parts = {ext: buffer[m.data : m.data + m.size] for ext, m in group.members.items()}
        utterance, audio = read_members(group.stem, parts)
        seconds = _span(utterance, lambda: read_duration(parts[audio]))
        return utterance, group.start, group.end - group.start, seconds
    except UnicodeEncodeError:
        faults.append((_printable(group.stem), "member name is not UTF-8"))
    except Drop as drop:
        faults.append((_printable(group.stem), drop.reason))
    return None


def _span(utterance: Utterance, whole) -> float:
    """Duration in s of the utterance in a recording of ``whole()`` s."""
    start = utterance.start or 0.0
    if utterance.end is not None:
        return utterance.end - start
    seconds = whole() - start
    if seconds <= 0:
        raise Drop("audio: segment outside the recording", f"{utterance.key!r} starts at {start} s")
    return seconds


def scan_raw(path: str) -> tuple[Index, Faults, bool]:
    """Index a raw list; a line without duration costs a look at its recording. The flag tells whether a recording was at fault."""
    faults: Faults = []
    rows, at, audio_fault = [], 0, False
    labels = tasks.label_names()
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            key = line_key(path, number)
            try:
                if line.strip():
                    utterance = parse_line(line, labels)
                    key = utterance.key
                    rows.append((utterance, at, len(line), raw_duration(utterance, path)))
            except Drop as drop:
                faults.append((key, drop.reason))
                audio_fault = True
            except ValueError as error:
                faults.append((key, "manifest: " + reason_of(error)))
            at += len(line)
    return build(path, "raw", rows), faults, audio_fault


def line_key(path: str, number: int) -> str:
    """Name a line of a raw list that has no readable key, without white space, which ends a key."""
    return re.sub(r"\s", "_", f"{path}:{number}")


def raw_duration(utterance: Utterance, list_path: str) -> float:
    """Duration in s as the manifest says, else as the recording's header does. Raises Drop."""
    if utterance.duration is not None:
        return utterance.duration
    return _span(utterance, lambda: read_duration(find(utterance.wav, list_path)))


def find(wav: str, list_path: str) -> str:
    """A relative path counts from where the run was started, or else from the folder of the list."""
    beside = Path(list_path).parent / wav
    return str(beside) if not Path(wav).exists() and beside.exists() else wav


def _printable(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode()
