"""Times told by the adapter's frames: what each text of a time is worth, when words start and end, and answers with them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.joint import Joint, Rescorers, check_model
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.rescore import ctc_prefix
from wenet_osum.decode.rescore.ctc_prefix import CTCPrefix, Emissions
from wenet_osum.small.rescore.word_times import BoundaryPosterior, State, text_gains
from wenet_osum.small.sinusoids import span_waves
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.tasks import parse
from wenet_osum.text.template import Template

WIDTH, FRAME_S = 96, 0.08


@pytest.fixture(scope="module")
def logs():
    """Random log-probabilities of the times from 0.00 to 11.50 s."""
    torch.manual_seed(0)
    return torch.randn(1151).double().log_softmax(-1)


def share(logs, text):
    """P of all times that are written with ``text`` first."""
    return sum(math.exp(p) for i, p in enumerate(logs.tolist()) if f"{i / 100:.2f}>".startswith(text))


@pytest.mark.parametrize("before", ["", "1", "1.", "11.", "0.3", "11.4"])
def test_gains_are_those_of_all_times_that_begin_so(logs, before):
    texts = [f"{a}{b}" for a in ("", "0", "1", "9", ".", ".5", "37") for b in ("", ".2", "8>", ">", "0")]
    for text, gain in zip(texts, text_gains(logs, before, texts), strict=True):
        wanted = share(logs, before + text) / share(logs, before)
        assert gain == (pytest.approx(math.log(wanted), abs=1e-9) if wanted else -math.inf), text


@pytest.mark.parametrize("text", ["x", "01.23>", "12.00>", "1.234", "1.2>", "-1", "1.2.", ">"])
def test_what_is_no_time_of_the_utterance_is_never_written(logs, text):
    assert text_gains(logs, "", [text]) == [-math.inf]


def test_after_what_cannot_be_nothing_is_likely(logs):
    assert text_gains(logs, "77", ["1", ".5"]) == [-math.inf, -math.inf]


@pytest.fixture(scope="module")
def spoken():
    """Ten frames of a word from 0.30 to 0.71 s, frames around it that tell themselves, all with noise beside it."""
    torch.manual_seed(1)
    own = torch.arange(25.0)
    spans = torch.stack([own, own + 1], dim=-1)
    spans[4:9] = torch.tensor([0.30, 0.71]) / FRAME_S
    codes = functional.normalize(span_waves(spans, WIDTH), dim=-1)
    return BoundaryPosterior(codes + 0.8 * functional.normalize(torch.randn(25, WIDTH), dim=-1), FRAME_S)


def test_a_frame_tells_when_its_word_starts_and_ends(spoken):
    for frame in range(4, 9):
        start, end = (float(spoken.times[spoken.log_probs(frame, end).argmax()]) for end in (False, True))
        assert (start, end) == (pytest.approx(0.30, abs=0.06), pytest.approx(0.71, abs=0.06)), frame


def test_all_frames_of_a_word_have_a_say(spoken):
    """One frame alone is less sure, and what the frames of silence say does not count."""
    alone = BoundaryPosterior(spoken.frames, FRAME_S)
    alone.middles = torch.full_like(alone.middles, 9.0)
    assert spoken.log_probs(5, True).max() > alone.log_probs(5, True).max()
    changed = BoundaryPosterior(spoken.frames.clone(), FRAME_S)
    changed.frames[:3], changed.frames[10:] = 0.0, 0.0
    torch.testing.assert_close(changed.log_probs(5, True), spoken.log_probs(5, True), rtol=1e-5, atol=1e-5)


def test_times_lie_within_the_audio(spoken):
    assert spoken.times[0] == 0.0 and float(spoken.times[-1]) == pytest.approx(25 * FRAME_S)
    assert spoken.log_probs(24, True).shape == spoken.times.shape and float(spoken.log_probs(24, True).exp().sum()) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def timed():
    """A template whose tokenizer writes times in two tokens."""
    words = ["the", "cat", "mat", "on"]
    lines = [" ".join(words)] * 20 + [" ".join(f"<{i}.{i}{i}>{w}<{i}.{i}{i}>" for i, w in enumerate(words, 1))] * 20
    return Template(train_tokenizer(lines, vocab_size=900))


def answer(template, states, wanted):
    """The answer when the LLM wants ``wanted`` at each step."""
    answer_state, ids = AnswerState(template, parse("srwt")), []
    for step in range(40):
        logits = torch.zeros(len(template.tokenizer))
        if step < len(wanted):
            logits[wanted[step]] = 3.0
        token = int(states.scores(answer_state, logits).argmax())
        states = states.advance(answer_state, token)
        if token == template.end_id or answer_state.step(token):
            return parse("srwt").read(template.decode(ids))
        ids.append(token)
    raise AssertionError("never ended")


def test_times_are_those_that_the_frames_tell(timed, monkeypatch):
    """The LLM writes other times; both words are told by four frames, so that one of them stands where CTC has the token."""
    monkeypatch.setattr("wenet_osum.decode.joint.CANDIDATES", 10_000)
    heard, size, blank = timed.encode("the cat"), len(timed.tokenizer), timed.end_id
    torch.manual_seed(0)
    table = functional.normalize(torch.randn(size, 192), dim=-1)
    path = [blank, blank, heard[0], blank, blank, blank, blank, heard[1], heard[1], blank, blank]
    own = torch.arange(11.0)
    spans = torch.stack([own, own + 1], dim=-1)
    spans[1:5], spans[6:10] = torch.tensor([1.0, 4.4]), torch.tensor([5.5, 10.0])
    states = table[path] + 0.8 * functional.normalize(span_waves(spans, 192), dim=-1)
    emissions = Emissions.of(12 * states, table, blank)
    wanted = timed.encode("<1.11>mat<2.22> <3.33>on<4.44>")

    def words(weight):
        prefix = ctc_prefix.State(CTCPrefix.empty(emissions), 0.6)
        found = {"ctc_prefix": prefix} | ({"word_times": State(BoundaryPosterior(12 * states, FRAME_S), weight, 0.6)} if weight else {})
        return answer(timed, Joint(found), wanted).words

    assert [w.text for w in words(0.0)] == ["the", "cat"] and words(0.0)[0].start == 1.11
    (first, second), frame = words(0.9), 0.08
    for told, true in ((first.start, 1.0), (first.end, 4.4), (second.start, 5.5), (second.end, 10.0)):
        assert told == pytest.approx(true * frame, abs=0.05)


def test_it_needs_ctc_and_a_model_that_was_trained_for_it(osum, timed):
    model, _ = osum
    weights = DecodeOptions(rescore={"word_times": 0.5}).joint
    assert [*Rescorers(model, timed, weights).rescorers] == ["ctc_prefix", "word_times"]
    model.config.losses = [{"name": "ctc", "weight": 0.5}]
    with pytest.raises(ValueError, match="rescore word_times: needs a model that was trained with word_time in model.losses, and this one had ctc"):
        check_model(model, timed, weights)
