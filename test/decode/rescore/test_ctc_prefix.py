"""CTC prefix scores: probabilities against a sum over all paths, and answers that follow the CTC."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter

import pytest
import torch

from wenet_osum import lookup
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.ctc_prefix import FLOOR
from wenet_osum.decode.generate import generate
from wenet_osum.decode.joint import Joint
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.rescore.ctc_prefix import CTCPrefix, Emissions, Rescorer, State
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.tasks import parse
from wenet_osum.text.template import Template

BLANK = 0


def collapsed(path):
    return tuple(token for token, _ in itertools.groupby(path) if token != BLANK)


@pytest.fixture(scope="module")
def sounds():
    """Five states of random sounds over four tokens, and what every text and every beginning has in all paths together."""
    torch.manual_seed(0)
    table = torch.randn(4, 3)
    found = Emissions.of(torch.randn(5, 3) * 1.5, table, BLANK)
    probs = (found.states @ table.T).softmax(-1).tolist()
    whole, beginnings = Counter(), Counter()
    for path in itertools.product(range(4), repeat=5):
        chance, text = math.prod(p[token] for p, token in zip(probs, path, strict=True)), collapsed(path)
        whole[text] += chance
        for length in range(len(text) + 1):
            beginnings[text[:length]] += chance
    return found, whole, beginnings


TEXTS = [(), (1,), (1, 1), (2, 1, 2), (3, 3), (1, 2, 3, 1)]


@pytest.mark.parametrize("text", TEXTS)
def test_gains_are_those_of_all_paths(sounds, text):
    found, whole, beginnings = sounds
    prefix = CTCPrefix.empty(found)
    for token in text:
        prefix = prefix.extended(token)
    assert prefix.log_p_prefix == pytest.approx(math.log(beginnings[text]), abs=1e-5)
    assert prefix.end_gain() == pytest.approx(math.log(whole[text] / beginnings[text]), abs=1e-5)
    assert prefix.more_gain() == pytest.approx(math.log(1 - whole[text] / beginnings[text]), abs=1e-5)
    for token, gain in zip((1, 2, 3), prefix.token_gains(torch.tensor([1, 2, 3])).tolist(), strict=True):
        there = beginnings[(*text, token)]
        assert gain == pytest.approx(math.log(there / beginnings[text]), abs=1e-5) if there else gain == -math.inf


def spelled(template, ids, blank, repeat=2, scale=12.0):
    """A table of one-hot tokens and states that spell ``ids``, each for two states and a blank after it."""
    size = len(template.tokenizer)
    table = torch.eye(size)
    path = [token for i in ids for token in [i] * repeat + [blank]]
    return Emissions.of(scale * table[torch.tensor(path)], table, blank)


def joint(emissions, weight=0.5):
    return Joint({"ctc_prefix": State(CTCPrefix.empty(emissions), weight)})


def said(template, task, emissions, weight=0.5, wanted=None, unwanted=(), label=None):
    """The answer when the LLM has no opinion, or wants ``wanted`` at each step and never ``unwanted``."""
    answer_state, states, ids = AnswerState(template, task), joint(emissions, weight), []
    if label:
        answer_state.take_label(answer_state.step(template.encode("<")[0]), label)
    for step in range(40):
        logits = torch.zeros(len(template.tokenizer))
        logits[list(unwanted)] = -9.0
        if wanted and step < len(wanted):
            logits[wanted[step]] = 3.0
        token = int(states.scores(answer_state, logits).argmax())
        states = states.advance(answer_state, token)
        if token == template.end_id or answer_state.step(token):
            return ids
        ids.append(token)
    raise AssertionError("never ended")


@pytest.fixture
def few(parts, monkeypatch):
    """All tokens are candidates: an LLM without an opinion has no likeliest 64."""
    monkeypatch.setattr("wenet_osum.decode.joint.CANDIDATES", 10_000)
    return parts[1]


def test_the_blank_is_that_of_training_whatever_ends_an_answer(chat_parts):
    """The LLM's own end of text, as its configuration names it."""
    model, template = chat_parts
    blank = template.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    before, model.config.llm.eos_token_id = model.config.llm.eos_token_id, blank
    try:
        states = Rescorer(model, template, {"ctc_prefix": 0.5}).begin(torch.randn(4, 32))
    finally:
        model.config.llm.eos_token_id = before
    assert states.prefix.emissions.blank == blank != template.end_id


