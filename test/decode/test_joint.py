"""Rescorers as commands and ``load`` name them: weights, plug-ins, names that are gone, models that do not fit."""

from __future__ import annotations

import argparse
import json
import shutil

import pytest
import torch

import wenet_osum
from wenet_osum.decode import joint, options
from wenet_osum.decode.joint import Joint

TIMES = {"rescore": {"ctc_prefix": 0.5, "word_times": 0.4}, "plugins": ["wenet_osum.small"]}


def test_weights_are_read_as_commands_take_them():
    assert joint.parse("ctc_prefix=0.5,word_times=.25") == {"ctc_prefix": 0.5, "word_times": 0.25}
    assert joint.parse("") == {}
    for wrong in ("ctc_prefix", "ctc_prefix=much", "=0.5,ctc_prefix="):
        with pytest.raises(ValueError, match="must read NAME=WEIGHT"):
            joint.parse(wrong)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    return parser.parse_args(words)


def test_commands_take_rescorers_of_the_core_and_of_plugins():
    found = options.decode_options(parse("--rescore", "ctc_prefix=0.5,word_times=0", "--plugins", "wenet_osum.small"))
    assert found.rescore == {"ctc_prefix": 0.5, "word_times": 0.0} and found.joint == {"ctc_prefix": 0.5}
    with pytest.raises(ValueError, match="unknown rescore 'ctc_prefx', did you mean 'ctc_prefix'"):
        options.decode_options(parse("--rescore", "ctc_prefx=0.5"))
    with pytest.raises(ValueError, match="plugins 'no_such_package'"):
        options.decode_options(parse("--plugins", "no_such_package"))


@pytest.mark.parametrize("name", ["ctc_weight", "tone_weight"])
@pytest.mark.parametrize("form", ["--{}=0.5", "--{} 0.5"])
def test_options_that_are_gone_are_answered_with_the_new_form(capsys, name, form):
    with pytest.raises(SystemExit):
        parse(*form.format(name).split())
    assert f"--{name}: this option is gone; write" in (told := capsys.readouterr().err) and "--rescore ctc_prefix=" in told


def test_load_takes_tables_and_lists_and_refuses_what_is_gone(model_dir):
    found = wenet_osum.load(model_dir, **TIMES).recognizer.options
    assert found.rescore == TIMES["rescore"]
    with pytest.raises(ValueError, match="ctc_weight: this option is gone; write --rescore ctc_prefix="):
        wenet_osum.load(model_dir, ctc_weight=0.5)
    with pytest.raises(ValueError, match="must read NAME=WEIGHT"):
        wenet_osum.load(model_dir, rescore="ctc_prefix")


def test_a_model_without_the_training_is_refused_before_it_answers(model_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"losses": [{"name": "ctc", "weight": 0.1}]}))
    assert wenet_osum.load(folder, rescore={"ctc_prefix": 0.5})
    with pytest.raises(ValueError, match="rescore word_times: needs a model that was trained with word_time"):
        wenet_osum.load(folder, **TIMES)


class Doubling:
    """A rescorer's state that counts tokens and doubles the LLM's opinion."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def applies(self, answer_state, states):
        return answer_state is not None

    def advance(self, answer_state, token):
        return Doubling(self.count + 1)

    def change(self, answer_state, logs, tokens, states):
        return logs.clone()


def test_changes_of_all_rescorers_add_up_over_the_candidates(monkeypatch):
    monkeypatch.setattr(joint, "CANDIDATES", 3)
    logits = torch.tensor([0.5, 3.0, -1.0, 2.0, 1.0])
    logs = logits.double().log_softmax(-1)
    both = Joint({"a": Doubling(), "b": Doubling()})
    scores = both.scores("somewhere", logits)
    torch.testing.assert_close(scores[[1, 3, 4]], 3 * logs[[1, 3, 4]])
    assert scores[[0, 2]].tolist() == [-torch.inf] * 2, "what is no candidate cannot be chosen"
    torch.testing.assert_close(both.scores(None, logits), logs)
    after = both.advance("somewhere", 1)
    assert [state.count for state in after.states.values()] == [1, 1] and both.states["a"].count == 0, "states never change"
