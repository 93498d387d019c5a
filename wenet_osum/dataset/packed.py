"""What of an utterance goes into a shard: its sound and its members, or those of a conversation."""

from __future__ import annotations

import dataclasses

from wenet_osum.dataset.audio import convert, read_duration, whole_duration
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.layout import member_parts
from wenet_osum.dataset.recording import check_words, whole_recording
from wenet_osum.dataset.tar import AUDIO, EARLIER, MOST_EARLIER
from wenet_osum.records import Utterance

# What audio files begin with, and the extension they get.
_MAGIC = (
    (b"RIFF", "wav"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"FORM", "aiff"),
    (b"NIST_1A", "sph"),
)
Sound = tuple[bytes, float]  # an audio file, and how long it is, s
Packed = tuple[list[bytes], Utterance]  # members in pieces, and the utterance as it will be read


def sound(utterance: Utterance, resample: int | None) -> Sound:
    """Read the recording of an utterance, its segment cut out.

    ``resample`` (Hz) asks for another rate. Raises Drop.
    """
    audio = whole_recording(utterance, utterance.wav)
    seconds = whole_duration(audio)
    if resample:
        audio = convert(audio, resample)
        seconds = read_duration(audio)
    check_words(utterance, seconds)
    return audio, round(seconds, 4)


def pack_one(
    utterance: Utterance,
    line: dict,
    read_back: Utterance,
    layout: str,
    resample: int | None,
) -> Packed:
    """Pack an utterance with one recording; ``line`` is its row. Raises Drop."""
    audio, duration = sound(utterance, resample)
    alone = {"start": None, "end": None, "duration": duration}
    packed = dataclasses.replace(utterance, **alone)
    ext = extension(utterance.wav, audio)
    row = _row(line, duration)
    parts = member_parts(packed, audio, ext, layout, row)
    as_read = dataclasses.replace(read_back, **alone)
    return parts, as_read


def pack_conversation(utterance: Utterance, layout: str, resample: int | None) -> Packed:
    """Pack a conversation: its own recording as any other, those of earlier turns beside it.

    Raises Drop.
    """
    turns = []
    earlier = []
    for turn in utterance.turns:
        if turn.wav:
            number = len(earlier)
            turn, audio = _packed_turn(turn, number, utterance.key, resample)
            earlier.append(audio)
        turns.append(turn)

    own = b""
    ext = ""
    seconds = None
    if utterance.wav:
        own, seconds = sound(utterance, resample)
        ext = extension(utterance.wav, own)
    packed = dataclasses.replace(
        utterance,
        start=None,
        end=None,
        duration=seconds,
        turns=turns,
    )
    parts = member_parts(packed, own, ext, layout, earlier=earlier)
    return parts, packed


def _packed_turn(
    turn: Utterance, number: int, key: str, resample: int | None
) -> tuple[Utterance, bytes]:
    """Return a turn as the shard names it, and its audio file. Raises Drop."""
    if number == MOST_EARLIER:
        told = f"{key!r} has more than {MOST_EARLIER} before its last"
        raise Drop("conversation: too many recordings", f"{told}; cut it into two")
    audio, duration = sound(turn, resample)
    packed = dataclasses.replace(
        turn,
        wav=EARLIER[number],
        start=None,
        end=None,
        duration=duration,
    )
    return packed, audio


def _row(line: dict, duration: float) -> dict:
    """Return an utterance's row with the duration of its audio; ``extra`` comes last, as in all."""
    row = dict(line)
    extra = row.pop("extra", None)
    row["duration"] = duration
    if "extra" in line:
        row["extra"] = extra
    return row


def extension(wav: str, audio: bytes) -> str:
    """Choose by content first: files are often named for what they once were."""
    for magic, ext in _MAGIC:
        if audio.startswith(magic):
            return ext
    _, _, by_name = wav.rpartition(".")
    by_name = by_name.lower()
    return by_name if by_name in AUDIO else "wav"
