"""What stays of old checkpoints, and what can be gone on from."""

from __future__ import annotations

import math
import shutil

import pytest

from wenet_osum.train import checkpoint
from wenet_osum.train.loop import train


def fake(exp_dir, step):
    folder = exp_dir / checkpoint.folder_name(step)
    (folder / "trainer").mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "DONE").touch()


def with_trainer(exp_dir):
    return [path.name for path in checkpoint.complete(exp_dir) if (path / "trainer").exists()]


def test_only_the_newest_two_keep_the_trainer_state(tmp_path):
    for step in range(1, 7):
        fake(tmp_path, step)
    fake(tmp_path, 7)
    (tmp_path / "step_00000007" / "DONE").unlink()
    removed = checkpoint.rotate(tmp_path, keep=4, best_step=1)
    assert [path.name for path in removed] == ["step_00000002"]
    assert [path.name for path in checkpoint.complete(tmp_path)] == [
        f"step_0000000{step}" for step in (1, 3, 4, 5, 6)
    ]
    assert with_trainer(tmp_path) == ["step_00000005", "step_00000006"]
    assert (tmp_path / "step_00000001" / "model.safetensors").exists()
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_rotation_leaves_is_cleaned(tmp_path):
    fake(tmp_path, 1)
    (tmp_path / ".step_00000001.trainer.tmp").mkdir()
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_run_goes_on_from_the_last_but_one_and_not_from_older(tiny, tmp_path, weights_of):
    conf = tiny.conf(max_steps=6, eval_every=2, keep=3)
    assert train(conf, tmp_path) == 0
    assert with_trainer(tmp_path) == ["step_00000004", "step_00000006"]
    whole = weights_of(tmp_path / "final")
    shutil.rmtree(tmp_path / "final")
    shutil.rmtree(tmp_path / "step_00000006")
    assert train(conf, tmp_path) == 0
    again = weights_of(tmp_path / "final")
    assert all((again[name] == whole[name]).all() for name in whole)
    for name in ("final", "step_00000006", "step_00000004"):
        shutil.rmtree(tmp_path / name)
    said = r"step_00000002 has no trainer/ .* 2 checkpoints .* model.init_from"
    with pytest.raises(ValueError, match=said):
        train(conf, tmp_path)


def test_the_best_is_the_lowest_mean_and_a_tie_is_not_better():
    state, stale = checkpoint.State(), []
    for step, loss in enumerate([math.nan, 3.0, 4.0, 2.0, 2.0, 2.5], 1):
        state.step = step
        state.note_dev({"asr": loss - 1.0, "ser": loss + 1.0})
        stale.append(state.stale)
    assert stale == [0, 0, 1, 0, 1, 2]
    assert (state.best_loss, state.best_step) == (2.0, 4)
