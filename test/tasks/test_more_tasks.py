"""Tasks that are none of OSUM's: languages, translations, turns of speakers."""

from __future__ import annotations

import dataclasses

import pytest

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score.scorer import score_task
from wenet_osum.text.template import NOBODY

LID, ST, SOT = map(tasks.parse, ("lid", "st", "sot"))
MORE = ["lid", "sot", "st"]


def heard(key: str = "a", **values: str) -> Utterance:
    return Utterance(key, f"{key}.wav", txt="so what", lang="en").with_values(values)


def german(key: str, translation: str, turns: str) -> Utterance:
    return heard(key, translation=translation, speaker_turns=turns, target_lang="de")


def answer(task: tasks.Task, key: str, text: str) -> Hypothesis:
    read = task.read(text)
    parts = {name: getattr(read, name) for name in ("transcript", "labels", "texts", "unread")}
    return Hypothesis(key, task.tags, text, **parts)


def test_they_are_known_and_no_default_names_them():
    assert set(MORE) <= set(tasks.names())
    assert not set(MORE) & set(tasks.default_names()) and len(tasks.default_names()) >= 8


def test_a_run_that_asks_for_one_of_their_fields_is_noticed():
    assert tasks.beyond_default(["asr", "<EMOTION><GENDER>"]) == []
    assert {"lid", "st"} <= set(tasks.beyond_default(["ser", "<TRANSLATE>", "<AGE><LANGUAGE>"]))


def test_texts_are_labels_of_a_manifest_but_no_classes():
    names = tasks.label_names()
    assert {"translation", "target_lang", "speaker_turns", "emotion"} <= set(names) and "lang" not in names
    assert {"translation", "speaker_turns"} <= tasks.free_texts(names)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("<transcribe><language>", "<TRANSCRIBE> <LANGUAGE>"),
        ("<TRANSLATE>", "<TRANSLATE>"),
        ("<EMOTION><SPEAKERS><TRANSCRIBE>", "<EMOTION> <TRANSCRIBE> <SPEAKERS>"),
    ],
)
def test_their_tags_combine(text, tags):
    assert tasks.parse(text).tags == tags


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<TRANSCRIBE><SPEAKERS><ALIGN>", "<ALIGN> modifies <TRANSCRIBE>, which <TRANSCRIBE> <SPEAKERS> has modified"),
        ("<TRANSLATE><TRANSCRIBE>", "must be the last"),
        ("<SPEAKERS>", "which is missing"),
    ],
)
def test_what_does_not_combine_says_why(text, message):
    with pytest.raises(ValueError, match=message):
        tasks.parse(text)


# -- languages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("lang", "label"), [("zh", "zh"), ("cmn", "zh"), ("German", "de"), ("zh-en", None)])
def test_a_language_is_that_of_the_list(lang, label):
    utterance = dataclasses.replace(heard(), lang=lang)
    assert LID.fields[1].value(utterance) == label
    assert LID.fields[1].unknown(utterance) == (None if label else lang)


def test_the_set_of_languages_is_the_users():
    own = tasks.parse("lid", {"language": ["en", "gsw"]})
    assert own.write(heard()) == "so what<en>"
    assert own.read("so what<de>").unread == {"language": "<de>"}


# -- translations -------------------------------------------------------------------------------


def test_a_translation_is_written_after_its_mark_and_read_back():
    utterance = heard(translation="na  und <so>")
    assert ST.write(utterance) == "so what<开始翻译>na und \\<so\\>"
    read = ST.read(ST.write(utterance))
    assert (read.transcript, read.texts, read.reply, read.unread) == ("so what", {"translation": "na und <so>"}, None, {})


@pytest.mark.parametrize("text", ["so what na und", "so what<开始回答>na und", ""])
def test_a_translation_without_its_mark_is_unread(text):
    assert set(ST.read(text).unread) == {"translation"} and not ST.read(text).texts


