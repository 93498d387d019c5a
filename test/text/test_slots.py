"""Slots of prompts: what is put in, and that an empty one leaves no trace."""

from __future__ import annotations

import json

import pytest

from wenet_osum import tasks
from wenet_osum.context import Context, context_of, end_of, with_context, words_given, words_of
from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text import slots
from wenet_osum.text.template import FIRST, Template

BOTH = Context(("Anna", "Baker Street"), "Good day.")
EN = 'Said: "{previous}". Words: {hotwords}. Write it.'


def test_slots_are_filled_where_they_stand():
    assert slots.fill(EN, BOTH) == 'Said: "Good day.". Words: Anna, Baker Street. Write it.'
    assert slots.fill("热词：{hotwords}。写下来。", Context(("今天", "Anna"))) == "热词：今天、Anna。写下来。"


@pytest.mark.parametrize(
    ("wording", "context", "prompt"),
    [
        (EN, Context(), "Write it."),
        (EN, Context(("Anna",)), "Words: Anna. Write it."),
        (EN, Context((), "Hm"), 'Said: "Hm". Write it.'),
        ("Write it. Words: {hotwords}.", Context(), "Write it."),
        ("Write 3.5 words: {hotwords}! Now.", Context(), "Now."),
        ("写下来。热词：{hotwords}。", Context(), "写下来。"),
        ("上文：{previous}\n热词：{hotwords}\n写下来", Context((), "好"), "上文：好\n写下来"),
    ],
)
def test_the_sentence_of_an_empty_slot_is_left_out(wording, context, prompt):
    assert slots.fill(wording, context) == prompt


@pytest.mark.parametrize("wording", ["Write it. ", " {hot} {0} 写。", "", "A {hotword}. B"])
@pytest.mark.parametrize("known", [(), ("hotwords", "previous")])
def test_wordings_without_slots_stay_as_they_are(wording, known):
    assert slots.fill(wording, Context(), known) == wording
    assert slots.fill(wording, BOTH) == wording, "the model was trained with no slot"


def test_a_model_that_knows_slots_is_told_by_any_wording():
    told = slots.fill("Write it.", BOTH, ["hotwords", "previous"])
    assert told == 'Before this, it was said: "Good day.". These words may occur: Anna, Baker Street. Write it.'
    assert slots.fill("写下来。", Context(("安娜", "今天")), ["hotwords"]) == "可能出现的词：安娜、今天。写下来。"
    assert slots.fill("写下来。", Context((), "你好"), ["hotwords"]) == "写下来。"
    assert slots.fill("W: {hotwords}. Go.", BOTH, ["hotwords"]) == "W: Anna, Baker Street. Go."
    assert slots.fill("", Context(("Anna",)), ["hotwords"]) == "These words may occur: Anna."


def test_a_word_cannot_open_a_slot():
    assert slots.fill(EN, Context(("{previous}",), "x")) == 'Said: "x". Words: {previous}. Write it.'


def test_prompts_that_say_nothing_alone_are_refused():
    with pytest.raises(ValueError, match="says nothing without a context"):
        Template(train_tokenizer(["a"], vocab_size=300), prompts={"asr": {"en": ["Write {hotwords}."]}})


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["red cat", "你好世界"] * 9, vocab_size=400)


def test_a_template_encodes_what_is_told(tokenizer):
    asr = tasks.parse("asr")
    plain, able = Template(tokenizer), Template(tokenizer, context=["hotwords"], lowercase=True)
    assert able.encode_prompt("Go.", FIRST, Context(("Anna",))) == plain.encode("These words may occur: anna. Go.")
    for pick in range(5):
        assert able.prompt_ids(asr, "zh", pick) == plain.encode(asr.prompts("zh")[pick])
    own = Template(tokenizer, prompts={"asr": {"en": [EN]}})
    assert own.draw_prompt_ids(asr, 0, 0, "k") == plain.encode("Write it.")


def test_what_a_model_was_trained_with_is_saved_and_nothing_else(tokenizer, tmp_path):
    for name, context in (("plain", []), ("able", ["previous", "hotwords"])):
        Template(tokenizer, context=context).save(tmp_path / name)
        assert Template.load(tmp_path / name).context == [*reversed(context)]
    assert "context" not in json.loads((tmp_path / "plain/text.json").read_text())


def test_what_a_manifest_says():
    row = Utterance.from_dict({"key": "k", "wav": "w", "hotwords": [" Anna ", "Baker  Street", "Anna"], "previous": "So\nit is."})
    assert context_of(row) == Context(("Anna", "Baker Street"), "So it is.")
    assert context_of(Utterance("k", "w")) == Context()
    assert context_of(with_context(row, Context(("B",)))) == Context(("B",))
    assert with_context(row, Context()).extra == {}
    for extra in ({"hotwords": 3}, {"hotwords": ["a", 3]}, {"previous": ["a"]}):
        with pytest.raises(ValueError, match=r"'k': (hotwords|previous) must be"):
            context_of(Utterance("k", "w", extra=extra))


def test_words_of_a_command_line(tmp_path):
    assert words_given("Anna, Baker Street,,安娜、今天") == ["Anna", "Baker Street", "安娜", "今天"]
    (tmp_path / "names").write_text("Anna\n\nBaker Street\n", encoding="utf-8")
    many = [f"Firstname{i} Lastname{i}" for i in range(40)]
    assert words_given(",".join(many)) == many, "longer than the name of any file"
    assert words_given(str(tmp_path / "names")) == words_of(["Anna", "Baker Street"])
    with pytest.raises(ValueError, match="no such file"):
        words_given("names.txt")


def test_the_end_of_a_long_text_begins_with_a_word():
    text = " ".join(["word"] * 99)
    assert end_of(text) == " ".join(["word"] * 40) and end_of("短" * 300) == "短" * 200
    assert end_of(" a  b ") == "a b"
