"""Intervals that draw whole speakers: their width, what is exact, pairs, and what is told."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from wenet_osum import tasks
from wenet_osum.bin import score
from wenet_osum.metrics import accuracy
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.report import comparison_table, score_table
from wenet_osum.score import compare_task, comparison, resampling, score_task
from wenet_osum.score.bootstrap import estimate, left_open, paired
from wenet_osum.score.metric_sums import MetricSums, share

SGC = tasks.parse("<GENDER>")
SPEAKERS, EACH = 100, 9


def rows(right: np.ndarray) -> np.ndarray:
    """Make the columns of a share: right ones and all."""
    return np.stack([right, np.ones(len(right))], axis=1)


def alike() -> tuple[np.ndarray, np.ndarray]:
    """Make utterances of which those of a speaker are all right or all wrong, and their speakers."""
    of_speakers = np.arange(SPEAKERS) % 3 > 0
    return rows(np.repeat(of_speakers, EACH)), np.repeat(np.arange(SPEAKERS), EACH)


def width(found) -> float:
    return found.high - found.low


def test_where_a_speakers_utterances_are_equal_the_interval_is_as_wide_as_of_speakers():
    """The number of independent observations falls by EACH, so the width grows by its root."""
    columns, clusters = alike()
    single = estimate(columns, share(0, 1), resamples=4000)
    clustered = estimate(columns, share(0, 1), resamples=4000, clusters=clusters)
    assert clustered.value == single.value
    assert width(clustered) / width(single) == pytest.approx(math.sqrt(EACH), rel=0.06)
    of_speakers = estimate(columns[::EACH], share(0, 1), resamples=4000)
    assert clustered == pytest.approx(of_speakers)


def test_where_speakers_do_not_matter_the_interval_is_as_wide_as_of_utterances():
    rng = np.random.default_rng(1)
    columns, clusters = rows(rng.random(SPEAKERS * EACH) < 0.7), alike()[1]
    single = estimate(columns, share(0, 1), resamples=4000)
    clustered = estimate(columns, share(0, 1), resamples=4000, clusters=clusters)
    assert width(clustered) / width(single) == pytest.approx(1, abs=0.2)


def test_pairs_are_drawn_by_speaker():
    """The second system is wrong where the first is right for a few speakers, in all they say."""
    first, clusters = alike()
    second = first.copy()
    second[clusters < 10, 0] = 0
    single = paired(first, second, share(0, 1), resamples=4000)
    clustered = paired(first, second, share(0, 1), resamples=4000, clusters=clusters)
    assert clustered.difference == single.difference > 0
    assert width(clustered) / width(single) == pytest.approx(math.sqrt(EACH), rel=0.08)
    assert clustered.utterances == len(first) and clustered.p_value >= single.p_value


def test_same_seed_same_interval_in_any_order_of_the_list():
    keys = [f"u{i}" for i in range(len(alike()[0]))]
    speakers = {key: f"s{number}" for key, number in zip(keys, alike()[1], strict=True)}
    columns = np.random.default_rng(3).random((len(keys), 2))
    found = []
    for order in (np.arange(len(keys)), np.random.default_rng(2).permutation(len(keys))):
        drawn = resampling.clusters_of([keys[i] for i in order], speakers, "speaker").of_rows
        found.append(estimate(columns[order], share(0, 1), clusters=drawn))
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert found[0] != estimate(columns, share(0, 1), seed=1, clusters=alike()[1])


def test_who_has_no_speaker_is_a_cluster_of_its_own():
    speakers = {"a": "x", "b": None, "c": "x", "d": "", "x": "a"}
    found = resampling.clusters_of(list("abcdx"), speakers, "speaker")
    assert found.told() == {"unit": "speaker", "clusters": 4, "without_speaker": 2}
    assert found.of_rows[0] == found.of_rows[2], "one speaker"
    assert found.of_rows[4] not in found.of_rows[:4], "the key x is not the speaker x"
    assert resampling.clusters_of(list("abcdx"), speakers, "utterance").told()["clusters"] == 5


def said(key: str, gender: str) -> Hypothesis:
    return Hypothesis(key, SGC.tags, "", labels={"gender": gender})


def voices(speakers: dict[str, str], each: int = 5) -> list[Utterance]:
    """Make utterances of speakers, given with their gender."""
    found = []
    for name, gender in speakers.items():
        for i in range(each):
            own = {"speaker": name, "labels": {"gender": gender}}
            found.append(Utterance(f"{name}{i}", "a.wav", "hello", **own))
    return found


def values(references, hypotheses, resample: str) -> dict[str, tuple[float, float, float]]:
    scores = score_task(SGC, references, hypotheses, resample=resample)
    return {s.metric: (s.value, s.low, s.high) for s in scores}


def test_all_right_is_exact_in_speakers():
    """A speaker is one trial; of the means over classes, the class with one speaker decides."""
    references = voices({"a": "female", "b": "female", "c": "female", "d": "male"})
    right = {u.key: said(u.key, u.labels["gender"]) for u in references}
    found = values(references, right, "speaker")
    assert found["accuracy"] == (100.0, pytest.approx(100 - left_open(4)), 100.0)
    assert found["uar"] == (100.0, pytest.approx(100 - left_open(2)), 100.0)
    single = values(references, right, "utterance")
    assert single["accuracy"][1] == pytest.approx(100 - left_open(20))
    same = compare_task(SGC, references, right, right, resample="speaker")
    assert same["gender", "accuracy", "all"][1:3] == pytest.approx((-left_open(4), left_open(4)))


def test_a_speaker_of_several_classes_is_one_trial():
    strata = np.array([0, 1, 2, 0, 1, 2])
    sums = MetricSums(accuracy.UAR, np.ones((6, 1)), share(0, 0), 6, strata=strata)
    assert sums.trials(np.array([0, 0, 0, 1, 1, 1])) == 2
    assert sums.trials(np.arange(6)) == 6
    assert sums.trials(np.array([0, 1, 2, 0, 3, 4])) == 3, "a class with one speaker, of three"
    assert dataclasses.replace(sums, strata=np.array([-1] * 6)).trials(np.arange(6)) == 0
    assert dataclasses.replace(sums, strata=None).trials(np.arange(6)) == 0


def test_one_speaker_tells_nothing_of_others():
    references = voices({"a": "female"})
    half = {u.key: said(u.key, "female" if i % 2 else "male") for i, u in enumerate(references)}
    scores = score_task(SGC, references, half, resample="speaker")
    assert (scores[0].value, math.isnan(scores[0].low)) == (40.0, True)
    assert "[–, –]" in score_table.markdown_table(scores)
    right = {u.key: said(u.key, "female") for u in references}
    assert values(references, right, "speaker")["accuracy"] == (100.0, pytest.approx(2.5), 100.0)
    [difference, *_] = compare_task(SGC, references, right, half, resample="speaker").values()
    assert difference.difference == 60 and math.isnan(difference.low + difference.p_value)
    name = ("gender", "accuracy", "all")
    row = comparison.row("sgc", name, (1, 2), difference, ("x", "y"), False)
    assert row["better"] == "" and "| [–, –] | – | – |" in comparison_table.markdown([row])


def test_metrics_that_rest_on_other_utterances_are_not_compared():
    """Each system has probabilities for one answer, but not for the same one."""
    references = voices({"a": "female", "b": "male"}, each=1)
    first = {u.key: said(u.key, "female") for u in references}
    second = {u.key: said(u.key, "female") for u in references}
    first["a0"].probs = second["b0"].probs = {"gender": {"female": 0.9}}
    assert ("gender", "ece", "all") not in compare_task(SGC, references, first, second)
    second["a0"].probs, second["b0"].probs = first["a0"].probs, {}
    assert ("gender", "ece", "all") in compare_task(SGC, references, first, second)


def test_a_metric_has_to_say_whose_its_rows_are(monkeypatch):
    def compute(field, pairs, options):
        return [MetricSums(accuracy.ACCURACY, np.ones((1, 1)), share(0, 0), 1)]

    monkeypatch.setattr(accuracy, "compute", compute)
    with pytest.raises(ValueError, match="has 1 rows for 5 utterances; .* keys"):
        score_task(SGC, voices({"a": "female"}), {"a0": said("a0", "female")})
    with pytest.raises(ValueError, match="'word'; it must be one of utterance, speaker"):
        score_task(SGC, voices({"a": "female"}), {}, resample="word")


@pytest.fixture
def folder(tmp_path):
    """Ten utterances of two speakers, one without, and answers that are all the same."""
    references = voices({"a": "female", "b": "male"})
    references.append(Utterance("n", "a.wav", "hello", labels={"gender": "male"}))
    lines = [utterance.to_json() + "\n" for utterance in references]
    (tmp_path / "ref.jsonl").write_text("".join(lines), encoding="utf-8")
    lines = [said(utterance.key, "male").to_json() + "\n" for utterance in references]
    (tmp_path / "hyp.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def run(folder, *more: str) -> dict:
    words = f"<GENDER>={folder}/ref.jsonl,{folder}/hyp.jsonl"
    arguments = ["--set", words, "--out", f"{folder}/out", "--report", "--resamples", "50"]
    assert score.main([*arguments, *more]) == 0
    return json.loads((folder / "out/score.json").read_text(encoding="utf-8"))


def test_what_was_drawn_is_told_everywhere(folder, capsys):
    tree = run(folder, "--resample", "speaker", "--compare", f"{folder}/hyp.jsonl")
    console = capsys.readouterr()
    assert "intervals: 95 %, speakers resampled" in console.out and "| clusters |" in console.out
    assert "p = 1.000, speakers resampled" in console.out
    assert "1 of 11 references have no speaker, each is resampled by itself" in console.err
    assert "2 speakers are few: an interval that resamples them is too narrow" in console.err
    assert tree["intervals"] == "95 %, speakers resampled"
    assert tree["comparison"][0]["resample"] == "speaker"
    drawn = {"unit": "speaker", "clusters": 3, "without_speaker": 1}
    assert tree["scores"][0]["detail"]["resampled"] == drawn
    for name in ("score.md", "report.html"):
        text = (folder / "out" / name).read_text(encoding="utf-8")
        assert text.count("95 %, speakers resampled") == 2 + (name == "report.html"), name


def test_utterances_are_drawn_unless_told(folder, capsys):
    tree = run(folder)
    console = capsys.readouterr()
    assert "intervals: 95 %, utterances resampled" in console.out and "clusters" not in console.out
    assert "speaker" not in console.err
    assert tree["scores"][0]["detail"]["resampled"]["clusters"] == 11
