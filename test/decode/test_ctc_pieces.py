"""CTC over some of the LLM's tokens: what it says of texts that the LLM writes with others."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from wenet_osum.decode import ctc_pieces
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.ctc_pieces import PiecePrefix, Pieces
from wenet_osum.decode.ctc_prefix import Emissions
from wenet_osum.decode.joint import Joint
from wenet_osum.decode.rescore.ctc_prefix import Rescorer, State
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.tasks import parse
from wenet_osum.text import ctc_classes
from wenet_osum.text.template import Template
from wenet_osum.text.tokenizer import encode


@pytest.fixture(scope="module")
def template():
    """A tokenizer that knows whole words."""
    lines = ["ab ab abc cab ab"] * 60 + ["the cat sat on the mat and the cab ran"] * 30 + ["looking at a cabin in the rain"] * 30
    return Template(train_tokenizer(lines, vocab_size=700))


def few_classes(template, texts: list[str], size: int) -> list[int]:
    learned = ctc_classes.learn(template.tokenizer, texts, size)
    return template.tokenizer.convert_tokens_to_ids(learned)


@pytest.fixture(scope="module")
def small(template):
    """Classes a, b, c and ab, over four states of random sounds, and the probability of each text as classes in all paths."""
    ids = template.tokenizer.convert_tokens_to_ids(["a", "b", "c", "ab"])
    assert None not in ids
    torch.manual_seed(0)
    table = torch.randn(5, 3)
    sounds = Emissions.of(torch.randn(4, 3) * 1.5, table, 4)
    probs = (sounds.states @ table.T).softmax(-1).tolist()
    found: dict[tuple, float] = {}
    for path in itertools.product(range(5), repeat=4):
        classes = tuple(one for one, _ in itertools.groupby(path) if one != 4)
        found[classes] = found.get(classes, 0.0) + math.prod(p[one] for p, one in zip(probs, path, strict=True))
    return Pieces(template.tokenizer, ids), sounds, found


# The text, the classes that it may begin with, and those that write it.
A, B, C, AB = range(4)
TEXTS = [
    ("a", [(A,), (AB,)], (A,)),
    ("ab", [(AB,)], (AB,)),
    ("abc", [(AB, C)], (AB, C)),
    ("ca", [(C, A), (C, AB)], (C, A)),
    ("cab", [(C, AB)], (C, AB)),
    ("bb", [(B, B)], (B, B)),
]


@pytest.mark.parametrize(("text", "beginnings", "whole"), TEXTS, ids=[row[0] for row in TEXTS])
def test_a_text_has_the_probability_of_all_that_begins_so(template, small, text, beginnings, whole):
    pieces, sounds, found = small
    prefix = PiecePrefix.empty(pieces, sounds)
    for letter in text:
        token = template.tokenizer.convert_tokens_to_ids(letter)
        expected = prefix.token_gains(torch.tensor([token])).item() + prefix.log_p_prefix
        prefix = prefix.extended(token)
        assert prefix.log_p_prefix == pytest.approx(expected)
    there = sum(p for classes, p in found.items() if any(classes[: len(own)] == own for own in beginnings))
    assert prefix.log_p_prefix == pytest.approx(math.log(there), abs=1e-5)
    assert prefix.end_gain() == pytest.approx(math.log(found[whole] / there), abs=1e-5)
    assert prefix.more_gain() == pytest.approx(math.log(1 - found[whole] / there), abs=1e-5)


def spelled(classes: list[int], count: int) -> Emissions:
    """States that spell ``classes``, each for two states and a blank after it."""
    table = torch.eye(count + 1)
    path = [state for one in classes for state in (one, one, count)]
    return Emissions.of(12 * table[torch.tensor(path)], table, count)


def begun(template, ids: list[int], heard: str) -> PiecePrefix:
    pieces = Pieces(template.tokenizer, ids)
    classes = pieces.encoder.classes(encode(pieces.encoder.tokenizer, heard))
    return PiecePrefix.empty(pieces, spelled(classes, len(ids)))


TRANSCRIPTS = ["the cat sat on the mat", "looking at a cabin in the rain"]


@pytest.mark.parametrize("heard", TRANSCRIPTS)
@pytest.mark.parametrize("size", [30, 60])
def test_what_is_heard_is_certain_word_by_word_and_nothing_else_is(template, size, heard):
    ids = few_classes(template, TRANSCRIPTS, size)
    prefix = begun(template, ids, heard)
    tokens = template.encode(heard)
    other = template.encode("xylophone")[0]
    for token in tokens:
        right, wrong = prefix.token_gains(torch.tensor([token, other])).tolist()
        assert right > -0.1 and wrong < -9
        prefix = prefix.extended(token)
    assert prefix.end_gain() > -0.1 and prefix.log_p_prefix > -0.5


def test_half_a_word_is_cut_otherwise_than_the_whole_and_counts_all_the_same(template):
    """The LLM begins a word with a token whose characters CTC has heard as the beginning of another class."""
    ids = few_classes(template, ["the cab the cabin"] * 9, 40)
    prefix = begun(template, ids, "the cabin")
    classes = prefix.pieces.classes
    letters = [template.tokenizer.convert_tokens_to_ids(letter) for letter in ["Ġ", "c", "a", "b", "i", "n"]]
    assert classes("Ġcabin")[: len(classes("Ġca"))] != classes("Ġca")
    for token in [*template.encode("the"), *letters]:
        prefix = prefix.extended(token)
        assert prefix.log_p_prefix > -0.5, prefix.word
    assert prefix.end_gain() > -0.1


def test_a_sentence_without_spaces_is_settled_as_it_grows(template, monkeypatch):
    monkeypatch.setattr(ctc_pieces, "LONGEST", 4)
    ids = few_classes(template, ["abcabcabcabc"], 12)
    heard = "abcabcabcabc"
    prefix = begun(template, ids, heard)
    for letter in heard:
        prefix = prefix.extended(template.tokenizer.convert_tokens_to_ids(letter))
        assert len(prefix.pieces.classes(prefix.word)) <= 4
    assert prefix.log_p_prefix > -0.5 and prefix.end_gain() > -0.1


def test_what_no_class_can_write_leaves_the_rest_to_the_llm(template):
    ids = few_classes(template, ["the cat"], 20)
    state = State(begun(template, ids, "the cat"), 0.5)
    answer_state = AnswerState(template, parse("asr"))
    for token in template.encode("the xylophone"):
        state = state.advance(answer_state, token)
        answer_state.step(token)
    assert state.ended


def test_a_row_of_the_table_that_is_no_token_is_never_said(template):
    prefix = begun(template, few_classes(template, ["the cat"], 20), "the cat")
    the, none = template.encode("the")[0], len(template.tokenizer) + 5
    for _ in range(2):
        _, wrong = prefix.token_gains(torch.tensor([the, none])).tolist()
        assert wrong == -torch.inf
        prefix = prefix.extended(the)


@torch.no_grad()
def test_a_model_with_classes_is_rescored(chat_parts, monkeypatch):
    """The LLM has no opinion but at its first token, and says what is heard, in its own tokens."""
    monkeypatch.setattr("wenet_osum.decode.joint.CANDIDATES", 10_000)
    model, template = chat_parts
    heard = "the cat sat on the mat"
    ids = few_classes(template, [heard] * 9, 60)
    monkeypatch.setattr(model.config, "losses", [{"name": "ctc", "weight": 1.0, "scores": "distance", "classes": ids}])
    rescorer = Rescorer(model, template, {"ctc_prefix": 0.5})
    encoder = rescorer.pieces.encoder
    table = model.llm.get_input_embeddings().weight.detach()
    path = [ids[one] for one in encoder.classes(encode(encoder.tokenizer, heard))]
    blank = rescorer.scores.ids[-1].item()
    states = table[[token for one in path for token in (one, one, blank)]]

    joint, answer_state = Joint({"ctc_prefix": rescorer.begin(states)}), AnswerState(template, parse("asr"))
    for _ in range(60):
        token = int(joint.scores(answer_state, torch.zeros(len(table))).argmax())
        joint = joint.advance(answer_state, token)
        if answer_state.step(token) or answer_state.done:
            break
    assert template.decode(answer_state.ids) == heard


def test_words_that_the_speech_is_too_short_for_are_impossible_and_no_nan(template):
    ids = few_classes(template, TRANSCRIPTS, 30)
    pieces = Pieces(template.tokenizer, ids)
    short = spelled([0], len(ids))
    prefix = PiecePrefix.empty(pieces, short)
    every = torch.arange(len(template.tokenizer))
    impossible = float("-inf")
    for token in template.encode("the cat sat on the mat"):
        gains = prefix.token_gains(every)
        assert not gains.isnan().any() and (gains == impossible).any()
        assert not math.isnan(prefix.end_gain())
        prefix = prefix.extended(token)
        if prefix.log_p_prefix == impossible:
            break
    assert prefix.log_p_prefix == impossible == prefix.end_gain()
