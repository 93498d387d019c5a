"""BLEU and chrF of translations are those of sacrebleu over the whole list."""

from __future__ import annotations

import random

import pytest
import sacrebleu

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score.scorer import compare_task, score_task

ST = tasks.parse("<TRANSLATE>")
WORDS = "the a cat dog sat stood on under mat table and then slept".split()


def pairs(count: int, lang: str, seed: int = 0, joint: str = " ") -> tuple[list[Utterance], dict[str, Hypothesis]]:
    """Random lines, a third of whose words are others in the answer."""
    draw = random.Random(seed)
    refs, hyps = [], {}
    for number in range(count):
        words = draw.choices(WORDS if joint else [*"今天天气很好我们去公园"], k=draw.randint(1, 12))
        said = [word if draw.random() < 0.66 else draw.choice(words) for word in words]
        key = f"{lang}{number}"
        refs.append(Utterance(key, "a.wav", labels={"translation": joint.join(words), "target_lang": lang}))
        hyps[key] = hypothesis(key, joint.join(said))
    return refs, hyps


def hypothesis(key: str, text: str) -> Hypothesis:
    return Hypothesis(key, ST.tags, text, texts={"translation": text})


def scored(refs, hyps, **more) -> dict:
    return {(s.metric, s.subset): s for s in score_task(ST, refs, hyps, **more)}


def texts_of(refs, hyps) -> tuple[list[str], list[list[str]]]:
    said = [hyps[u.key].texts["translation"] for u in refs]
    return said, [[u.labels["translation"] for u in refs]]


def test_a_figure_by_hand():
    """Of 'a b c d e' against 'a b c d f': 4/5, 3/4, 2/3 and 1/2 of the n-grams, no penalty."""
    refs = [Utterance("k", "a.wav", labels={"translation": "a b c d f", "target_lang": "en"})]
    bleu = scored(refs, {"k": hypothesis("k", "a b c d e")})["bleu", "en"]
    assert bleu.value == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert (bleu.about.title, bleu.about.unit, bleu.about.lower_is_better) == ("BLEU", "points", False)


@pytest.mark.parametrize(("lang", "joint", "cut"), [("de", " ", "13a"), ("zh", "", "zh"), ("ja", "", "char")])
def test_whole_lists_agree_with_sacrebleu(lang, joint, cut):
    refs, hyps = pairs(40, lang, joint=joint)
    found = scored(refs, hyps, resamples=20)
    answers, references = texts_of(refs, hyps)
    bleu, chrf = found["bleu", lang], found["chrf", lang]
    assert bleu.value == pytest.approx(sacrebleu.corpus_bleu(answers, references, tokenize=cut).score)
    assert chrf.value == pytest.approx(sacrebleu.corpus_chrf(answers, references).score)
    assert f"tok:{cut}" in bleu.detail["facts"]["signature"] and "nc:6" in chrf.detail["facts"]["signature"]
    assert bleu.low < bleu.value < bleu.high, "resampled over utterances"


def test_an_interval_is_that_of_the_lists_drawn():
    """Each end is a figure of a list of the same utterances, some of them repeated."""
    refs, hyps = pairs(2, "en", seed=3)
    bleu = scored(refs, hyps)["bleu", "en"]
    answers, references = texts_of(refs, hyps)
    drawn = [[0, 0], [1, 1], [0, 1]]
    figures = [sacrebleu.corpus_bleu([answers[i] for i in rows], [[references[0][i] for i in rows]]).score for rows in drawn]
    assert (bleu.low, bleu.high) == (pytest.approx(min(figures)), pytest.approx(max(figures)))


def test_languages_are_told_apart_and_guessed_where_none_is_named():
    refs, hyps = pairs(3, "de")
    chinese, more = pairs(3, "zh", joint="")
    for utterance in chinese:
        del utterance.labels["target_lang"]
    chinese[0].labels["translation"] += "ok"
    other = Utterance("o", "a.wav", labels={"translation": "hello"})
    found = scored([*refs, *chinese, other], hyps | more, resamples=5)
    assert set(found) == {(metric, lang) for metric in ("bleu", "chrf") for lang in ("de", "zh", "und")}


def test_an_answer_that_is_missing_costs_as_an_empty_one():
    refs, hyps = pairs(10, "en")
    empty = hyps | {"en3": hypothesis("en3", "")}
    silent = {key: hyp for key, hyp in hyps.items() if key != "en3"}
    one, other = scored(refs, empty)["bleu", "en"], scored(refs, silent)["bleu", "en"]
    assert one.value == other.value < scored(refs, hyps)["bleu", "en"].value
    assert (one.detail["empty"], one.detail["missing"]) == (1, 0) and (other.detail["empty"], other.detail["missing"]) == (1, 1)
    assert other.detail["worst"][0]["note"] == "missing"


def test_two_systems_are_compared_on_the_same_draws():
    refs, hyps = pairs(30, "en")
    right = {u.key: hypothesis(u.key, u.labels["translation"]) for u in refs}
    found = compare_task(ST, refs, right, hyps, resamples=100)["translation", "bleu", "en"]
    assert found.difference == pytest.approx(100 - scored(refs, hyps)["bleu", "en"].value) and found.p_value < 0.05
