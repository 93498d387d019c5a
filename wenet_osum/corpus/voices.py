"""Text spoken by a synthesizer in one of many voices: espeak-ng, or any program that a command line names.

A voice belongs to one split, so that no test voice was trained on.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import soundfile

from wenet_osum.corpus import mix
from wenet_osum.corpus.espeak import Espeak, EspeakVoice
from wenet_osum.records import SAMPLE_RATE

ACCENTS = {"en": ("en-us", "en-gb"), "zh": ("cmn",)}  # toolkit language → espeak-ng languages; another code is taken as espeak-ng's own
PITCHES_HZ = (78, 88, 99, 112, 160, 178, 198, 220)  # lowest pitch of a voice
FORMANTS = (0.94, 1.0, 1.08, 1.14)
RATES = (165, 190, 215)  # words a minute
LEVEL_DB = -23.0  # RMS of a recording, below full scale


def espeak_voices(lang: str) -> dict[str, EspeakVoice]:
    """Every voice of a language by its name. Neighbors in the order differ in pitch, formants and rate at once."""
    found = {}
    for i in range(24):  # then the row begins again
        pitch, formants, rate = PITCHES_HZ[i % len(PITCHES_HZ)], FORMANTS[(i // 2) % len(FORMANTS)], RATES[i % len(RATES)]
        accent = ACCENTS.get(lang, (lang,))[i // 3 % len(ACCENTS.get(lang, (lang,)))]
        name = f"{accent}_{pitch}hz_{round(100 * formants)}_{rate}"
        found[name] = EspeakVoice(accent, (pitch, pitch * 1.4), rate, formants)
    return found


def deal_voices(names: Sequence[str], splits: Sequence[str] = ("train", "dev", "test")) -> dict[str, list[str]]:
    """Voices of each split, none in two: of every five the fourth goes to dev, the fifth to test; at least one each.

    Raises ValueError for fewer voices than splits, and for one that stands twice.
    """
    names = list(names)
    if len(names) < len(splits) or len(set(names)) < len(names):
        raise ValueError(f"{len(names)} voices ({', '.join(names[:5])}): {len(splits)} different ones are needed at least, one a split")
    if len(names) < 5:
        return {splits[0]: names[: -len(splits) + 1]} | dict(zip(splits[1:], ([n] for n in names[-len(splits) + 1 :]), strict=True))
    positions = {3: splits[1], 4: splits[2]}
    return {split: [n for i, n in enumerate(names) if positions.get(i % 5, splits[0]) == split] for split in splits}


class EspeakSpeaker:
    """espeak-ng, by the names of ``espeak_voices``."""

    def __init__(self, voices: dict[str, EspeakVoice]) -> None:
        self.voices, self._espeak = voices, Espeak()

    def speak(self, text: str, voice: str, path: Path) -> None:
        """Write a 16 kHz recording. Raises ValueError for text without a sound."""
        audio = mix.set_level(self._espeak.say(text, self.voices[voice]), LEVEL_DB)
        soundfile.write(path, audio, SAMPLE_RATE, subtype="PCM_16")

    def close(self) -> None:
        """Give back the library's memory."""
        self._espeak.close()


class CommandSpeaker:
    """A program of the user's, e.g. ``piper --model {voice} --output_file {out}``.

    The line is split into words once, then ``{text}``, ``{voice}`` and ``{out}`` are filled in word by word; there is no shell, so no text can
    become a command. Without ``{text}`` in it, the text goes to the program's standard input. Raises ValueError for a line without ``{out}``.
    """

    def __init__(self, command: str) -> None:
        self.words = shlex.split(command)
        if not self.words or not any("{out}" in word for word in self.words):
            raise ValueError(f"--speaker {command!r} must name a program and hold {{out}}, the file it is to write")
        self._spoken = any("{text}" in word for word in self.words)

    def speak(self, text: str, voice: str, path: Path) -> None:
        """Have the recording written. Raises ValueError when the program fails or writes nothing."""
        values = {"{voice}": voice, "{out}": str(path), "{text}": text}
        words = [_fill(word, values) for word in self.words]
        try:
            done = subprocess.run(words, input=None if self._spoken else text, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ValueError(f"speaker {words[0]}: {error.strerror}; install it, or give its path") from None
        if done.returncode or not path.exists():
            last = (done.stderr.strip().splitlines() or ["no file written"])[-1]
            raise ValueError(f"speaker {words[0]}: exit status {done.returncode}, {last[:120]}")

    def close(self) -> None:
        """Nothing is held."""


def _fill(word: str, values: dict[str, str]) -> str:
    """One pass over the word, so that a text which holds ``{out}`` stays as it is."""
    for mark, value in values.items():
        if mark in word:
            before, _, after = word.partition(mark)
            return _fill(before, values) + value + _fill(after, values)
    return word
