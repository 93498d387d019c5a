"""Speak text in one of many voices: by espeak-ng, or by any program that a command line names.

A voice belongs to one split, so that no test voice was trained on.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import soundfile

from wenet_osum.corpus import mix
from wenet_osum.corpus.espeak import Espeak, EspeakVoice
from wenet_osum.records import SAMPLE_RATE

# Toolkit language → espeak-ng languages; another code is taken as espeak-ng's own.
ACCENTS = {"en": ("en-us", "en-gb"), "zh": ("cmn",)}
PITCHES_HZ = (78, 88, 99, 112, 160, 178, 198, 220)  # lowest pitch of a voice
FORMANTS = (0.94, 1.0, 1.08, 1.14)
RATES = (165, 190, 215)  # words per minute
VOICES = 24  # per language; after that many the combinations repeat
LEVEL_DB = -23.0  # RMS of a recording, below full scale


def espeak_voices(lang: str) -> dict[str, EspeakVoice]:
    """Return every voice of a language by its name.

    Neighbors in the order differ in pitch, formants and rate at once.
    """
    accents = ACCENTS.get(lang, (lang,))
    pitches = cycle(PITCHES_HZ)
    rates = cycle(RATES)
    found = {}
    for i in range(VOICES):
        pitch = next(pitches)
        rate = next(rates)
        # Formants change with every second voice, the accent with every third.
        formants = FORMANTS[i // 2 % len(FORMANTS)]
        accent = accents[i // 3 % len(accents)]

        percent = round(100 * formants)
        name = f"{accent}_{pitch}hz_{percent}_{rate}"
        found[name] = EspeakVoice(
            language=accent,
            pitch_hz=(pitch, pitch * 1.4),
            rate=rate,
            formants=formants,
        )
    return found


def deal_voices(
    names: Sequence[str], splits: Sequence[str] = ("train", "dev", "test")
) -> dict[str, list[str]]:
    """Deal voices to splits, none to two of them.

    Of every five the fourth goes to dev, the fifth to test; each split gets one at least. Raises
    ValueError for fewer voices than splits, and for one that stands twice.
    """
    names = list(names)
    count = len(names)
    different = len(set(names))
    if count < len(splits) or different < count:
        first = ", ".join(names[:5])
        rule = f"{len(splits)} different ones are needed at least, one per split"
        raise ValueError(f"{count} voices ({first}): {rule}")

    # Of few voices the last ones go to the other splits, one to each.
    largest, *others = splits
    if count < 5:
        taken = names[-len(others) :]
        dealt = {largest: names[: -len(others)]}
        for split, name in zip(others, taken, strict=True):
            dealt[split] = [name]
        return dealt

    dealt = {split: [] for split in splits}
    dev, test = others
    positions = {3: dev, 4: test}
    for i, name in enumerate(names):
        split = positions.get(i % 5, largest)
        dealt[split].append(name)
    return dealt


class EspeakSpeaker:
    """Speaks by espeak-ng, in voices by the names of ``espeak_voices``."""

    def __init__(self, voices: dict[str, EspeakVoice]) -> None:
        self.voices = voices
        self._espeak = Espeak()

    def speak(self, text: str, voice: str, path: Path) -> None:
        """Write a 16 kHz recording. Raises ValueError for text without a sound."""
        setting = self.voices[voice]
        audio = self._espeak.say(text, setting)
        leveled = mix.set_level(audio, LEVEL_DB)
        soundfile.write(path, leveled, SAMPLE_RATE, subtype="PCM_16")

    def close(self) -> None:
        """Give back the library's memory."""
        self._espeak.close()


class CommandSpeaker:
    """Speaks by a program of the user's, e.g. ``piper --model {voice} --output_file {out}``.

    The line is split into words once, then ``{text}``, ``{voice}`` and ``{out}`` are filled in word
    by word; there is no shell, so no text can become a command. Without ``{text}`` in it, the text
    goes to the program's standard input. Raises ValueError for a line without ``{out}``.
    """

    def __init__(self, command: str) -> None:
        self.words = shlex.split(command)
        marks = " ".join(self.words)
        if "{out}" not in marks:
            rule = "must name a program and hold {out}, the file it is to write"
            raise ValueError(f"--speaker {command!r} {rule}")
        self._takes_text = "{text}" in marks

    def speak(self, text: str, voice: str, path: Path) -> None:
        """Have the recording written.

        Raises ValueError when the program fails or writes nothing.
        """
        values = {
            "{voice}": voice,
            "{out}": str(path),
            "{text}": text,
        }
        words = [_fill(word, values) for word in self.words]
        program = words[0]
        spoken = None if self._takes_text else text
        try:
            done = subprocess.run(
                words,
                input=spoken,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            advice = "install it, or give its path"
            raise ValueError(f"speaker {program}: {error.strerror}; {advice}") from None

        if done.returncode or not path.exists():
            said = done.stderr.strip().splitlines()
            last = "no file written"
            if said:
                last = said[-1][:120]
            status = f"exit status {done.returncode}"
            raise ValueError(f"speaker {program}: {status}, {last}")

    def close(self) -> None:
        """Do nothing: no memory or file is held."""


def _fill(word: str, values: dict[str, str]) -> str:
    """Fill in marks in one pass over the word, so that a text which holds ``{out}`` stays."""
    for mark, value in values.items():
        if mark in word:
            before, _, after = word.partition(mark)
            before = _fill(before, values)
            after = _fill(after, values)
            return before + value + after
    return word
