"""Lists of shards and raw lists: their indices, and single utterances read by seek.

``load_list`` (list_index.py) says what there is, ``read_utterance`` brings one utterance with its
audio, ``pack`` and ``write_list`` make shards.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.audio import cut
from wenet_osum.dataset.drop import Drop, Dropped
from wenet_osum.dataset.handles import Handles
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.layout import part_of, read_members
from wenet_osum.dataset.list_index import list_paths, load_list
from wenet_osum.dataset.manifest import parse_line
from wenet_osum.dataset.pack import Report, pack
from wenet_osum.dataset.recording import check_length, recording, whole_recording
from wenet_osum.dataset.scan import find, groups
from wenet_osum.dataset.shard_index import index_of, load_index
from wenet_osum.files import write_text
from wenet_osum.records import Utterance

__all__ = [
    "Drop",
    "Dropped",
    "Handles",
    "Index",
    "Report",
    "find",
    "list_paths",
    "load_index",
    "load_list",
    "pack",
    "read_utterance",
    "recording",
    "write_list",
]
Audio = bytes | list[bytes]  # an audio file, or those of a conversation's recordings in order
MISFIT = "index does not fit its file"  # a reason that is counted


def read_utterance(
    index: Index, i: int, handles: Handles, whole: bool = True
) -> tuple[Utterance, Audio]:
    """Read utterance ``i`` and the bytes of its audio file; of a conversation the list of all.

    A segment comes cut out, with ``start`` and ``end`` taken off. Raises Drop for anything that
    cannot be read, and, where segments have to be ``whole``, for one that ends beyond its
    recording, whose text would be longer.
    """
    path = index.path
    first = int(index.offsets[i])
    size = int(index.sizes[i])
    block = handles.read(path, first, size)
    if index.kind == "tar":
        utterance, audio = _read_tar(index, block, whole)
    else:
        utterance, audio = _read_raw(index, block, handles, whole)

    # an index of another file, or of one that has changed, leads to somebody else
    expected = str(index.keys[i])
    if utterance.key != expected:
        fault = f"{utterance.key!r} where {expected!r} should be"
        raise Drop(MISFIT, f"{path}: {fault}; delete {index_of(path)}")
    if utterance.turns:
        cut_out = _conversation(index, i, utterance)
        return cut_out, audio
    seconds = float(index.durations[i])
    utterance.start = None
    utterance.end = None
    utterance.duration = round(seconds, 4)
    return utterance, audio


def _conversation(index: Index, i: int, utterance: Utterance) -> Utterance:
    """Return a conversation whose recordings are cut out. Raises Drop."""
    path = index.path
    turns = len(utterance.turns)
    if index.turns is None or index.turns[i, indices.TURNS] != turns:
        told = f"{path}: {utterance.key!r} has {turns} earlier turns"
        advice = f"delete {index_of(path)}"
        raise Drop(MISFIT, f"{told}, the index says otherwise; {advice}")
    for one in utterance.recordings():
        one.start = None
        one.end = None
    return utterance


def _read_tar(index: Index, block: bytes, whole: bool) -> tuple[Utterance, Audio]:
    """Read an utterance of its members. Raises Drop."""
    buffer = memoryview(block)
    group = next(
        groups(buffer, [], ended=False),
        None,
    )
    if group is None:
        path = index.path
        raise Drop(MISFIT, f"{path}: no members; delete {index_of(path)}")
    parts = group.parts(buffer)
    utterance, _ = read_members(group.stem, parts)

    sounds = []
    for one in utterance.recordings():
        member = part_of(one, parts)
        sounds.append(_sound(one, member, whole))
    if utterance.turns:
        return utterance, sounds
    return utterance, sounds[0]


def _sound(utterance: Utterance, member: memoryview, whole: bool) -> bytes:
    """Return the audio file of a member, the utterance's segment cut out where it has one."""
    audio = bytes(member)
    start = utterance.start
    end = utterance.end
    if start is None and end is None:
        return audio
    segment = cut(audio, start, end)
    if whole:
        check_length(utterance, segment)
    return segment


def _read_raw(
    index: Index, line: bytes, handles: Handles, whole: bool
) -> tuple[Utterance, Audio]:
    """Read an utterance of its line, and its recordings. Raises Drop."""
    try:
        utterance = parse_line(line)
    except ValueError as error:
        raise Drop(MISFIT, f"{index.path}: {error}") from None
    read = whole_recording if whole else recording
    sounds = []
    for one in utterance.recordings():
        path = find(one.wav, index.path)
        sound = read(one, path, handles.conf)
        sounds.append(sound)
    return utterance, sounds if utterance.turns else sounds[0]


def write_list(path: str | Path, shard_paths: Iterable[str | Path]) -> None:
    """Write a data.list, one shard per line; the file appears whole or not at all."""
    lines = [f"{shard}\n" for shard in shard_paths]
    text = "".join(lines)
    write_text(path, text)
