"""Voices belong to one split each; a speaker that is a program gets words, never a shell."""

from __future__ import annotations

import pytest
import soundfile

from wenet_osum.corpus.voices import CommandSpeaker, EspeakSpeaker, deal_voices, espeak_voices


def test_every_voice_differs_and_belongs_to_one_split():
    for lang in ("en", "zh", "de"):
        voices = espeak_voices(lang)
        assert len(voices) == len(set(voices.values())) == 24
        dealt = deal_voices([*voices])
        assert sorted(name for names in dealt.values() for name in names) == sorted(voices)
        assert [len(names) for names in dealt.values()] == [15, 5, 4]
    assert {voice.language for voice in espeak_voices("en").values()} == {"en-us", "en-gb"}
    assert {voice.language for voice in espeak_voices("de").values()} == {"de"}


@pytest.mark.parametrize(("names", "dealt"), [("abc", ["a", "b", "c"]), ("abcd", ["ab", "c", "d"]), ("abcde", ["abc", "d", "e"])])
def test_few_voices_are_dealt_too(names, dealt):
    assert ["".join(voices) for voices in deal_voices(names).values()] == dealt


@pytest.mark.parametrize("names", ["ab", "aab"])
def test_too_few_or_doubled_voices_are_refused(names):
    with pytest.raises(ValueError, match="3 different ones are needed"):
        deal_voices(names)


def test_espeak_says_numbers_and_has_no_sound_for_dots(tmp_path):
    voices = espeak_voices("en")
    speaker = EspeakSpeaker(voices)
    speaker.speak("What is 2 + 2, Mr. Smith?", next(iter(voices)), tmp_path / "a.wav")
    assert soundfile.info(tmp_path / "a.wav").samplerate == 16000 and soundfile.info(tmp_path / "a.wav").duration > 1
    with pytest.raises(ValueError, match="no sound"):
        speaker.speak("...", next(iter(voices)), tmp_path / "b.wav")
    speaker.close()


def test_a_program_gets_its_text_as_one_word_or_as_input(tmp_path):
    out = tmp_path / "o"
    text = "a 'b' $(c); {out} {voice}"
    CommandSpeaker("cp --no-clobber {text} {out}")  # words with and without marks
    CommandSpeaker("tee {out}").speak(text, "v", out)
    assert out.read_text() == text
    CommandSpeaker("bash -c 'printf %s:%s \"$1\" \"$2\" > \"$3\"' x {text} {voice} {out}").speak(text, "v", out)
    assert out.read_text() == f"{text}:v"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "must name a program"),
        ("say {text}", "hold {out}"),
        ("no_such_program {out}", "No such file"),
        ("false {out}", "exit status 1"),
        ("true {out}", "no file written"),
    ],
)
def test_faults_of_programs_are_told(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        CommandSpeaker(line).speak("x", "v", tmp_path / "none")
