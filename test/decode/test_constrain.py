"""The walk over an answer's fields: where labels begin, and which ids they are given."""

from __future__ import annotations

import random

import pytest

from wenet_osum.decode import constrain
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.tasks import parse
from wenet_osum.text.template import Template


@pytest.fixture()
def answer_state(parts):
    _, template = parts

    def say(task, text, target_tokenization="by_field", free=False):
        """Feed a text token by token; returns the walk and the choice it ended with."""
        template.target_tokenization = target_tokenization
        answer_state = AnswerState(template, parse(task), free)
        for token in template.encode(text):
            choice = answer_state.step(token)
            if choice or answer_state.done:
                return answer_state, choice
        return answer_state, None

    yield say
    template.target_tokenization = "by_field"


def test_an_opened_tag_asks_for_the_label(parts, answer_state):
    _, template = parts
    said, choice = answer_state("ser", "the cat<hap")
    assert template.decode(said.ids) == "the cat" and not choice.forced and choice.field.name == "emotion"
    assert choice.continuations == template.label_ids(choice.field)
    said.take_label(choice, "happy")
    assert said.done and template.decode(said.ids) == "the cat<happy>"


def test_the_end_of_text_forces_the_label(parts, answer_state):
    _, template = parts
    said, _ = answer_state("ser", "the cat")
    choice = said.step(template.end_id)
    assert choice.forced and not said.done


def test_an_escaped_bracket_is_text(answer_state):
    said, choice = answer_state("ser", r"a \< b \\")
    assert choice is None
    said, choice = answer_state("ser", r"a \\<")
    assert choice is not None


def test_times_are_not_labels(parts, answer_state):
    _, template = parts
    said, choice = answer_state("<TRANSCRIBE><ALIGN><GENDER>", "<0.00>the<0.42><0.50>cat<0.94>")
    assert choice is None and template.decode(said.ids).endswith("<0.94>")
    said, choice = answer_state("<TRANSCRIBE><ALIGN><GENDER>", "<0.00>the<0.42><male>")
    assert not choice.forced and template.decode(said.ids) == "<0.00>the<0.42><"
    said.take_label(choice, "male")
    assert template.decode(said.ids) == "<0.00>the<0.42><male>"


def test_a_timed_transcript_that_ends_is_given_a_forced_label(parts, answer_state):
    _, template = parts
    said, _ = answer_state("<TRANSCRIBE><ALIGN><GENDER>", "<0.00>the<0.42>")
    choice = said.step(template.end_id)
    assert choice.forced
    said.take_label(choice, "female")
    assert template.decode(said.ids) == "<0.00>the<0.42><female>"


def test_label_first_is_asked_at_once(parts, answer_state):
    _, template = parts
    said, choice = answer_state("<EMOTION><TRANSCRIBE>", "<sad>")
    assert not choice.forced and not said.ids
    said.take_label(choice, "sad")
    assert not said.done and not said.at_label
    said, choice = answer_state("<EMOTION><TRANSCRIBE>", "the")
    assert choice.forced


def test_labels_follow_each_other_and_a_reply_is_free(parts, answer_state):
    _, template = parts
    said, choice = answer_state("<TRANSCRIBE><EMOTION><S2TCHAT>", "the cat<")
    said.take_label(choice, "sad")
    assert not said.at_label and not said.done
    for token in template.encode("<开始回答>a <b>"):
        assert said.step(token) is None
    assert said.step(template.end_id) is None and said.done
    assert template.decode(said.ids) == "the cat<sad><开始回答>a <b>"


def test_free_asks_for_nothing(parts, answer_state):
    _, template = parts
    said, choice = answer_state("ser", "the cat<happy>", free=True)
    assert choice is None and said.step(template.end_id) is None and said.done


