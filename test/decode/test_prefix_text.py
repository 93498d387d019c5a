"""Answers that begin with a given text: every search goes on behind it as it would have by itself."""

from __future__ import annotations

import pytest

import wenet_osum
from wenet_osum.dataset.drop import Drop
from wenet_osum.decode import ctc_draft, pipeline, prefix_text
from wenet_osum.decode import generate as generation
from wenet_osum.decode.draft import Draft
from wenet_osum.decode.generate import generate
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.tasks import parse
from wenet_osum.text.template import Template

FRAMES = [77, 140, 31]
MOST = 14


def asked(parts, clips, batch_of, task="asr", **options):
    model, template = parts
    task = parse(task)
    chosen = DecodeOptions(**{"max_tokens": MOST} | options)
    batch = batch_of(template, clips(FRAMES), [task] * len(FRAMES))
    return generate(model, template, batch, [task] * len(FRAMES), chosen)


@pytest.mark.parametrize("search", [{}, {"num_beams": 3}, {"temperature": 1.0}, {"repetition_penalty": 1.5}, {"num_beams": 2, "repetition_penalty": 1.5}, {"rescore": {"ctc_prefix": 0.4}}])
@pytest.mark.parametrize("task", ["asr", "<TRANSCRIBE><EMOTION>", "sttc", "srwt"])
def test_every_answer_begins_with_the_text_and_goes_on(parts, clips, batch_of, search, task):
    template = parts[1]
    text = "<0.00>the<0.20>" if task == "srwt" else "the cat"
    answers = asked(parts, clips, batch_of, task, prefix_text=text, **search)
    given = template.beginning_ids(text)
    assert all(answer.text.startswith(text) for answer in answers)
    assert any(len(template.encode(answer.text)) > len(given) for answer in answers), "one of them has more to say"
    assert len({answer.text for answer in answers}) > 1, "the sound has no say"
    assert not any(answer.text.startswith(text) for answer in asked(parts, clips, batch_of, task, **search))


@pytest.mark.parametrize("search", [{}, {"repetition_penalty": 1.3}, {"rescore": {"ctc_prefix": 0.4}}])
@pytest.mark.parametrize("task", ["asr", "<TRANSCRIBE><EMOTION>"])
def test_a_beginning_of_the_own_answer_changes_nothing(parts, clips, batch_of, search, task, monkeypatch):
    """Tokens, labels, probabilities and flags are those of the free answer."""
    rows, finish = [], generation.hypothesis
    monkeypatch.setattr(generation, "hypothesis", lambda row, template: rows.append(row) or finish(row, template))
    free = asked(parts, clips, batch_of, task, **search)
    said = [row.answer_state.ids for row in rows]
    for i, answer in enumerate(free):
        # A model without training says tokens that no text is encoded as.
        monkeypatch.setattr(Template, "beginning_ids", lambda *_, ids=said[i][:5]: ids)
        held = asked(parts, clips, batch_of, task, prefix_text="the cat", **search)[i]
        assert (held.text, held.labels, held.flags) == (answer.text, answer.labels, answer.flags)
        for name, probs in held.probs.items():
            assert probs == pytest.approx(answer.probs[name], abs=1e-5)


def test_a_text_is_encoded_as_targets_are(parts):
    template = parts[1]
    assert template.beginning_ids("  the cat \n") == template.encode("the cat")
    template.lowercase = True
    try:
        assert template.beginning_ids("The Cat") == template.encode("the cat")
    finally:
        template.lowercase = False


def test_drafts_go_on_behind_the_text(parts, clips, batch_of, monkeypatch):
    """Right or wrong, the answers are those without drafts, and the draft's place is behind the text."""
    template = parts[1]
    plain = asked(parts, clips, batch_of, prefix_text="the cat")
    rests = []

    def propose(rows, *_):
        for row, answer in zip(rows, plain, strict=True):
            row.draft = Draft(template.encode(answer.text))

    monkeypatch.setattr(ctc_draft, "propose", propose)
    guesses = Draft.rest
    monkeypatch.setattr(Draft, "rest", lambda self: rests.append(self.place) or guesses(self))
    drafted = asked(parts, clips, batch_of, prefix_text="the cat", ctc_draft=True)
    assert [answer.text for answer in drafted] == [answer.text for answer in plain]
    assert min(rests) >= len(template.beginning_ids("the cat"))


REFUSED = [
    ({"mode": "ctc_greedy_search"}, "has no use for prefix_text; leave that out"),
    ({"ctc_draft": True, "trust_ctc": 0.1}, "begins as CTC heard it; leave one of them out"),
]


@pytest.mark.parametrize("search, told", REFUSED)
def test_searches_that_cannot_take_it_say_so(search, told):
    with pytest.raises(ValueError, match=told):
        DecodeOptions(prefix_text="the", **search)
    DecodeOptions(**search)


def test_tasks_that_cannot_begin_so_say_why(parts, clips, batch_of):
    template = parts[1]
    for task, text, told in [("<EMOTION><TRANSCRIBE>", "the", "begins with a label"), ("ser", "the<happy>", "its tag ends"), ("asr", "a<b", "its tag ends")]:
        options = DecodeOptions(prefix_text=text)
        assert told in prefix_text.refusal(parse(task), template, options)
        with pytest.raises(Drop, match=told):
            asked(parts, clips, batch_of, task, prefix_text=text)
    for task, text in [("asr", r"a\<b"), ("srwt", "<0.00>a<0.20>"), ("sttc", "a<开始回答>")]:
        assert prefix_text.refusal(parse(task), template, DecodeOptions(prefix_text=text)) is None


def test_load_takes_it_and_refuses_it(model_dir):
    import numpy as np

    sound = np.random.default_rng(5).normal(0, 0.1, 16000).astype(np.float32)
    m = wenet_osum.load(model_dir, max_tokens=9, prefix_text="the cat")
    assert m(sound).transcript.startswith("the cat")
    with pytest.raises(ValueError, match="begins with a label"):
        m(sound, task="<AGE><GENDER>")
    with pytest.raises(ValueError, match="begins with a label"):
        wenet_osum.load(model_dir, task="<AGE><GENDER>", prefix_text="the cat")


def test_of_a_long_recording_the_first_piece_begins_with_it(model_dir, monkeypatch):
    import numpy as np

    m = wenet_osum.load(model_dir, max_tokens=9, prefix_text="the cat", longest_s=1.0)
    seen = []
    decode = pipeline.Recognizer.decode
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, samples: seen.append((self.options.prefix_text, len(samples))) or decode(self, samples))
    answer = m(np.random.default_rng(5).normal(0, 0.1, 3 * 16000).astype(np.float32))
    assert answer.transcript.startswith("the cat") and len(answer.pieces) > 2
    assert seen[0] == ("the cat", 1) and [text for text, _ in seen[1:]] == [None] * (len(seen) - 1)
    assert sum(size for _, size in seen) == len(answer.pieces)