def test_an_llm_without_opinion_says_what_is_heard(few):
    ids = few.encode("the cat cat sat")
    assert said(few, parse("asr"), spelled(few, ids, few.end_id)) == ids
    assert said(few, parse("ser"), spelled(few, ids, few.end_id)) == ids, "the label's turn comes when all has been said"


@pytest.fixture(scope="module")
def timed():
    """A template whose tokenizer has words with and without their space, and times in two tokens."""
    words = ["the", "cat", "mat", "on"]
    lines = [" ".join(words)] * 20 + [" ".join(f"<{i}.{i}{i}>{w}<{i}.{i}{i}>" for i, w in enumerate(words, 1))] * 20
    return Template(train_tokenizer(lines, vocab_size=900))


def test_words_with_times_are_the_words_that_are_heard(timed, monkeypatch):
    """The LLM opens and closes times; the words come from what is heard, the space before them left out, and it ends when all has been said."""
    monkeypatch.setattr("wenet_osum.decode.joint.CANDIDATES", 10_000)
    heard = timed.encode("the cat")
    assert len(heard) == 2 and len(timed.encode("cat")) == 1 and timed.encode("cat") != heard[1:]
    sounds = spelled(timed, heard, timed.end_id)
    wanted = timed.encode("<1.11>mat<2.22> <3.33>on<4.44> <2.22>on<3.33>")
    answer = parse("srwt").read(timed.decode(said(timed, parse("srwt"), sounds, 0.6, wanted, heard[1:])))
    assert answer.words == [("the", 1.11, 2.22), ("cat", 3.33, 4.44)] and not answer.unread


def test_a_label_before_them_is_no_time(timed, monkeypatch):
    monkeypatch.setattr("wenet_osum.decode.joint.CANDIDATES", 10_000)
    heard = timed.encode("the cat")
    wanted = timed.encode("<1.11>mat<2.22> <3.33>on<4.44>")
    ids = said(timed, parse("<GENDER><TRANSCRIBE><ALIGN>"), spelled(timed, heard, timed.end_id), 0.6, wanted, heard[1:], label="male")
    assert timed.decode(ids) == "<1.11>the<2.22> <3.33>cat<4.44>"


def test_the_next_token_starts_where_the_blanks_end(few):
    ids = few.encode("cat sat")
    sounds = spelled(few, [ids[0], ids[0], ids[1]], few.end_id, repeat=2)  # states 0–2, 3–5, 6–8; each token for two of them
    prefix, found = CTCPrefix.empty(sounds), []
    for token in (ids[0], ids[0], ids[1]):
        found.append((prefix.next_start(), int((prefix := prefix.extended(token)).log_p_nonblank.argmax())))
    assert found[0][0] == 0 and found[1][0] == 3 and found[2][0] == 6, "a token that is held does not start again"
    assert [last in range(3 * i, 3 * i + 2) for i, (_, last) in enumerate(found)] == [True] * 3


def test_what_was_not_heard_leaves_the_rest_to_the_llm(few):
    task, sounds = parse("asr"), spelled(few, few.encode("cat"), few.end_id, repeat=1)
    answer_state, states = AnswerState(few, task), joint(sounds, 0.9)
    for token in few.encode("the cat sat on the mat"):  # longer than there are states
        states = states.advance(answer_state, token)
        answer_state.step(token)
    assert states.states["ctc_prefix"].ended
    logits = torch.randn(len(few.tokenizer))
    assert torch.equal(states.scores(answer_state, logits).argmax(), logits.argmax())