@pytest.mark.parametrize(
    ("values", "lang", "prompt"),
    [
        ({"target_lang": "de"}, "en", "Write what is said, then translate it into German."),
        ({"target_lang": "de"}, "zh", "写出语音内容，再译成德语。"),
        ({"target_lang": "gsw"}, "en", "Write what is said, then translate it into gsw."),
        ({}, "en", "Write what is said, then translate it into Chinese."),
        ({"lang": "de"}, "zh", "写出语音内容，再译成英语。"),
        ({"lang": "English"}, "en", "Write what is said, then translate it into Chinese."),
        ({"target_lang": "zh-CN"}, "en", "Write what is said, then translate it into Chinese."),
        ({"target_lang": "zh_yue"}, "en", "Write what is said, then translate it into Cantonese."),
    ],
)
def test_a_prompt_names_the_target_language(values, lang, prompt):
    assert ST.fill(ST.prompts(lang)[0], heard(**values)) == prompt


def test_prompts_of_others_and_composed_ones_are_filled_too():
    assert LID.fill("{target}", heard()) == "{target}", "nobody there has anything to say of it"
    composed = tasks.parse("<TRANSLATE>")
    assert composed.fill(composed.prompts("en")[0], NOBODY) == "Listen and write a translation into English, in this order."


# -- turns of speakers --------------------------------------------------------------------------


def test_speakers_are_numbered_by_their_first_word():
    utterance = heard(speaker_turns="[speaker 7] so  what [Speaker 2] no [speaker 2] thing [speaker 7] [speaker 7] ok")
    written = "[speaker 1] so what [speaker 2] no thing [speaker 1] ok"
    assert SOT.write(utterance) == written
    read = SOT.read(written)
    assert (read.transcript, read.texts, read.unread) == ("so what no thing ok", {"speaker_turns": written}, {})
    assert SOT.fields[0].spoken(utterance) == "so what no thing ok"


def test_chinese_turns_stay_without_spaces():
    assert SOT.read("[speaker 1] 你好 [speaker 2] 好").transcript == "你好好"


@pytest.mark.parametrize("turns", [None, "", "so [speaker 1] what", "[speaker 1]"])
def test_turns_that_do_not_begin_with_a_mark_are_no_reference(turns):
    assert not SOT.present(heard(speaker_turns=turns))


def test_an_answer_without_marks_keeps_its_words():
    read = SOT.read("so what [speaker 1] no")
    assert read.transcript == "so what no" and not read.texts
    assert read.unread == {"speaker_turns": "no [speaker n] before 'so what [speaker 1] no'"}


# -- scores -------------------------------------------------------------------------------------

REFERENCES = [
    german("a", "na und, was soll das", "[speaker 1] so [speaker 2] what"),
    german("b", "das ist mir gleich", "[speaker 1] so what"),
    german("c", "was weiß denn ich", "[speaker 1] so what"),
]


@pytest.mark.parametrize(
    ("task", "right", "unreadable", "metric", "worst"),
    [
        (LID, "so what<en>", "so what", "accuracy", 0.0),
        (ST, "so what<开始翻译>das ist mir gleich", "so what", "bleu", 0.0),
        (SOT, "[speaker 1] so what", "so what", "wder", 100.0),
    ],
)
def test_missing_failed_and_unreadable_answers_count_as_wrong(task, right, unreadable, metric, worst):
    hyps = {"a": answer(task, "a", unreadable), "c": Hypothesis("c", task.tags, "", error="audio: gone")}
    [score] = [s for s in score_task(task, REFERENCES, hyps) if s.metric == metric]
    assert score.value == worst and score.utterances == 3
    assert [score.detail[name] for name in ("missing", "failed", "unread")] == [1, 1, 1]
    hyps["b"] = answer(task, "b", right)
    [better] = [s for s in score_task(task, REFERENCES, hyps) if s.metric == metric]
    assert abs(better.value - worst) > 5, "one of three is right"
