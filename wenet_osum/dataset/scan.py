"""Build an index where there is none.

It takes one walk over the headers of a tar, or one pass over the lines of a raw list.
"""

from __future__ import annotations

import dataclasses
import mmap
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wenet_osum import tasks
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.index import Index, build
from wenet_osum.dataset.layout import part_of, read_members
from wenet_osum.dataset.manifest import parse_line, reason_of
from wenet_osum.dataset.recording import check_words
from wenet_osum.dataset.tar import BadTar, Member, known_extensions, split_name, walk
from wenet_osum.records import Utterance

CUT = "tar cut short or damaged (this utterance and what follows are lost)"
TORN = "interleaved members (those of one utterance must lie side by side)"
APPLE_DOUBLE = b"\x00\x05\x16\x07"  # its first bytes
Faults = list[tuple[str, str]]  # (key, reason)
Row = tuple[Utterance, int, int, float]  # of an index: utterance, first byte, bytes, s


class Group(NamedTuple):
    """The members of one utterance that lie side by side.

    Positions are bytes from the start of the buffer.
    """

    stem: str
    start: int
    end: int
    members: dict[str, Member]  # extension → member

    def parts(self, buffer: memoryview) -> dict[str, memoryview]:
        """Return the contents by extension, uncopied."""
        parts = {}
        for ext, member in self.members.items():
            end = member.data + member.size
            parts[ext] = buffer[member.data : end]
        return parts


def groups(buffer: memoryview, faults: Faults, ended: bool = True) -> Iterator[Group]:
    """Yield runs of members with the same key.

    A damaged tar ends with a fault; an utterance that may lack members is left out.
    """
    known = known_extensions()
    group = None
    try:
        for member in walk(buffer, check=ended, ended=ended):
            if _is_apple_double(member, buffer):
                continue
            stem, ext = split_name(member.name, known)
            if not ext:
                # a side file of the utterance, such as .npy, is passed over
                if not group or not stem.startswith(group.stem + "."):
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
        # The group is whole only where the tar broke inside a member of another utterance.
        lost, _ = split_name(error.name)
        if group and lost and lost != group.stem:
            yield group
        elif group:
            lost = group.stem
        faults.append((_printable(lost), CUT))
        return
    if group:
        yield group


def _is_apple_double(member: Member, buffer: memoryview) -> bool:
    """Tell whether a member is what macOS writes in front of a file that has extended attributes:
    ``._name``, in the AppleDouble format (RFC 1740)."""
    _, _, name = member.name.rpartition("/")
    first = bytes(buffer[member.data : member.data + len(APPLE_DOUBLE)])
    return name.startswith("._") and first == APPLE_DOUBLE


def scan_tar(buffer: memoryview, path: str) -> tuple[Index, Faults]:
    """Index a whole tar.

    Later copies of a key are faults; so are all pieces of an utterance whose members are not side
    by side.
    """
    faults: Faults = []
    found: dict[str, Group] = {}
    torn: set[str] = set()
    for group in groups(buffer, faults):
        stem = group.stem
        first = found.setdefault(stem, group)
        if first is group:
            continue
        # the same members again are a copy, others are the rest of it
        if first.members.keys() & group.members.keys():
            faults.append((_printable(stem), "duplicate key"))
        else:
            torn.add(stem)

    rows = []
    for stem, group in found.items():
        if stem not in torn:
            row = _tar_row(group, buffer, faults)
            if row:
                rows.append(row)
    for stem in sorted(torn):
        faults.append((_printable(stem), TORN))
    return build(path, "tar", rows), faults


