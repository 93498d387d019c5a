"""Hotwords and the text before over HTTP: fields of a request, and the page's own."""

from __future__ import annotations

import numpy as np
import pytest

from wenet_osum.context import Context
from wenet_osum.dataset.audio import write_wav
from wenet_osum.decode import pipeline
from wenet_osum.records import Hypothesis
from wenet_osum.serve.fields import read_question
from wenet_osum.serve.page import configuration
from wenet_osum.serve.settings import Settings

SECOND = write_wav(np.random.default_rng(2).normal(0, 0.1, 16000).astype(np.float32))
BOTH = ["hotwords", "previous"]


@pytest.fixture
def asked(monkeypatch):
    found = []

    def decode(self, samples):
        found.extend(self.template.decode(sample.prompt_ids) for sample in samples)
        return [Hypothesis(s.key, s.task, "said", "said", duration=1.0) for s in samples]

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)
    return found


def context(slots, **fields):
    listed = {name: [value] for name, value in fields.items()}
    return read_question(listed, Settings(), slots=slots).context


def test_prompt_is_the_text_before_and_else_words():
    assert context(BOTH, prompt="So it is.", hotwords="Anna, Paul") == Context(("Anna", "Paul"), "So it is.")
    assert context(["hotwords"], prompt="Paul, Eva", hotwords="Anna") == Context(("Anna", "Paul", "Eva"))
    assert context([], prompt="Paul") == Context()


def test_keywords_in_openai_s_spelling_are_hotwords():
    assert context(["hotwords"], **{"hotwords[]": "Anna", "keywords[]": "Paul"}) == Context(("Anna", "Paul"))
    assert context([], **{"keywords[]": "Paul"}) == Context()


def test_a_request_tells_the_model(m, serving, post, asked, monkeypatch):
    monkeypatch.setattr(m.recognizer, "lang", "en")
    monkeypatch.setattr(m.recognizer.template, "context", BOTH)
    with serving() as (url, _):
        response = post(url, SECOND, hotwords="cat,hat", prompt="It rained.")
        assert response.status_code == 200 and "x-ignored-fields" not in response.headers
        post(url, SECOND)
        long = post(url, SECOND, hotwords="x" * 5000)
    start = 'Before this, it was said: "It rained.". These words may occur: cat, hat. '
    assert asked[0] == start + asked[1] and "occur" not in asked[1]
    assert long.status_code == 400 and "at most 4000 characters" in long.json()["error"]["message"]


def test_a_request_takes_the_place_of_the_servers_words(m, serving, post, asked, monkeypatch):
    monkeypatch.setattr(m.recognizer.template, "context", BOTH)
    monkeypatch.setattr(m, "recognizer", m.recognizer.given(["servers"], None))
    with serving() as (url, _):
        post(url, SECOND)
        post(url, SECOND, hotwords="mine")
    assert "servers" in asked[0] and "mine" in asked[1] and "servers" not in asked[1]


def test_a_model_without_slots_refuses_words(server, post):
    response = post(server[0], SECOND, hotwords="cat")
    assert response.status_code == 400 and response.json()["error"]["code"] == "no_hotwords"


def test_the_page_asks_for_what_the_model_can_be_told(m):
    template = m.recognizer.template
    assert configuration(template, Settings())["slots"] == []
    shown = configuration(template, Settings(), BOTH)
    assert shown["slots"] == BOTH
    for lang in ("zh", "en"):
        assert set(BOTH) <= shown["texts"][lang].keys()
