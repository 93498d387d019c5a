from __future__ import annotations

import pytest

from wenet_osum.bin.train import main


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"max_stepz": 3}, 2, "did you mean 'max_steps'"),
        ({"data": "nowhere.yaml"}, 2, "does not exist"),
        ({"data": None}, 1, "train table"),
        ({"train_parts": {"adaptor.*": {}}}, 1, "matches no parameter"),
        ({"optim": {"schedule": "cosine"}, "max_steps": None, "max_hours": 1.0}, 1, "max_steps or max_epochs"),
        ({"model": {"whisper": "/nowhere/whisper", "llm": "/nowhere/llm"}}, 1, "/nowhere/whisper"),
    ],
)
def test_faults_are_sentences(tiny, tmp_path, capsys, changes, status, words):
    conf = tiny.write("faulty.yaml", tiny.tree(**changes))
    assert main(["--config", str(conf), "--exp_dir", str(tmp_path / "x")]) == status
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_overrides_and_data_reach_the_run(tiny, tmp_path):
    conf = tiny.write("plain.yaml", tiny.tree(data=None))
    command = ["--config", str(conf), "--data", str(tiny.data), "--exp_dir", str(tmp_path)]
    assert main([*command, "--override", "max_steps=1", "--override", "optim.warmup_steps=0"]) == 0
    assert (tmp_path / "step_00000001" / "DONE").exists()
    assert "max_steps: 1" in (tmp_path / "step_00000001" / "train.yaml").read_text(encoding="utf-8")
