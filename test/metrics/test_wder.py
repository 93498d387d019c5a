"""WDER against permutations of speakers that are tried by hand."""

from __future__ import annotations

import itertools
import random

import pytest

from wenet_osum import tasks
from wenet_osum.metrics.wder import Said, wrong_speakers
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score.scorer import score_task

SOT = tasks.parse("sot")


def figures(reference: str, answer: str | None) -> dict[str, tuple[float, int]]:
    """Value and count of each metric of one utterance."""
    utterance = Utterance("k", "a.wav", lang="en", labels={"speaker_turns": reference})
    hyps = {}
    if answer is not None:
        read = SOT.read(answer)
        hyps["k"] = Hypothesis("k", SOT.tags, answer, read.transcript, texts=read.texts, unread=read.unread)
    return {s.metric: (round(s.value, 6), s.count) for s in score_task(SOT, [utterance], hyps, resamples=5)}


@pytest.mark.parametrize(
    ("answer", "wder", "wer"),
    [
        ("[speaker 1] a b c [speaker 2] d e", (0.0, 5), 0.0),
        # other numbers for the same people
        ("[speaker 2] a b c [speaker 1] d e", (0.0, 5), 0.0),
        # the border lies a word too late: d belongs to the other
        ("[speaker 1] a b c d [speaker 2] e", (20.0, 5), 0.0),
        # a substituted word counts by its speaker, a deleted and an inserted one do not
        ("[speaker 1] a x c y y [speaker 2] d", (0.0, 4), 80.0),
        # one speaker for both: the longer turn is matched
        ("[speaker 1] a b c d e", (40.0, 5), 0.0),
        # a third speaker has no match
        ("[speaker 1] a b [speaker 3] c [speaker 2] d e", (20.0, 5), 0.0),
        # nobody is named
        ("a b c d e", (100.0, 5), 0.0),
        # nothing was recognized
        ("", (100.0, 5), 100.0),
        (None, (100.0, 5), 100.0),
    ],
)
def test_one_utterance_by_hand(answer, wder, wer):
    found = figures("[speaker 1] a b c [speaker 2] d e", answer)
    assert found == {"wder": wder, "wer": (wer, 5)}


def test_the_match_is_the_best_of_all_permutations():
    draw = random.Random(1)
    for _ in range(30):
        words = [str(number) for number in range(12)]
        ours = draw.choices(range(4), k=12)
        theirs = draw.choices(range(4), k=12)
        tried = []
        for order in itertools.permutations(range(4)):
            wrong = sum(order[answered] != expected for expected, answered in zip(ours, theirs, strict=True))
            tried.append(wrong)
        assert wrong_speakers(Said(words, ours), Said(words, theirs)) == (min(tried), 12)


def test_utterances_are_matched_each_by_itself_and_odd_ones_counted():
    rows = {"a": ("[speaker 1] a [speaker 2] b", "[speaker 1] a [speaker 2] b"), "b": ("[speaker 1] a", "[speaker 5] a [speaker 6] c")}
    refs = [Utterance(key, "a.wav", lang="en", labels={"speaker_turns": ref}) for key, (ref, _) in rows.items()]
    hyps = {}
    for key, (_, text) in rows.items():
        read = SOT.read(text)
        hyps[key] = Hypothesis(key, SOT.tags, text, read.transcript, texts=read.texts)
    [wder] = [s for s in score_task(SOT, refs, hyps) if s.metric == "wder"]
    assert (wder.value, wder.count) == (0.0, 3) and wder.detail["other_number_of_speakers"] == 1
    assert wder.about.lower_is_better and wder.about.unit == "%"


def test_worst_utterances_show_both_sides():
    utterance = Utterance("k", "a.wav", lang="en", labels={"speaker_turns": "[speaker 1] a [speaker 2] b"})
    read = SOT.read("[speaker 1] a b")
    [wder, *_] = score_task(SOT, [utterance], {"k": Hypothesis("k", SOT.tags, "", read.transcript, texts=read.texts)})
    [row] = wder.detail["worst"]
    assert (row["ref"], row["hyp"], row["note"]) == ("[speaker 1] a [speaker 2] b", "[speaker 1] a b", "1 of 2 words have another speaker")
