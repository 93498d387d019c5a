"""Labels by what label queries hear and the LLM together: arithmetic, and whole answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wenet_osum.decode.joint import Joint
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.decode.rescore.label_queries import State
from wenet_osum.records import Utterance
from wenet_osum.tasks import parse

from ..conftest import make_model

LENGTHS = (16000, 9000, 23456, 4000, 12345)
SOUNDS = [np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in LENGTHS]
SHRINK = {
    "adapter": "ctc_shrink",
    "adapter_conf": {"heads": 2, "ffn": 32, "label_queries": ["emotion", "gender"]},
    "losses": [
        {"name": "ctc", "weight": 0.3, "scores": "distance", "classes": [*range(10, 26)]},
        {"name": "labels", "weight": 0.1},
    ],
}


@pytest.fixture(scope="module")
def hearing():
    """(model, template) of a model with queries for emotion and gender, and none for age."""
    return make_model(**SHRINK)


def answers(parts, task, size=None, **settings):
    model, template = parts
    recognizer = Recognizer(model, template, DecodeOptions(max_tokens=8, **settings), template.task(task))
    items = [recognizer.load(Utterance(str(number), "x"), sound) for number, sound in enumerate(SOUNDS)]
    found, size = [], size or len(items)
    for begin in range(0, len(items), size):
        found += recognizer.decode(items[begin : begin + size])
    return found


def test_a_label_has_the_weighted_sum_of_both_logarithms():
    [gender], [age] = parse("sgc").label_fields, parse("sap").label_fields
    heard = State({"gender": {"MALE": 0.9, "FEMALE": 0.1}}, 0.25)
    joint = Joint({"label_queries": heard})
    # The LLM's are no probabilities of labels alone: both lack the same factor.
    llm = {"MALE": math.log(0.2 * 0.01), "FEMALE": math.log(0.8 * 0.01)}
    scores = joint.label_scores(gender, llm)
    for label, own, other in (("MALE", 0.2, 0.9), ("FEMALE", 0.8, 0.1)):
        assert scores[label] == pytest.approx(0.75 * math.log(own) + 0.25 * math.log(other))
    ages = {"CHILD": -1.0, "ADULT": -2.0}
    unheard = joint.label_scores(age, ages)
    assert unheard["CHILD"] - unheard["ADULT"] == pytest.approx(1.0)


def test_what_was_ruled_out_by_rounding_has_a_finite_score():
    [gender] = parse("sgc").label_fields
    joint = Joint({"label_queries": State({"gender": {"MALE": 1.0, "FEMALE": 0.0}}, 0.5)})
    assert math.isfinite(joint.label_scores(gender, {"MALE": -1.0, "FEMALE": -1.0})["FEMALE"])


@pytest.mark.parametrize("num_beams", [1, 2])
def test_answers_mix_what_both_say(hearing, num_beams):
    """The probabilities of a label follow from those of either way alone."""
    joint = answers(hearing, "ser", rescore={"label_queries": 0.5}, num_beams=num_beams)
    llm = answers(hearing, "ser", num_beams=num_beams)
    heard = answers(hearing, "ser", mode="ctc_greedy_search")
    for both, alone, queries in zip(joint, llm, heard, strict=True):
        assert both.transcript == alone.transcript
        own, other = alone.probs["emotion"], queries.probs["emotion"]
        products = {label: math.sqrt(own[label] * other[label]) for label in own}
        total = sum(products.values())
        wanted = {label: product / total for label, product in products.items()}
        assert both.probs["emotion"] == pytest.approx(wanted, abs=2e-3)
        assert both.labels["emotion"] == max(wanted, key=wanted.get)
    moved = [abs(both.probs["emotion"][label] - own) for both, alone in zip(joint, llm, strict=True) for label, own in alone.probs["emotion"].items()]
    assert max(moved) > 0.02, "nothing was weighed"


def test_answers_do_not_depend_on_the_batch(hearing):
    together = answers(hearing, "<GENDER><AGE>", rescore={"label_queries": 0.5})
    alone = answers(hearing, "<GENDER><AGE>", size=1, rescore={"label_queries": 0.5})
    assert [row.labels for row in together] == [row.labels for row in alone]


def test_models_without_queries_are_refused(parts):
    with pytest.raises(ValueError, match="label_queries: needs a model that was trained with labels"):
        answers(parts_with(parts, []), "ser", rescore={"label_queries": 0.5})
    trained = parts_with(parts, [{"name": "labels", "weight": 0.1}])
    with pytest.raises(ValueError, match="needs an adapter with label_queries"):
        answers(trained, "ser", rescore={"label_queries": 0.5})


def parts_with(parts, losses):
    """The model of ``parts`` as if trained with other losses."""
    model, template = make_model(losses=losses)
    model.load_state_dict(parts[0].state_dict())
    return model, template
