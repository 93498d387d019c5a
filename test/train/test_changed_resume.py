"""Going on with another configuration: no utterance of the epoch is lost or read twice, or the run
stops and says why.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
import yaml

from wenet_osum.train import checkpoint
from wenet_osum.train.loop import train

ALL = Counter(f"train{i:03d}" for i in range(24))
BATCH = {"max_frames": 500, "max_tokens": 1500, "window": 2}


def conf_of(tiny, batch=None, **changes):
    """One micro-batch per step, one epoch."""
    wanted = {
        "max_steps": None,
        "max_epochs": 1,
        "eval_every": 100,
        "log_keys": True,
        "optim": {"lr": 1e-3, "warmup_steps": 2},
    }
    return tiny.conf(**(wanted | {"batch": BATCH | (batch or {}), "rehearsal": False} | changes))


@pytest.fixture(scope="module")
def begun(tiny, tmp_path_factory):
    """A run that ended after three of its epoch's micro-batches."""
    folder = tmp_path_factory.mktemp("begun")
    assert train(conf_of(tiny, max_steps=3, max_epochs=None), folder) == 0
    return folder


@pytest.fixture
def exp_dir(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "x")
    return tmp_path / "x"


def keys(exp_dir):
    lines = (exp_dir / "keys" / "rank_0000.jsonl").read_text(encoding="utf-8").splitlines()
    return Counter(key for line in lines for key, _ in json.loads(line)["keys"])


def state_of(exp_dir):
    return checkpoint.read_state(checkpoint.complete(exp_dir)[-1])


def log(exp_dir):
    return (exp_dir / "train.log").read_text(encoding="utf-8")


def new_data(tiny, file, **changes):
    data = yaml.safe_load(tiny.data.read_text(encoding="utf-8"))
    data["train"][0] |= changes
    return str(tiny.write(file, data))


@pytest.mark.parametrize(
    ("batch", "changes"),
    [
        ({}, {}),
        ({"max_frames": 250}, {}),
        ({"max_frames": 1000}, {}),
        ({"max_utterances": 1}, {}),
        ({"window": 1}, {"seed": 778}),
    ],
    ids=["same", "halved", "doubled", "alone", "seed"],
)
def test_each_utterance_of_the_epoch_is_read_once(tiny, exp_dir, batch, changes):
    assert 0 < keys(exp_dir).total() < 24
    assert train(conf_of(tiny, batch, **changes), exp_dir) == 0
    assert keys(exp_dir) == ALL
    state = state_of(exp_dir)
    assert state.step == state.total_steps and (state.epoch, state.earlier) == (1, [])
    assert ("planned anew" in log(exp_dir)) == bool(batch or changes)


def test_budgets_may_change_twice_in_an_epoch(tiny, exp_dir):
    assert train(conf_of(tiny, {"max_frames": 250}, max_steps=5, max_epochs=None), exp_dir) == 0
    assert len(state_of(exp_dir).earlier) == 1
    assert train(conf_of(tiny, {"max_frames": 400}, max_steps=6, max_epochs=None), exp_dir) == 0
    assert len(state_of(exp_dir).earlier) == 2
    assert train(conf_of(tiny, {"max_frames": 400}), exp_dir) == 0
    assert keys(exp_dir) == ALL


def test_what_has_changed_is_printed_and_the_schedule_follows(tiny, exp_dir):
    assert train(conf_of(tiny, {"max_frames": 250}, log_every=2), exp_dir) == 0
    for line in (
        "train.yaml: batch.max_frames: 500 → 250",
        "train.yaml: log_every: 1 → 2",
        "the schedule of the learning rate ends at step",
    ):
        assert f"changed: {line}" in log(exp_dir)
    assert "seed" not in log(exp_dir).rpartition("resumed from")[2].split("trains")[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weight": 2.0}, r"train\.bursts\.weight: 1\.0 → 2\.0"),
        ({"tasks": {"asr": 1.0}}, r"train\.bursts\.tasks\.sgc: 1\.0 → nothing"),
        ({"name": "others"}, r"train\.bursts: .* → nothing"),
    ],
    ids=["weight", "tasks", "name"],
)
def test_another_mixture_inside_an_epoch_stops(tiny, exp_dir, changes, told):
    data = new_data(tiny, "changed.yaml", **changes)
    with pytest.raises(ValueError, match=rf"epoch 0 is under way .*{told}.*model\.init_from"):
        train(conf_of(tiny, data=data), exp_dir)


