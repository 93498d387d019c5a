"""Normalisers and the cutting of text."""

from __future__ import annotations

import pytest

from wenet_osum.score import normalize


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("none", "Hello,  World!", "Hello,  World!"),
        ("basic", "Don’t  STOP—'now'. Ｈｉ！", "don't stop now hi"),
        ("whisper_en", "Mr. Smith won't, uh, pay $1,000 [noise] it's", "mister smith will not pay $1000 it is"),
        ("whisper_en", "Café they're 3.5", "cafe they are 3.5"),
        ("wenet_zh", "你 好，ok　世 界。<笑>", "你好 OK 世界"),
    ],
)
def test_normalizers(name, text, written):
    got = normalize.get(name)(text)
    assert (got if name == "none" else " ".join(got.split())) == written


def test_normalizer_by_language():
    names = "en:whisper_en,zh:wenet_zh"
    assert normalize.prepare("Don't!", "en", names) == ["do", "not"]
    assert normalize.prepare("你好。", "zh", names) == ["你", "好"]
    assert normalize.prepare("Où?", "fr", names) == ["Où?"]


def test_unknown_normalizer_suggests():
    with pytest.raises(ValueError, match="did you mean 'whisper_en'"):
        normalize.get("whisper")
    with pytest.raises(ValueError, match="unknown normalizer"):
        normalize.get("en:nothing", "zh")


def test_tokens_by_language():
    assert normalize.tokens("play 周杰伦 songs", "zh") == ["play", "周", "杰", "伦", "songs"]
    assert normalize.tokens("play周杰伦", "mixed") == ["play", "周", "杰", "伦"]
    assert normalize.tokens("ありがとう café", "ja") == [*"ありがとう", "café"]
    assert normalize.tokens("a  b\u00e9 c", "en") == ["a", "bé", "c"]
    assert normalize.tokens("e\u0301", "fr") == ["\u00e9"]  # composed before comparing


def test_language_from_the_list_or_the_script():
    assert normalize.language("zh-CN", "hello") == "zh"
    assert normalize.language("EN_us", "") == "en"
    assert normalize.language("zh-en", "x") == "zh-en"
    assert [normalize.language(None, t) for t in ("你好", "hi 你好", "hi", "ありがと", "привет")] == ["zh", "mixed", "en", "ja", "und"]


def test_fold_keeps_words_of_punctuation_apart():
    assert normalize.fold("Hello,") == "hello"
    assert normalize.fold("—") == "—"
