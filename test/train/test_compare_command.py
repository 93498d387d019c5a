"""The comparison between phases: what made a model worse is found, what did not is let through."""

from __future__ import annotations

import json

import pytest
import torch

from wenet_osum import config
from wenet_osum.bin import compare as compare_command
from wenet_osum.metrics.accuracy import ACCURACY
from wenet_osum.metrics.error_rate import WER
from wenet_osum.score.bootstrap import Difference
from wenet_osum.train.compare import Verdict, spread, tokens_compared
from wenet_osum.train.start import open_model


def save(model, template, folder) -> str:
    model.save_pretrained(folder)
    template.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def dev(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dev")
    for task in ("asr", "sgc"):
        (folder / f"{task}.list").write_text(tiny.train.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A run's folder with a model that says one gender for all."""
    conf = tiny.conf()
    torch.manual_seed(0)
    model, template = open_model(conf, None)
    folder = tmp_path_factory.mktemp("run")
    save(model, template, folder / "final")
    return folder


def run(*arguments: object) -> int:
    return compare_command.main([str(a) for a in arguments])


def test_a_model_is_not_worse_than_itself(finished, dev, capsys):
    assert run("--exp_dir", finished, "--before", finished, "--dev", dev, "--limit", 8, "--max_tokens", 6) == 0
    said = capsys.readouterr().out
    assert "0 of " in said and "compare sgc    passed: accuracy all +0.00 [-36.94, +36.94] points on 8 utterances" in said
    rows = json.loads((finished / "compare/compare.json").read_text())
    assert {row["task"] for row in rows} == {"asr", "sgc"} and all(row["outcome"] == "passed" for row in rows)
    assert len((finished / "compare/before/sgc.jsonl").read_text().splitlines()) == 8


def test_a_worse_model_fails(finished, dev, tmp_path, monkeypatch, capsys):
    """Before: every answer is the truth."""
    from wenet_osum.train import compare

    original = compare.answers

    def answers(recognizer, task, jobs, out):
        found = original(recognizer, task, jobs, out)
        if out.parent.name == "before":
            for job in jobs:
                found[job.key].labels = {"gender": job.read()[0].labels["gender"]}
        return found

    monkeypatch.setattr(compare, "answers", answers)
    arguments = ("--exp_dir", finished, "--before", finished, "--dev", dev, "--tasks", "sgc", "--max_tokens", 6)
    assert run(*arguments) == 3
    assert "compare sgc    FAILED: accuracy all" in capsys.readouterr().out
    assert run(*arguments, "--margin", 101) == 0


def test_phase_one_against_its_own_start(tiny, dev, tmp_path, capsys):
    conf = config.from_dict(tiny.whisper_tree())
    torch.manual_seed(0)
    model, template = open_model(conf, None)
    save(model, template, tmp_path / "run" / "final")
    start = tiny.folder / "whisper"
    assert run("--exp_dir", tmp_path / "run", "--before", start, "--dev", dev, "--limit", 6) == 0
    assert "token_accuracy all +0.00" in capsys.readouterr().out


def test_token_accuracy_is_compared_utterance_by_utterance():
    import numpy as np

    before, after = np.array([[9.0, 10.0]] * 20), np.array([[4.0, 10.0]] * 20)
    found = tokens_compared("asr", after, before, margin=2)
    assert found.difference.difference == pytest.approx(-50) and found.outcome == "FAILED"
    assert tokens_compared("asr", before, after, margin=2).outcome == "passed"


@pytest.mark.parametrize(
    ("metric", "difference", "outcome"),
    [
        (WER, (3.0, 1.0, 5.0), "FAILED"),
        (WER, (3.0, -1.0, 7.0), "unclear"),
        (WER, (1.5, 1.0, 2.0), "passed"),
        (WER, (-9.0, -12.0, -6.0), "passed"),
        (ACCURACY, (-3.0, -5.0, -1.0), "FAILED"),
        (ACCURACY, (3.0, 1.0, 5.0), "passed"),
    ],
)
def test_outcomes(metric, difference, outcome):
    assert Verdict("x", metric, "all", Difference(*difference, 0.01, 9), margin=2.0).outcome == outcome


def test_faults_are_sentences(finished, dev, tmp_path, capsys):
    (tmp_path / "half" / "step_00000001").mkdir(parents=True)
    for arguments, words in (
        (("--exp_dir", finished, "--before", tmp_path / "half", "--dev", dev), "its training has not ended"),
        (("--exp_dir", finished, "--before", finished, "--dev", dev, "--tasks", "ser"), "not of ser"),
        (("--exp_dir", finished, "--before", finished, "--dev", tmp_path), "lists of no task"),
        (("--exp_dir", finished, "--before", finished, "--dev", dev, "--limit", 1), "at least 2"),
    ):
        assert run(*arguments) == 1
        assert words in capsys.readouterr().err


def test_few_are_spread_evenly():
    assert spread(range(10), 3) == [0, 4, 9] and spread([1, 2], 5) == [1, 2]