@pytest.mark.parametrize(
    ("task", "text", "kept"),
    [
        ("asr", "the cat in the mid<male>", "the cat in the mid"),
        ("asr", "<male>", ""),
        ("<EMOTION><TRANSCRIBE>", "<sad>the cat<male>", "<sad>the cat"),
        ("srwt", "<0.00>the<0.42><0.50>cat<0.94><male>", "<0.00>the<0.42><0.50>cat<0.94>"),
    ],
)
def test_a_tag_that_was_not_asked_for_ends_the_answer(parts, answer_state, task, text, kept):
    _, template = parts
    said, choice = answer_state(task, text)
    if choice:
        said.take_label(choice, "sad")
        for token in template.encode("the cat<male>"):
            if not said.done:
                said.step(token)
    assert said.done and said.cut and template.decode(said.ids) == kept


def test_escaped_brackets_and_times_end_no_answer(parts, answer_state):
    _, template = parts
    for task, text in (("asr", r"if a \< b \\\\ or c \> d"), ("srwt", "<0.00>the<0.42>")):
        said, choice = answer_state(task, text)
        assert choice is None and not said.done and template.decode(said.ids) == text
        assert said.step(template.end_id) is None and said.done and not said.cut


def test_where_anything_may_be_said_nothing_is_cut(parts, answer_state):
    _, template = parts
    for task, text, free in (("asr", "the cat<male>", True), ("sttc", "a<开始回答>b <c>", False)):
        said, _ = answer_state(task, text, free=free)
        assert not said.done and not said.cut and template.decode(said.ids) == text


class Merging:
    """A tokenizer whose tokens cross tag borders: the longest known piece is taken."""

    PIECES = ["。<", "><", "<", ">", "。", "happy", "sad", "male", "female", "你", "好"]

    def __init__(self):
        self.target_tokenization, self.end_id, self.end_ids = "whole", 999, {999}

    def encode(self, text):
        ids = []
        while text:
            piece = next((p for p in self.PIECES if text.startswith(p)), text[0])
            ids.append(self.PIECES.index(piece) if piece in self.PIECES else 1000 + ord(piece))
            text = text[len(piece) :]
        return ids

    def decode(self, ids):
        return "".join(self.PIECES[i] if i < 900 else chr(i - 1000) for i in ids)

    def label_ids(self, field):
        return {name: self.encode(f"<{name}>") for name in field.labels.names}


def test_tokens_may_cross_tag_borders_in_string_joined_answers():
    template = Merging()
    said = AnswerState(template, parse("<TRANSCRIBE><EMOTION><GENDER>"))
    for token in template.encode("你好"):
        said.step(token)
    choice = said.step(template.PIECES.index("。<"))
    assert [template.PIECES[i] for i in choice.continuations["happy"]] == ["。<", "happy", "><"]
    assert said.take_label(choice, "happy") and said.at_label
    choice = said.step(template.PIECES.index("male"))
    assert not choice.forced and [template.PIECES[i] for i in choice.continuations["male"]] == ["male", ">"]
    said.take_label(choice, "male")
    assert said.done and template.decode(said.ids) == "你好。<happy><male>"


def test_what_a_token_says_before_a_tag_is_kept():
    template = Merging()
    said = AnswerState(template, parse("asr"))
    for piece in ("你", "。<"):
        said.step(template.PIECES.index(piece))
    assert said.done and said.cut and template.decode(said.ids) == "你。"


def test_a_spelling_of_its_own_is_continued_as_it_is():
    template = Merging()
    said = AnswerState(template, parse("ser"))
    for piece in ("你", "。"):
        said.step(template.PIECES.index(piece))
    choice = said.step(template.PIECES.index("<"))
    assert [template.PIECES[i] for i in choice.continuations["sad"]] == ["<", "sad", ">"]


