"""Normalizers and the cutting of text."""

from __future__ import annotations

import pytest

from wenet_osum.score import normalize
from wenet_osum.score.normalize import language
from wenet_osum.score.zh_numbers import spoken


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("none", "Hello,  World!", "Hello,  World!"),
        ("basic", "Don’t  STOP—'now'. Ｈｉ！", "don't stop now hi"),
        ("whisper_en", "Mr. Smith won't, uh, pay $1,000 [noise] it's", "mister smith will not pay $1000 it is"),
        ("whisper_en", "Café they're 3.5", "cafe they are 3.5"),
        ("whisper_en", "Twenty-one of two hundred and five", "21 of 205"),
        ("whisper_en", "zero three five one", "0351"),
        ("whisper_en", "three point five percent, five dollars and ten cents", "3.5% $5.10"),
        ("whisper_en", "I'd been; let's, she's got, ma'am", "i had been let us she has got madam"),
        ("whisper_en", "the aluminium", "the aluminium"),
        ("basic", "co\u00adoperate می\u200cروم क्\u200dष \ufeffhi\u200bthere \u202aabc\u202c", "cooperate میروم क्ष hi there abc"),
        ("wenet_zh", "re\u00adset \ufeff你", "RESET 你"),
        ("wenet_zh", "你 好，ok　世 界。<笑>", "你好 OK 世界"),
    ],
)
def test_normalizers(name, text, written):
    got = normalize.get(name)(text)
    assert (got if name == "none" else " ".join(got.split())) == written


def test_spellings_of_a_published_whisper(tmp_path):
    (tmp_path / "normalizer.json").write_text('{"aluminium": "aluminum"}')
    name = f"whisper_en@{tmp_path}"
    assert normalize.prepare("The aluminium, twenty.", "en", name) == ["the", "aluminum", "20"]
    assert normalize.prepare("The aluminium.", "en", f"en:{name},zh:wenet_zh") == ["the", "aluminum"]
    with pytest.raises(ValueError, match=r"no normalizer\.json there .* or whisper_en alone"):
        normalize.get(f"whisper_en@{tmp_path / 'none'}")
    with pytest.raises(ValueError, match="only whisper_en@FOLDER"):
        normalize.get("basic@folder")


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


@pytest.mark.parametrize(
    ("lang", "text", "units"),
    [
        ("th", "ที่นี่ดี ok", ["ที่", "นี่", "ดี", "ok"]),  # vowel and tone stand above their letter
        ("th", "เก็บ", ["เ", "ก็", "บ"]),  # a vowel before its letter is a character
        ("lo", "ກິນເຂົ້າ", ["ກິ", "ນ", "ເ", "ຂົ້", "າ"]),
        ("my", "မြန်မာ", ["မြ", "န်", "မာ"]),
        ("my", "ဗုဒ္ဓ", ["ဗု", "ဒ္ဓ"]),  # one letter stacked below another
        ("km", "ខ្ញុំ ស្រ\u200bឡាញ់", ["ខ្ញុំ", "ស្រ", "ឡា", "ញ់"]),
        ("nan", "我愛台灣 tsin", ["我", "愛", "台", "灣", "tsin"]),
        ("wuu", "侬好", ["侬", "好"]),
        ("hak", "你好", ["你", "好"]),
    ],
)
def test_scripts_without_spaces_are_cut_into_characters(lang, text, units):
    assert normalize.tokens(text, lang) == units
    assert normalize.tokens(text, "en") == text.split()


def test_language_from_the_list_or_the_script():
    assert normalize.language("zh-CN", "hello") == "zh"
    assert normalize.language("EN_us", "") == "en"
    assert normalize.language("zh-en", "x") == "zh-en"
    assert [normalize.language(None, t) for t in ("你好", "hi 你好", "hi", "ありがと", "привет")] == ["zh", "mixed", "en", "ja", "und"]
    assert normalize.language(None, "It’s a good day – “really”…") == "en", "signs tell no language"
    assert [normalize.language(None, t) for t in ("ok ดี", "ກິນ", "မြန်မာ", "ខ្ញុំ", "한국")] == ["th", "lo", "my", "km", "und"]


def test_fold_keeps_words_of_punctuation_apart():
    assert normalize.fold("Hello,") == "hello"
    assert normalize.fold("—") == "—"


def test_a_part_without_a_language_is_refused():
    with pytest.raises(ValueError, match="normalizer 'en:basic,zh': 'zh' names no language; write each part as LANGUAGE:NAME"):
        normalize.get("en:basic,zh", "en")


@pytest.mark.parametrize(
    ("lang", "found"),
    [("Chinese", "zh"), ("cmn_hans_cn", "zh"), ("jpn", "ja"), ("Cantonese", "yue"), ("zh-yue", "yue"), ("en-US", "en"), ("zh-en", "zh-en"), ("xx", "xx")],
)
def test_languages_have_many_names(lang, found):
    assert language(lang, "") == found


@pytest.mark.parametrize(
    ("written", "read"),
    [("１００元", "一百元"), ("1,000元", "一千元"), ("12,500人", "一万两千五百人"), ("3．5%", "百分之三点五"), ("1,000.5米", "一千点五米"), ("1,200%", "百分之一千两百"), ("1,2,3", "一,二,三"), ("2020,100", "二零二零,一百")],
)
def test_figures_in_full_width_and_with_commas(written, read):
    assert spoken(written) == read
