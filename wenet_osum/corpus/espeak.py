"""Synthesize speech with true word times by espeak-ng, through the ``espeakng_loader`` wheel.

No system package is needed. espeak-ng runs at several hundred times real time but keeps its state
in global variables: it is not thread-safe, and what it says depends a little on what it said
before. Each ``Espeak`` therefore loads a private copy of the library; its first utterance is always
the same for the same words and voice, and so is every sequence of utterances.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wenet_osum.corpus.mix import resample
from wenet_osum.records import SAMPLE_RATE, Word

# Numbers of speak_lib.h.
_SYNCHRONOUS, _PHONEME_EVENTS_AND_DONT_EXIT, _UTF8, _POS_CHARACTER = 2, 0x8001, 1, 1
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_PARAMETER_RATE, _PARAMETER_VOLUME, _PARAMETER_RANGE = 1, 2, 4
# Over a plain space espeak-ng joins some neighbors into one entry of its dictionary (这 个, 不 怕).
_NO_BREAK_SPACE = "\u00a0"


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_short),
    ctypes.c_int,
    ctypes.POINTER(_Event),
)


class _Mark(NamedTuple):
    """A word or phoneme event."""

    kind: int  # _EVENT_WORD or _EVENT_PHONEME
    sample: int  # where it lies in the audio
    text_position: int  # character of the text, from 1
    phoneme: str  # "" for a word; pauses begin with "_"

    @property
    def is_sound(self) -> bool:
        return self.kind == _EVENT_PHONEME and not self.phoneme.startswith("_")

    @property
    def is_pause(self) -> bool:
        return self.kind == _EVENT_PHONEME and self.phoneme.startswith("_")


@dataclass(frozen=True)
class EspeakVoice:
    """A voice setting of espeak-ng."""

    language: str = "en-us"  # name of an espeak-ng language: "en-us", "en-gb", "cmn", …
    pitch_hz: tuple[float, float] = (82.0, 118.0)  # lowest and highest of the intonation
    rate: int = 200  # words per minute, 80–450
    formants: float = 1.0  # scale of all formant frequencies
    shift: float = 1.0  # resampling: scales pitch, formants and tempo together
    lines: tuple[str, ...] = ()  # further lines of an espeak-ng voice file, e.g. "breath 0 4 4 4"


class Espeak:
    """A private instance of espeak-ng. Raises ValueError when the wheel is not installed."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            advice = "run `pip install espeakng-loader`"
            raise ValueError(f"espeak-ng is not installed: {advice}") from None
        self._data = Path(espeakng_loader.get_data_path())
        self._folder = tempfile.TemporaryDirectory(prefix="espeak_")
        self._library = self._load(espeakng_loader.get_library_path())
        self._rate_hz = self._start()

        # The library hands its results to a callback while it speaks.
        self._chunks: list[np.ndarray] = []
        self._marks: list[_Mark] = []
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

        self._voice: EspeakVoice | None = None
        self._language_files: dict[str, Path] = {}
        for path in sorted(self._data.glob("lang/**/*")):
            if path.is_file():
                self._language_files[_language_name(path)] = path

    def close(self) -> None:
        """Give back the memory and the temporary folder."""
        self._library.espeak_Terminate()
        self._folder.cleanup()

    def __enter__(self) -> Espeak:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self, source: str) -> ctypes.CDLL:
        """Load a copy of the library.

        Under another name it is another library to the dynamic linker, with state of its own.
        """
        copy = Path(self._folder.name) / "libespeak-ng.so"
        shutil.copyfile(source, copy)
        library = ctypes.CDLL(str(copy))
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p,  # text
            ctypes.c_size_t,  # its bytes, the closing zero included
            ctypes.c_uint,  # position to begin at
            ctypes.c_int,  # unit of the position
            ctypes.c_uint,  # position to end at, 0: the end of the text
            ctypes.c_uint,  # flags
            ctypes.c_void_p,  # receives an identifier
            ctypes.c_void_p,  # user data
        ]
        return library

    def _start(self) -> int:
        """Initialize the library and return its sampling rate, Hz."""
        data = str(self._data).encode()
        rate_hz = self._library.espeak_Initialize(
            _SYNCHRONOUS, 0, data, _PHONEME_EVENTS_AND_DONT_EXIT
        )
        assert rate_hz > 0, f"espeak_Initialize answered {rate_hz}"
        return rate_hz

    def speak(self, words: list[str], voice: EspeakVoice) -> tuple[np.ndarray, list[Word]]:
        """Say ``words`` (Mandarin: characters).

        Returns 16 kHz float32 audio (samples,), trailing silence cut, and the words with their
        times. Raises ValueError for an unknown language, and when espeak-ng reads two words as one
        or one as several.
        """
        text = _NO_BREAK_SPACE.join(words)
        self._synthesize(text, voice)
        spans = self._word_spans(words)
        _, last = spans[-1]
        samples = np.concatenate(self._chunks)
        audio = self._to_16_khz(samples[: last + self._rate_hz // 100], voice)

        scale = 1 / (self._rate_hz * voice.shift)
        timed = []
        for word, (start, end) in zip(words, spans, strict=True):
            timed.append(Word(word, start * scale, end * scale))
        return audio, timed

    def say(self, text: str, voice: EspeakVoice) -> np.ndarray:
        """Say any text, numbers and punctuation included.

        Returns 16 kHz float32 audio (samples,) without word times. Raises ValueError for an unknown
        language, and for text without a sound.
        """
        self._synthesize(text, voice)
        samples = np.zeros(0, np.int16)
        if self._chunks:
            samples = np.concatenate(self._chunks)
        if not samples.any():
            raise ValueError(f"espeak-ng has no sound for {text[:40]!r} in {voice.language}")
        return self._to_16_khz(samples, voice)

    def phonemes(self, word: str, language: str) -> str:
        """Return the phonemes of a single word in espeak-ng's notation, tone included."""
        self.speak([word], EspeakVoice(language=language))
        found = []
        for mark in self._marks:
            if mark.is_sound:
                found.append(mark.phoneme)
        return " ".join(found)

    def _to_16_khz(self, samples: np.ndarray, voice: EspeakVoice) -> np.ndarray:
        """Resample int16 ``samples`` to 16 kHz float32; the voice's shift is a part of it."""
        scaled = samples.astype(np.float32) / 32768
        return resample(scaled, self._rate_hz * voice.shift, SAMPLE_RATE)

    def _synthesize(self, text: str, voice: EspeakVoice) -> None:
        """Fill ``_chunks`` and ``_marks``."""
        self._set_voice(voice)
        self._chunks.clear()
        self._marks.clear()
        data = text.encode()

        # Breath and flutter are drawn at random; the same text must always sound the same.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        status = self._library.espeak_Synth(
            data, len(data) + 1, 0, _POS_CHARACTER, 0, _UTF8, None, None
        )
        assert status == 0, f"espeak_Synth answered {status}"

    def _set_voice(self, voice: EspeakVoice) -> None:
        """Set a voice. Raises ValueError for an unknown language."""
        if voice.language not in self._language_files:
            known = "it has, among others, en-us, en-gb and cmn"
            raise ValueError(f"espeak-ng has no language {voice.language!r}; {known}")
        if voice != self._voice:
            self._load_voice(voice)
            self._voice = voice
        set_parameter = self._library.espeak_SetParameter
        set_parameter(_PARAMETER_RATE, int(voice.rate), 0)
        set_parameter(_PARAMETER_RANGE, 50, 0)
        # At the usual 100 high voices clip.
        set_parameter(_PARAMETER_VOLUME, 60, 0)

    def _load_voice(self, voice: EspeakVoice) -> None:
        """Load the file of the voice's language with the voice's own lines at its end."""
        language = self._language_files[voice.language].read_bytes()
        lines = "\n".join(_voice_lines(voice))
        path = Path(self._folder.name) / "voice"
        path.write_bytes(language + f"\n{lines}\n".encode())
        status = self._library.espeak_ng_SetVoiceByFile(str(path).encode())
        assert status == 0, f"espeak_ng_SetVoiceByFile answered {status}"

    def _receive(self, samples: ctypes._Pointer, count: int, events: ctypes._Pointer) -> int:
        """Take over a chunk of audio and its events; espeak-ng calls it."""
        if samples and count > 0:
            chunk = np.ctypeslib.as_array(samples, (count,))
            self._chunks.append(chunk.copy())

        i = 0
        while events[i].type != _EVENT_END:
            event = events[i]
            if event.type in (_EVENT_WORD, _EVENT_PHONEME):
                self._marks.append(_mark(event))
            i += 1
        return 0

    def _word_spans(self, words: list[str]) -> list[tuple[int, int]]:
        """Return the first and last sample of each word.

        A word ends where the next begins, or at a pause before that.
        """
        begins = self._word_marks(words)
        ends = [*begins[1:], len(self._marks)]
        spans = []
        for begin, end in zip(begins, ends, strict=True):
            # The first sound of the word, and the first pause after it.
            first = pause = None
            for mark in self._marks[begin:end]:
                if first is None:
                    if mark.is_sound:
                        first = mark.sample
                elif mark.is_pause and mark.sample > first:
                    pause = mark.sample
                    break

            if first is None:
                text = " ".join(words)
                raise ValueError(f"espeak-ng has no sound for a word of {text!r}")

            # After a pause the mark of a word lies in the silence before its first sound.
            before = self._marks[begin - 1]
            after_pause = begin == begins[0] or before.phoneme.startswith("_:")
            start = first if after_pause else self._marks[begin].sample
            last = pause if pause is not None else self._marks[end].sample
            spans.append((start, last))
        return spans

    def _word_marks(self, words: list[str]) -> list[int]:
        """Return the index of each word's mark.

        Raises ValueError when espeak-ng has not read the text word by word.
        """
        found = []
        positions = []
        for i, mark in enumerate(self._marks):
            if mark.kind == _EVENT_WORD:
                found.append(i)
                positions.append(mark.text_position)

        # Positions count characters from 1; one space stands between two words.
        expected = []
        position = 1
        for word in words:
            expected.append(position)
            position += len(word) + 1
        if positions != expected:
            text = " ".join(words)
            raise ValueError(f"espeak-ng does not read {text!r} word by word; choose other words")
        return found


def _mark(event: _Event) -> _Mark:
    phoneme = ""
    if event.type == _EVENT_PHONEME:
        phoneme = event.id.string.decode(errors="replace")
    return _Mark(event.type, event.sample, event.text_position, phoneme)


def _language_name(path: Path) -> str:
    """Read a language's name from its file in espeak-ng's data."""
    text = path.read_text(encoding="utf-8", errors="ignore")
    for line in text.splitlines():
        if line.startswith("language "):
            return line.split()[1]
    return path.name


def _voice_lines(voice: EspeakVoice) -> list[str]:
    """Write the lines of an espeak-ng voice file that make the voice."""
    low, high = voice.pitch_hz
    lines = [f"pitch {low:.0f} {high:.0f}", "flutter 0"]
    if voice.formants != 1:
        percent = f"{100 * voice.formants:.0f}"
        for number in range(1, 9):
            lines.append(f"formant {number} {percent} 100 100")
    return [*lines, *voice.lines]