@pytest.mark.parametrize("beams", [1, 3])
def test_batch_does_not_matter(parts, clips, batch_of, beams):
    model, template = parts
    names = ["asr", "srwt", "ser", "sttc", "<EMOTION><TRANSCRIBE>", "<AGE><GENDER>", "<TRANSCRIBE><ALIGN><AGE>"]
    tasks, features = [parse(name) for name in names], clips([37, 160, 61, 300, 10, 123, 88])
    lookup.add_plugins(["wenet_osum.small"])
    options = DecodeOptions(num_beams=beams, rescore={"ctc_prefix": 0.4, "word_times": 0.3}, max_tokens=16)
    together = generate(model, template, batch_of(template, features, tasks), tasks, options)
    plain = generate(model, template, batch_of(template, features, tasks), tasks, DecodeOptions(num_beams=beams, max_tokens=16))
    assert [a.text for a in together] != [a.text for a in plain], "the weight does something"
    for i, answer in enumerate(together):
        alone = generate(model, template, batch_of(template, features, tasks, [i]), [tasks[i]], options)[0]
        assert (answer.key, answer.text, answer.labels, answer.flags) == (alone.key, alone.text, alone.labels, alone.flags)


def test_bad_weights_are_told(parts, clips, batch_of):
    for rescore, more in (({"ctc_prefix": 1.0}, {}), ({"ctc_prefix": -0.1}, {}), ({"ctc_prefix": 0.5}, {"temperature": 1.0})):
        with pytest.raises(ValueError, match="rescore ctc_prefix="):
            DecodeOptions(rescore=rescore, **more)
    model, template = parts
    batch, tasks = batch_of(template, clips([40]), [parse("asr")]), [parse("asr")]
    template.target_tokenization = "whole"
    try:
        with pytest.raises(ValueError, match="field by field"):
            generate(model, template, batch, tasks, DecodeOptions(rescore={"ctc_prefix": 0.3}))
    finally:
        template.target_tokenization = "by_field"


def test_a_model_that_was_never_trained_for_it_is_refused(parts, clips, batch_of, monkeypatch):
    """A folder of before there was a record of losses is believed."""
    model, template = parts
    batch, tasks, options = batch_of(template, clips([40]), [parse("asr")]), [parse("asr")], DecodeOptions(rescore={"ctc_prefix": 0.3}, max_tokens=4)
    monkeypatch.setattr(model.config, "losses", None)
    assert len(generate(model, template, batch, tasks, options)) == 1
    monkeypatch.setattr(model.config, "losses", [{"name": "ctc", "weight": 0.1}])
    assert len(generate(model, template, batch, tasks, options)) == 1
    monkeypatch.setattr(model.config, "losses", [])
    with pytest.raises(ValueError, match="rescore ctc_prefix: needs a model that was trained with ctc in model.losses, and this one had none"):
        generate(model, template, batch, tasks, options)


def test_an_unknown_rescorer_is_told_with_the_known_ones(parts, clips, batch_of):
    model, template = parts
    batch, tasks = batch_of(template, clips([40]), [parse("asr")]), [parse("asr")]
    with pytest.raises(ValueError, match="did you mean 'ctc_prefix'.*--plugins"):
        generate(model, template, batch, tasks, DecodeOptions(rescore={"ctc_prefx": 0.3}))


def test_rounding_makes_no_probability_above_one(sounds):
    prefix = CTCPrefix.empty(sounds[0]).extended(1)
    whole = float(torch.logaddexp(prefix.log_p_nonblank[-1], prefix.log_p_blank[-1]))
    certain = dataclasses.replace(prefix, log_p_prefix=whole - 1e-9)
    assert certain.end_gain() == 0.0 and FLOOR <= certain.more_gain() < -600


def test_that_a_word_begins_is_paid_for_once(timed):
    """By its start time; the word behind it is weighed among the words that may follow."""
    [the] = timed.encode("the")
    state = State(CTCPrefix.empty(spelled(timed, [the], timed.end_id)), 0.5)
    answer_state, tokens = AnswerState(timed, parse("srwt")), timed.encode("<1.11>")
    opened = state.change(answer_state, torch.zeros(1), torch.tensor(tokens[:1]), {})
    for token in tokens:
        answer_state.step(token)
    word = state.change(answer_state, torch.zeros(1), torch.tensor([the]), {})
    gain = state.prefix.token_gains(torch.tensor([the]))
    torch.testing.assert_close((opened + word).double(), 0.5 * gain.double())