def scan_file(file_path: str, path: str) -> tuple[Index, Faults]:
    """Index the tar in ``file_path``, which will be known as ``path``.

    It is not read into memory.
    """
    with (
        open(file_path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as buffer,
    ):
        return scan_tar(buffer, path)


def _tar_row(group: Group, buffer: memoryview, faults: Faults) -> Row | None:
    """Return the row of an utterance's members; None for a fault."""
    stem = group.stem
    try:
        stem.encode()
        parts = group.parts(buffer)
        utterance, _ = read_members(stem, parts)
        seconds = _seconds(utterance, lambda one: read_duration(part_of(one, parts)))
    except UnicodeEncodeError:
        faults.append((_printable(stem), "member name is not UTF-8"))
        return None
    except Drop as drop:
        faults.append((_printable(stem), drop.reason))
        return None
    size = group.end - group.start
    return utterance, group.start, size, seconds


def _seconds(utterance: Utterance, whole: Callable[[Utterance], float]) -> float:
    """Return the duration in s of all its recordings, of which ``whole`` gives that of one.

    In a conversation each gets its own. Raises Drop.
    """
    if not utterance.turns:
        seconds = _span(utterance, partial(whole, utterance))
        check_words(utterance, seconds)
        return seconds
    recordings = utterance.recordings()
    for one in recordings:
        one.duration = _span(one, partial(whole, one))
        check_words(one, one.duration)
    return sum(one.duration for one in recordings)


def _span(utterance: Utterance, whole: Callable[[], float]) -> float:
    """Return the duration in s of the utterance in a recording of ``whole()`` s. Raises Drop."""
    start = utterance.start or 0.0
    if utterance.end is not None:
        return utterance.end - start
    seconds = whole() - start
    if seconds <= 0:
        told = f"{utterance.key!r} starts at {start} s"
        raise Drop("audio: segment outside the recording", told)
    return seconds


def scan_raw(path: str) -> tuple[Index, Faults, list[tuple[int, int]]]:
    """Index a raw list; a line without duration costs a look at its recording.

    Returned last are first byte and size of the lines whose recordings are at fault.
    """
    faults: Faults = []
    rows: list[Row] = []
    at = 0
    at_fault: list[tuple[int, int]] = []
    labels = tasks.label_names()
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            key = line_key(path, number)
            try:
                if line.strip():
                    utterance = parse_line(line, labels)
                    key = utterance.key
                    seconds = raw_duration(utterance, path)
                    rows.append((utterance, at, len(line), seconds))
            except Drop as drop:
                faults.append((key, drop.reason))
                at_fault.append((at, len(line)))
            except ValueError as error:
                reason = "manifest: " + reason_of(error)
                faults.append((key, reason))
            at += len(line)
    return build(path, "raw", rows), faults, at_fault


def mended(path: str, places: Iterable[tuple[int, int]]) -> bool:
    """Tell whether a recording that was at fault can be read now.

    ``places`` are first byte and size of the lines that name them.
    """
    with open(path, "rb") as lines:
        for at, size in places:
            lines.seek(at)
            line = lines.read(size)
            try:
                raw_duration(parse_line(line), path)
            except (Drop, ValueError):
                continue
            return True
    return False


def line_key(path: str, number: int) -> str:
    """Name a line of a raw list that has no readable key, without white space, which ends a key."""
    return re.sub(r"\s", "_", f"{path}:{number}")


def raw_duration(utterance: Utterance, list_path: str) -> float:
    """Return the duration in s as the manifest says, else as the recording's header does.

    Raises Drop.
    """
    for one in utterance.recordings():
        if one.duration is None:
            path = find(one.wav, list_path)
            one.duration = _span(one, partial(read_duration, path))
        check_words(one, one.duration)
    return sum(one.duration for one in utterance.recordings())


def measure(utterances: Iterable[Utterance], list_path: str) -> Dropped:
    """Set the durations that are not known, as ``raw_duration`` reads them; returns where that
    failed."""
    failed = Dropped()
    for utterance in utterances:
        if utterance.duration is not None:
            continue
        try:
            raw_duration(utterance, list_path)
        except Drop as drop:
            note(failed, utterance.key, drop.reason)
    return failed


def find(wav: str, list_path: str) -> str:
    """Return where a recording is.

    A relative path counts from where the run was started, or else from the folder of the list.
    """
    beside = Path(list_path).parent / wav
    if not Path(wav).exists() and beside.exists():
        return str(beside)
    return wav


def located(utterances: Iterable[Utterance], manifest: str | Path) -> Iterator[Utterance]:
    """Yield the utterances of a manifest for one in another folder: paths that count from the
    folder of this one become absolute."""
    for utterance in utterances:
        turns = list(located(utterance.turns, manifest)) if utterance.turns else utterance.turns
        found = find(utterance.wav, str(manifest)) if utterance.wav else utterance.wav
        if found != utterance.wav:
            found = str(Path(found).resolve())
        yield dataclasses.replace(utterance, wav=found, turns=turns)


def _printable(key: str) -> str:
    """Return a key without halves of surrogate pairs."""
    return key.encode("utf-8", "backslashreplace").decode()