def test_other_utterances_inside_an_epoch_stop_and_moved_lists_do_not(tiny, exp_dir):
    moved = tiny.train.with_name("moved.list")
    shutil.copy(tiny.train, moved)
    assert (
        train(
            conf_of(
                tiny,
                data=new_data(tiny, "moved.yaml", list=str(moved)),
                max_steps=4,
                max_epochs=None,
            ),
            exp_dir,
        )
        == 0
    )
    assert not state_of(exp_dir).earlier and "data.yaml: train.bursts.list" in log(exp_dir)
    fewer = tiny.train.with_name("fewer.list")
    fewer.write_text(
        "".join(tiny.train.read_text(encoding="utf-8").splitlines(keepends=True)[1:]),
        encoding="utf-8",
    )
    with pytest.raises(
        ValueError, match=r"lists of bursts hold other utterances.*model\.init_from"
    ):
        train(conf_of(tiny, data=new_data(tiny, "fewer.yaml", list=str(fewer))), exp_dir)


def test_between_two_epochs_everything_may_change(tiny, exp_dir):
    assert train(conf_of(tiny), exp_dir) == 0
    data = new_data(tiny, "twice.yaml", weight=2.0)
    assert train(conf_of(tiny, data=data, max_epochs=2), exp_dir) == 0
    assert keys(exp_dir) == Counter(dict.fromkeys(ALL, 3))
    assert "epoch 1 begins under another plan" in log(exp_dir)


def test_a_filter_may_change_and_what_it_leaves_out_is_counted(tiny, exp_dir):
    seen = keys(exp_dir)
    assert train(conf_of(tiny, filter={"max_s": 0.7}), exp_dir) == 0
    assert max(keys(exp_dir).values()) == 1 and seen < keys(exp_dir) < ALL
    assert "drawn for this epoch, left out by the new filter or budgets" in log(exp_dir)


def test_an_epoch_of_which_nothing_is_left_is_over(tiny, exp_dir):
    """A checkpoint of the last step of an epoch stands before the border."""
    steps = 0
    while keys(exp_dir) != ALL:
        steps = state_of(exp_dir).step + 1
        assert train(conf_of(tiny, max_steps=steps, max_epochs=None), exp_dir) == 0
    assert (state_of(exp_dir).epoch, state_of(exp_dir).consumed) == (1, 0)
    assert train(conf_of(tiny, {"max_frames": 250}, max_epochs=2), exp_dir) == 0
    assert keys(exp_dir) == ALL + ALL


def test_data_may_change_after_an_epoch_whose_last_step_was_evaluated(tiny, tmp_path):
    assert train(conf_of(tiny, eval_every=1), tmp_path / "x") == 0
    data = new_data(tiny, "twice.yaml", weight=2.0)
    assert train(conf_of(tiny, eval_every=1, data=data, max_epochs=2), tmp_path / "x") == 0
    assert keys(tmp_path / "x") == ALL + ALL + ALL


def test_a_checkpoint_without_a_plan_cannot_go_on_inside_an_epoch(tiny, exp_dir):
    file = checkpoint.complete(exp_dir)[-1] / checkpoint.STATE
    row = json.loads(file.read_text(encoding="utf-8"))
    del row["plan"], row["earlier"]
    file.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(ValueError, match="ordered by another version"):
        train(conf_of(tiny), exp_dir)
