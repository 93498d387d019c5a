from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from wenet_osum.bin.average import main
from wenet_osum.models import build
from wenet_osum.train import checkpoint
from wenet_osum.train.average import choose
from wenet_osum.train.loop import train


def fake(exp_dir, step: int, value: float, dev: float | None, extra: bool = False) -> None:
    folder = exp_dir / checkpoint.folder_name(step)
    (folder / "trainer").mkdir(parents=True)
    (folder / "lora").mkdir()
    tensors = {"w": torch.full((2, 3), value, dtype=torch.bfloat16), "count": torch.tensor([step])} | ({"more": torch.ones(1)} if extra else {})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"a": torch.full((2,), -value)}, folder / "lora" / "adapter_model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"step": step, "dev": {} if dev is None else {"asr": dev}}))
    (folder / "DONE").touch()


def test_modes_choose_and_average(tmp_path, weights_of, capsys):
    for step, value, dev in ((0, 9.0, float("nan")), (1, 1.0, 0.1), (2, 2.0, 0.9), (3, 6.0, 0.2)):
        fake(tmp_path, step, value, dev)
    for mode, mean in (("last", 4.0), ("best", 3.5)):
        assert main(["--exp_dir", str(tmp_path), "--mode", mode, "--num", "2", "--out", str(tmp_path / "final")]) == 0
        found = weights_of(tmp_path / "final")
        assert torch.equal(found["model.safetensors:w"], torch.full((2, 3), mean, dtype=torch.bfloat16))
        assert torch.equal(found["lora/adapter_model.safetensors:a"], torch.full((2,), -mean))
        assert found["model.safetensors:count"].tolist() == [3], "integers come from the newest"
    assert not (tmp_path / "final" / "trainer").exists() and (tmp_path / "final" / "DONE").exists()
    note = json.loads((tmp_path / "final" / "average.json").read_text())
    assert [row["step"] for row in note["averaged"]] == [1, 3]
    said = capsys.readouterr().out
    assert "step_00000001, step_00000003" in said and "A and B are averaged each for itself" in said


def test_faults_are_sentences(tmp_path, capsys):
    assert main(["--exp_dir", str(tmp_path), "--out", str(tmp_path / "final")]) == 1
    fake(tmp_path, 1, 1.0, None)
    assert main(["--exp_dir", str(tmp_path), "--mode", "best", "--out", str(tmp_path / "final")]) == 1
    fake(tmp_path, 2, 1.0, None, extra=True)
    assert main(["--exp_dir", str(tmp_path), "--out", str(tmp_path / "final")]) == 1
    said = capsys.readouterr().err
    for part in ("no complete checkpoint", "no checkpoint in", "only checkpoints of one run"):
        assert part in said
    assert not (tmp_path / "final").exists()


def test_an_experiment_is_not_replaced_by_its_average(tmp_path, capsys):
    fake(tmp_path / "x", 1, 1.0, 0.1)
    (tmp_path / "x" / "train.log").write_text("steps\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years\n")
    for out in (tmp_path / "x", tmp_path, tmp_path / "x" / "step_00000001", tmp_path / "other"):
        assert main(["--exp_dir", str(tmp_path / "x"), "--out", str(out)]) == 1
        assert "is not a model folder that can be replaced" in capsys.readouterr().err
    assert (tmp_path / "x" / "train.log").exists() and (tmp_path / "other" / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    assert main(["--exp_dir", str(tmp_path / "x"), "--out", str(tmp_path / "empty")]) == 0


def test_the_mean_of_a_real_run_loads(tiny, tmp_path, weights_of):
    assert train(tiny.conf(max_steps=4), tmp_path) == 0
    assert main(["--exp_dir", str(tmp_path), "--num", "2", "--out", str(tmp_path / "mean")]) == 0
    a, b, mean = (weights_of(tmp_path / name) for name in ("step_00000002", "step_00000004", "mean"))
    name = "model.safetensors:adapter.input.weight"
    assert not torch.equal(a[name], b[name])
    assert torch.allclose(mean[name], (a[name] + b[name]) / 2)
    assert build.load(tmp_path / "mean").lora is not None


@pytest.mark.parametrize("num", ["0", "-1"])
def test_a_count_below_one_is_a_fault(tmp_path, num, capsys):
    fake(tmp_path, 1, 1.0, 0.5)
    assert main(["--exp_dir", str(tmp_path), "--num", num, "--out", str(tmp_path / "final")]) == 1
    assert "at least 1" in capsys.readouterr().err


def test_the_best_have_the_lowest_mean_over_all_dev_lists(tmp_path):
    for step, dev in ((1, {"asr": 0.1, "ser": 2.0}), (2, {"asr": 0.5, "ser": 0.5}), (3, {"asr": 0.4, "ser": 1.0})):
        fake(tmp_path, step, 1.0, None)
        (tmp_path / checkpoint.folder_name(step) / "state.json").write_text(json.dumps({"step": step, "dev": dev}))
    assert [path.name for path in choose(tmp_path, "best", 1)] == ["step_00000002"]
