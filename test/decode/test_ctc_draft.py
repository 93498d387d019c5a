"""CTC drafts: right, wrong or empty, greedy answers stay what they are, and what was guessed costs no pass."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from wenet_osum.decode import ctc_draft, prefix
from wenet_osum.decode import generate as generation
from wenet_osum.decode.ctc_draft import AGREED, PROPOSED, TRUSTED
from wenet_osum.decode.draft import Draft
from wenet_osum.decode.generate import generate
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.models.ctc_scores import SpeechClasses
from wenet_osum.tasks import parse

TASKS = ["asr", "ser", "sttc", "srwt", "<EMOTION><TRANSCRIBE>", "asr", "<TRANSCRIBE><EMOTION><GENDER>"]
FRAMES = [37, 160, 61, 123, 90, 10, 88]
MOST = 14


def asked(parts, clips, batch_of, options, counts=None, order=None):
    model, template = parts
    tasks = [parse(name) for name in TASKS]
    batch = batch_of(template, clips(FRAMES), tasks, order)
    chosen = tasks if order is None else [tasks[i] for i in order]
    return generate(model, template, batch, chosen, options, counts)


def change(ids: list[int], how: str) -> list[int]:
    """A draft that differs from what the LLM says."""
    middle = len(ids) // 2
    return {
        "right": ids,
        "one replaced": [*ids[:middle], 7, *ids[middle + 1 :]],
        "one too many": [*ids[:middle], 7, *ids[middle:]],
        "one missing": [*ids[:middle], *ids[middle + 1 :]],
        "longer": [*ids, 7, 8, 9],
        "nothing": [],
        "all wrong": [7] * len(ids),
    }[how]


@pytest.fixture
def drafted(parts, clips, batch_of, monkeypatch):
    """drafted(how, order) → (greedy answers, answers with such drafts, counts, passes of both)."""
    passes = Counter()
    forward = prefix.Prefixes._forward

    def counted(self, inputs, *arguments, **keywords):
        passes[running[0]] += "input_ids" in inputs and "rows" not in keywords
        return forward(self, inputs, *arguments, **keywords)

    running = ["greedy"]
    rows_of = {}
    finish = generation.hypothesis

    def remember(row, template):
        rows_of.setdefault(row.key, list(row.answer_state.ids))
        return finish(row, template)

    monkeypatch.setattr(prefix.Prefixes, "_forward", counted)
    monkeypatch.setattr(generation, "hypothesis", remember)

    def run(how, order=None):
        greedy = asked(parts, clips, batch_of, DecodeOptions(max_tokens=MOST), order=order)
        running[0] = "drafts"
        counts = Counter()

        def propose(rows, *_):
            for row in rows:
                if ctc_draft.begins_with_transcript(row):
                    row.draft = Draft(change(rows_of[row.key][:MOST], how))

        monkeypatch.setattr(ctc_draft, "propose", propose)
        options = DecodeOptions(max_tokens=MOST, ctc_draft=True)
        return greedy, asked(parts, clips, batch_of, options, counts, order), counts, passes

    return run


HOW = ["right", "one replaced", "one too many", "one missing", "longer", "nothing", "all wrong"]


@pytest.mark.parametrize("order", [None, [0], [5, 0, 5]], ids=["together", "alone", "one twice"])
@pytest.mark.parametrize("how", HOW)
def test_greedy_answers_stay_what_they_are(drafted, how, order):
    greedy, answers, counts, _ = drafted(how, order)
    for one, other in zip(greedy, answers, strict=True):
        assert (one.key, one.text, one.labels, one.flags) == (other.key, other.text, other.labels, other.flags)
        for name, probs in one.probs.items():
            assert probs == pytest.approx(other.probs[name], abs=1e-5)
    assert counts[AGREED] <= counts[PROPOSED]


def test_what_is_guessed_costs_no_pass(drafted):
    greedy, answers, counts, passes = drafted("right", [0])
    assert len(greedy[0].text) > 0 and counts[PROPOSED] == counts[AGREED] == MOST - 1
    assert (passes["greedy"], passes["drafts"]) == (MOST - 1, 1)


@pytest.mark.parametrize("how", ["one replaced", "one too many", "one missing"])
def test_one_difference_costs_one_pass(drafted, how):
    _, _, _, passes = drafted(how, [0])
    assert passes["drafts"] <= 3 < passes["greedy"]


def test_a_draft_finds_its_place_again():
    draft = Draft([1, 2, 3, 4, 5, 6, 7, 8, 9])
    draft.follow(1)
    assert draft.rest()[:2] == [2, 3]
    draft.follow(3)  # 2 was left out
    assert draft.rest()[:2] == [4, 5]
    draft.follow(77)  # in the place of 4
    assert draft.rest() == [5, 6, 7, 8, 9]
    draft.follow(4)  # no, before it
    assert draft.rest() == [5, 6, 7, 8, 9]
    draft.follow(9)  # too far away to be the same: in the place of 5
    assert draft.rest() == [6, 7, 8, 9]
    for _ in range(9):
        draft.follow(77)
    assert draft.rest() == []


def heard(parts, monkeypatch, texts, sure):
    """Let CTC hear a text in each utterance, all of its states sure or not."""
    model, template = parts
    waiting = [template.encode(text) for text in texts]
    size = len(template.tokenizer)

    def logits(states):
        ids = waiting.pop(0)
        path = [number for token in ids for number in (token, template.end_id)]
        found = torch.zeros(max(1, len(path)), size)
        found[torch.arange(len(path)), path] = 100.0 if sure else 1.0
        if not path:
            found[0, template.end_id] = 100.0 if sure else 1.0
        return found

    classes = SpeechClasses(logits, template.end_id, list)
    monkeypatch.setattr(model, "speech_classes", lambda: classes, raising=False)


def test_what_ctc_is_sure_of_is_taken(parts, clips, batch_of, monkeypatch):
    """The LLM goes on behind it where more is asked; word times and labels that come first are its own."""
    texts = ["the cat", "the mat", "cat sat", "", "the cat sat on the mat"]
    heard(parts, monkeypatch, texts, sure=True)
    counts = Counter()
    options = DecodeOptions(max_tokens=MOST, ctc_draft=True, trust_ctc=0.1)
    answers = asked(parts, clips, batch_of, options, counts)
    assert counts[TRUSTED] == 5
    first = [answer for answer, task in zip(answers, TASKS, strict=True) if task != "srwt" and not task.startswith("<EM")]
    assert [answer.text.startswith(text) for answer, text in zip(first, texts, strict=True)] == [True] * 5
    assert first[0].text == "the cat" and first[3].text == ""
    assert first[1].labels["emotion"] and first[4].labels.keys() == {"emotion", "gender"}


def test_what_it_is_not_sure_of_is_checked(parts, clips, batch_of, monkeypatch):
    heard(parts, monkeypatch, ["the cat"] * 5, sure=False)
    counts = Counter()
    options = DecodeOptions(max_tokens=MOST, ctc_draft=True, trust_ctc=0.1)
    answers = asked(parts, clips, batch_of, options, counts)
    greedy = asked(parts, clips, batch_of, DecodeOptions(max_tokens=MOST))
    assert counts[TRUSTED] == 0 and counts[PROPOSED] > 0
    assert [answer.text for answer in answers] == [answer.text for answer in greedy]


def test_entropy_is_the_mean_of_the_states():
    logits = torch.tensor([[0.0, 0.0, -1e9, -1e9], [50.0, 0.0, 0.0, 0.0]])
    assert ctc_draft.mean_entropy(logits) == pytest.approx(torch.tensor(2.0).log().item() / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ctc_draft": True, "num_beams": 2}, "ctc_draft is for greedy search"),
        ({"ctc_draft": True, "temperature": 1.0}, "ctc_draft is for greedy search"),
        ({"ctc_draft": True, "rescore": {"ctc_prefix": 0.3}}, "ctc_draft is for greedy search"),
        ({"trust_ctc": 0.1}, "trust_ctc 0.1 is for ctc_draft"),
        ({"ctc_draft": True, "trust_ctc": -1.0}, "must be 0 .never. or more nats"),
        ({"ctc_draft": True, "mode": "ctc_greedy_search"}, "ctc_draft"),
    ],
)
def test_options_that_do_not_go_together(options, why):
    with pytest.raises(ValueError, match=why):
        DecodeOptions(**options)
