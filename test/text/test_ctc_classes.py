"""Texts written with some of an LLM's tokens."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from wenet_osum.records import Utterance, Word
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text import ctc_classes
from wenet_osum.text.template import Template
from wenet_osum.text.tokenizer import encode

ENGLISH = ["the cat sat on the mat", "the other cat ate", "it's a hat, isn't it?"]
CHINESE = ["今天天气很好", "天气不好，明天再说。", "mixed 中文 and English"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*ENGLISH, *CHINESE] * 9, 600)


def encoder(tokenizer, texts, size):
    pieces = ctc_classes.learn(tokenizer, texts, size)
    ids = sorted(tokenizer.convert_tokens_to_ids(pieces))
    return ctc_classes.ClassEncoder(tokenizer, ids), pieces


@pytest.mark.parametrize("size", [60, 80, 500])
@pytest.mark.parametrize("texts", [ENGLISH, CHINESE, [*ENGLISH, *CHINESE]], ids=["en", "zh", "both"])
def test_every_text_is_written_with_classes_and_read_back(tokenizer, texts, size):
    made, pieces = encoder(tokenizer, texts, size)
    assert len(set(pieces)) == len(pieces) <= size
    for text in texts:
        tokens = encode(made.tokenizer, text)
        assert made.classes(tokens) == [made.ids.index(token) for token in tokens]
        assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == text
        assert tokens == encode(made.tokenizer, text)


def test_with_room_for_all_merges_it_is_the_tokenizer_itself(tokenizer):
    made, pieces = encoder(tokenizer, ENGLISH, 10_000)
    assert all(encode(made.tokenizer, text) == encode(tokenizer, text) for text in ENGLISH)
    assert "Ġcat" in pieces, "a word with the space before it is one token"


def test_frequent_words_become_classes_before_rare_ones(tokenizer):
    _, pieces = encoder(tokenizer, ["the the the the cat"], 9)
    assert "Ġthe" in pieces and "Ġcat" not in pieces


def test_times_of_words_go_with_the_pieces(tokenizer):
    made, _ = encoder(tokenizer, ENGLISH, 40)
    utterance = Utterance("a", "a", "the mat", words=[Word("the", 0.1, 0.3), Word("mat", 0.3, 0.8)])
    ids, times = Template(tokenizer).transcript(utterance, made.tokenizer)
    border = next(i for i, token in enumerate(ids) if tokenizer.decode([token]).startswith(" "))
    assert 0 < border < len(ids) > 2
    assert set(times[:border]) == {(0.1, 0.3)} and set(times[border + 1 :]) <= {(0.3, 0.8)}


def test_control_tokens_in_a_text_are_spelled_out(tokenizer):
    text = "<|endoftext|>"
    made, _ = encoder(tokenizer, [text], 60)
    tokens = encode(made.tokenizer, text)
    assert tokenizer.eos_token_id not in tokens and made.classes(tokens) is not None
    assert tokenizer.decode(tokens) == text


def test_added_tokens_in_a_text_are_spelled_out(tokenizer):
    grown = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))
    grown.add_tokens(["cat sat"])
    made, _ = encoder(grown, ENGLISH, 80)
    assert made.classes(encode(made.tokenizer, ENGLISH[0])) is not None


def test_what_cannot_be_written_is_told(tokenizer):
    made, _ = encoder(tokenizer, ENGLISH, 80)
    assert made.classes(encode(made.tokenizer, "the zoo")) is None and made.missing("the zoo") == {"z"}
    said = ctc_classes.coverage(tokenizer, made, ["the cat", "the zoo", "大"])
    assert "3 transcripts" in said and "2 cannot be written" in said and "'z' 1" in said
    assert ctc_classes.coverage(tokenizer, made, ["the cat"]).endswith("all can be written")


def test_files_are_lines_or_json(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("c\nĠcat\nc\n", encoding="utf-8")
    (tmp_path / "a.json").write_text('["c", "Ġcat"]', encoding="utf-8")
    ids = sorted(tokenizer.convert_tokens_to_ids(["c", "Ġcat"]))
    assert ctc_classes.read(tokenizer, tmp_path / "a.txt") == ids == ctc_classes.read(tokenizer, tmp_path / "a.json")
    (tmp_path / "b.txt").write_text("c\nno such token\n", encoding="utf-8")
    with pytest.raises(ValueError, match="1 of 2 lines are no token.*'no such token'.*anew"):
        ctc_classes.read(tokenizer, tmp_path / "b.txt")
    with pytest.raises(ValueError, match="its config.json names none"):
        ctc_classes.read(tokenizer, tmp_path)


def test_a_size_below_the_characters_is_refused(tokenizer):
    with pytest.raises(ValueError, match="size 3: .* different characters"):
        ctc_classes.learn(tokenizer, ENGLISH, 3)


def test_another_kind_of_tokenizer_is_refused():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ValueError, match="is WordLevel; .* classes: null"):
        ctc_classes.learn(words, ["a"], 9)
