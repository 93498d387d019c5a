"""Speech with true word times from espeak-ng, through the ``espeakng_loader`` wheel: no system package is needed.

espeak-ng runs at several hundred times real time but keeps its state in global variables: it is not thread-safe, and what it
says depends a little on what it said before. Each ``Espeak`` therefore loads a private copy of the library; its first
utterance is always the same for the same words and voice, and so is every sequence of utterances.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wenet_osum.records import SAMPLE_RATE, Word
from wenet_osum.corpus.mix import resample

_SYNCHRONOUS, _PHONEME_EVENTS_AND_DONT_EXIT, _UTF8, _POS_CHARACTER = 2, 0x8001, 1, 1
_NO_BREAK_SPACE = "\u00a0"  # over a plain space espeak-ng joins some neighbors into one entry of its dictionary (这 个, 不 怕)
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_PARAMETER_RATE, _PARAMETER_VOLUME, _PARAMETER_RANGE = 1, 2, 4


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


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Mark(NamedTuple):
    """A word or phoneme event: where it lies, in samples, and what it is."""

    kind: int
    sample: int
    text_position: int
    phoneme: str


@dataclass(frozen=True)
class EspeakVoice:
    """A voice setting of espeak-ng."""

    language: str = "en-us"  # name of an espeak-ng language: "en-us", "en-gb", "cmn", …
    pitch_hz: tuple[float, float] = (82.0, 118.0)  # lowest and highest pitch of the intonation
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
            raise ValueError("espeak-ng is not installed: run `pip install espeakng-loader`") from None
        self._data = Path(espeakng_loader.get_data_path())
        self._folder = tempfile.TemporaryDirectory(prefix="espeak_")
        self._library = self._load(espeakng_loader.get_library_path())
        self._chunks: list[np.ndarray] = []
        self._marks: list[_Mark] = []
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice: EspeakVoice | None = None
        self._language_files = {self._language_name(path): path for path in sorted(self._data.glob("lang/**/*")) if path.is_file()}

    def close(self) -> None:
        """Give back the memory and the temporary folder."""
        self._library.espeak_Terminate()
        self._folder.cleanup()

    def __enter__(self) -> Espeak:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self, source: str) -> ctypes.CDLL:
        """A copy under another name is another library to the dynamic linker, with state of its own."""
        copy = Path(self._folder.name) / "libespeak-ng.so"
        shutil.copyfile(source, copy)
        library = ctypes.CDLL(str(copy))
        self._rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, str(self._data).encode(), _PHONEME_EVENTS_AND_DONT_EXIT)
        assert self._rate_hz > 0, f"espeak_Initialize answered {self._rate_hz}"
        library.espeak_Synth.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int] + [ctypes.c_uint] * 2 + [ctypes.c_void_p] * 2
        return library

    @staticmethod
    def _language_name(path: Path) -> str:
        lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
        return next((line.split()[1] for line in lines if line.startswith("language ")), path.name)

    def speak(self, words: list[str], voice: EspeakVoice) -> tuple[np.ndarray, list[Word]]:
        """Say ``words`` (Mandarin: characters) and give 16 kHz float32 audio, trailing silence cut, and the time of each word.

        Raises ValueError for an unknown language, and when espeak-ng reads two words as one or one as several.
        """
        self._synthesize(_NO_BREAK_SPACE.join(words), voice)
        times = self._word_times(words)
        samples = np.concatenate(self._chunks)[: times[-1][1] + self._rate_hz // 100]
        audio = resample(samples.astype(np.float32) / 32768, self._rate_hz * voice.shift, SAMPLE_RATE)
        scale = 1 / (self._rate_hz * voice.shift)
        return audio, [Word(word, start * scale, end * scale) for word, (start, end) in zip(words, times, strict=True)]

    def say(self, text: str, voice: EspeakVoice) -> np.ndarray:
        """Any text, numbers and punctuation included, as 16 kHz float32 audio without word times.

        Raises ValueError for an unknown language, and for text without a sound.
        """
        self._synthesize(text, voice)
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        if not samples.any():
            raise ValueError(f"espeak-ng has no sound for {text[:40]!r} in {voice.language}")
        return resample(samples.astype(np.float32) / 32768, self._rate_hz * voice.shift, SAMPLE_RATE)

    def phonemes(self, word: str, language: str) -> str:
        """The phonemes of a single word in espeak-ng's notation, tone included."""
        self.speak([word], EspeakVoice(language=language))
        return " ".join(mark.phoneme for mark in self._marks if mark.kind == _EVENT_PHONEME and not mark.phoneme.startswith("_"))

    def _synthesize(self, text: str, voice: EspeakVoice) -> None:
        """Fill ``_chunks`` and ``_marks``."""
        self._set_voice(voice)
        self._chunks.clear()
        self._marks.clear()
        data = text.encode()
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        status = self._library.espeak_Synth(data, len(data) + 1, 0, _POS_CHARACTER, 0, _UTF8, None, None)
        assert status == 0, f"espeak_Synth answered {status}"

    def _set_voice(self, voice: EspeakVoice) -> None:
        if voice.language not in self._language_files:
            raise ValueError(f"espeak-ng has no language {voice.language!r}; it has, among others, en-us, en-gb and cmn")
        if voice != self._voice:
            path = Path(self._folder.name) / "voice"
            path.write_bytes(self._language_files[voice.language].read_bytes() + ("\n" + "\n".join(_voice_lines(voice)) + "\n").encode())
            status = self._library.espeak_ng_SetVoiceByFile(str(path).encode())
            assert status == 0, f"espeak_ng_SetVoiceByFile answered {status}"
            self._voice = voice
        self._library.espeak_SetParameter(_PARAMETER_RATE, int(voice.rate), 0)
        self._library.espeak_SetParameter(_PARAMETER_RANGE, 50, 0)
        self._library.espeak_SetParameter(_PARAMETER_VOLUME, 60, 0)  # at the usual 100 high voices clip

    def _receive(self, samples: ctypes._Pointer, count: int, events: ctypes._Pointer) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_END:
            event = events[i]
            if event.type in (_EVENT_WORD, _EVENT_PHONEME):
                phoneme = event.id.string.decode(errors="replace") if event.type == _EVENT_PHONEME else ""
                self._marks.append(_Mark(event.type, event.sample, event.text_position, phoneme))
            i += 1
        return 0

    def _word_times(self, words: list[str]) -> list[tuple[int, int]]:
        """First and last sample of each word: a word ends where the next begins, or at a pause before that."""
        begins = [i for i, mark in enumerate(self._marks) if mark.kind == _EVENT_WORD]
        positions = [1 + sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
        if [self._marks[i].text_position for i in begins] != positions:
            raise ValueError(f"espeak-ng does not read {' '.join(words)!r} word by word; choose other words")
        times = []
        for begin, end in zip(begins, [*begins[1:], len(self._marks)], strict=True):
            sounds = [mark for mark in self._marks[begin:end] if mark.kind == _EVENT_PHONEME]
            first = next(mark.sample for mark in sounds if not mark.phoneme.startswith("_"))
            pause = next((mark.sample for mark in sounds if mark.phoneme.startswith("_") and mark.sample > first), None)
            after_pause = begin == begins[0] or self._marks[begin - 1].phoneme.startswith("_:")
            start = first if after_pause else self._marks[begin].sample
            last = pause if pause is not None else self._marks[end].sample
            times.append((start, last))
        return times


def _voice_lines(voice: EspeakVoice) -> list[str]:
    low, high = voice.pitch_hz
    formants = [f"formant {n} {100 * voice.formants:.0f} 100 100" for n in range(1, 9)] if voice.formants != 1 else []
    return [f"pitch {low:.0f} {high:.0f}", "flutter 0", *formants, *voice.lines]
