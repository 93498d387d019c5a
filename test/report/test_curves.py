"""Curves of training, from logs that hold all sorts of lines."""

from __future__ import annotations

from wenet_osum.report import curves


def test_log_of_training_with_bad_lines(tmp_path):
    lines = [
        '{"step": 1, "split": "dev", "task": "asr", "loss": 2}',
        "rubbish",
        '{"step": 1, "split": "train", "task": null, "lr": 1}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    found, bad = curves.read_log(tmp_path / "log.jsonl")
    assert found == {("dev", "loss"): {"asr": [(1.0, 2.0)]}} and bad == 1
    assert "1 lines of the log" in curves.section([tmp_path])
    assert curves.section([tmp_path / "none"]) == ""