@pytest.fixture(scope="module")
def whole_strings():
    """A byte-level BPE that cuts as GPT-2's and Qwen's do, so that runs of signs (``。<``, ``><``) become tokens, and answers joined as strings."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    lines = ["你好。<happy><male>", "the cat sat.<sad><female>", "<0.00>新<0.20><0.20>年。<0.41><male>", "<happy><child>好！<"]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"], show_progress=False)
    core.train_from_iterator(lines * 20, trainer)
    return Template(PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", pad_token="<|endoftext|>"), target_tokenization="whole", lowercase=True)


@pytest.mark.parametrize(
    ("task", "text", "labels"),
    [
        ("<TRANSCRIBE><EMOTION><GENDER>", "你好。<happy><male>", ["happy", "male"]),
        ("<TRANSCRIBE><EMOTION>", "the cat sat.<sad>", ["sad"]),
        ("<TRANSCRIBE><EMOTION>", "the cat sat<sad>", ["sad"]),
        ("<TRANSCRIBE><CAPTION>", "好！<throat clearing>", ["throat clearing"]),
        ("<TRANSCRIBE><STYLE>", "新年。<新闻科普>", ["新闻科普"]),
        ("<TRANSCRIBE><ALIGN><GENDER>", "<0.00>新<0.20><0.20>年。<0.41><male>", ["male"]),
        ("<EMOTION><AGE><TRANSCRIBE>", "<happy><child>好！", ["happy", "child"]),
        ("<TRANSCRIBE><GENDER><S2TCHAT>", "你好。<male><开始回答>好。", ["male"]),
    ],
)
def test_a_whole_string_is_followed_token_for_token(whole_strings, task, text, labels):
    """What a model says that was trained on whole strings is left as it is, wherever its tokens cross the borders of tags."""
    ids, answer_state, chosen = whole_strings.encode(text), AnswerState(whole_strings, parse(task)), iter(labels)
    while len(answer_state.ids) < len(ids):
        choice = answer_state.step(ids[len(answer_state.ids)])
        if choice:
            assert not choice.forced
            answer_state.take_label(choice, next(chosen))
    assert answer_state.ids == ids and next(chosen, None) is None
    crossing = {whole_strings.decode([token]) for token in whole_strings.encode("。<") + whole_strings.encode("><")}
    assert crossing == {"。<", "><"}


def test_other_labels_of_the_set_are_reached_behind_a_crossing_token(whole_strings):
    answer_state = AnswerState(whole_strings, parse("<TRANSCRIBE><EMOTION><GENDER>"))
    for token in whole_strings.encode("你好。<happy><male>"):
        choice = answer_state.step(token)
        if choice:
            break
    for label, ids in choice.continuations.items():
        assert whole_strings.decode(answer_state.ids + ids) == f"你好。<{label}><"


TIMED = "<TRANSCRIBE><ALIGN><GENDER>"


@pytest.mark.parametrize("task", ["asr", "ser", "sttc", TIMED])
@pytest.mark.parametrize("seed", range(4))
def test_plain_tokens_are_passed_over_without_a_difference(parts, monkeypatch, task, seed):
    """Texts of any characters end in the same place when each of their characters is looked at."""
    _, template = parts
    draws = random.Random(seed)
    pieces = ["the", " cat", "<", ">", "\\", "0", ".5", "<hap", "\\<", "\\\\", " ", "<0.00>", "你"]

    def walked(ids):
        state = AnswerState(template, parse(task))
        for token in ids:
            choice = state.step(token)
            if choice or state.done:
                return state.ids, choice, state.cut
        return state.ids, state.opened, state.escaped

    for _ in range(40):
        text = "".join(draws.choices(pieces, [9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 3, 1, 3], k=12))
        ids = template.encode(text)
        passed = walked(ids)
        with monkeypatch.context() as patch:
            patch.setattr(constrain, "is_plain", lambda template, token: False)
            assert walked(ids) == passed, text


def test_a_label_after_an_opened_tag_is_not_forced_by_the_end(parts, answer_state):
    _, template = parts
    said, choice = answer_state(TIMED, "<0.00>the<0.42><")
    assert choice is None and not said.step(template.end_id).forced
