"""Tar shards and their data.list.

WeNet's layout, ours and the published OSUM one are read. Ours is written, which WeNet reads too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from wenet_osum.dataset.drop import Drop, note
from wenet_osum.dataset.pack import pack
from wenet_osum.dataset.packed import extension
from wenet_osum.dataset.shard import Handles, load_list, read_utterance, write_list
from wenet_osum.dataset.tar import stem_of
from wenet_osum.files import write_bytes
from wenet_osum.records import Utterance

LAYOUT = "json"


def read(path: str, dropped: Counter, audio_dir: str) -> Iterator[Utterance]:
    """Yield the utterances of a data.list.

    Each audio member becomes a file in ``audio_dir``, byte for byte.
    """
    handles = Handles()
    for index in load_list(path, dropped):
        for number, key in enumerate(index.keys):
            try:
                utterance, audio = read_utterance(index, number, handles)
            except Drop as drop:
                note(dropped, str(key), drop.reason)
                continue
            sounds = audio if utterance.turns else [audio]
            recordings = utterance.recordings()
            for one, sound in zip(recordings, sounds, strict=True):
                suffix = Path(one.wav).suffix
                # The members of earlier turns are not named for what they hold.
                if one is not utterance:
                    ext = extension("", sound)
                    suffix = f".{ext}"
                one.wav = save_audio(audio_dir, one.key, suffix, sound)
            yield utterance


def save_audio(audio_dir: str, key: str, suffix: str, audio: bytes) -> str:
    """Write the audio of an utterance under its key. Returns the path."""
    name = f"{stem_of(key)}{suffix}"
    target = Path(audio_dir) / name
    write_bytes(target, audio)
    return str(target)


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a data.list at ``path`` and its shards in ``<path without .list>_shards``."""
    return write_layout(path, utterances, lost, LAYOUT)


def write_layout(path: str, utterances: Iterable[Utterance], lost: Counter, layout: str) -> int:
    """Do the same in a layout of ``dataset/layout.py``."""
    stem = Path(path).as_posix().removesuffix(".list")
    report = pack(utterances, f"{stem}_shards", layout=layout)
    lost.update(report.dropped)
    if report.paths:
        write_list(path, report.paths)
    return sum(report.counts)
