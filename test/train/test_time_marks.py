"""Marks of time in a training run: any model can get them, and keeps them."""

from __future__ import annotations

from wenet_osum.bin import recognize
from wenet_osum.models import time_marks
from wenet_osum.train.loop import train
from wenet_osum.train.start import open_model


def test_a_run_writes_times_and_so_does_a_run_from_it(tiny, tmp_path):
    """Without the key a run goes on as the model was trained; word times are decoded with them."""
    tree = tiny.tree(max_steps=2)
    tree["model"]["time_marks"] = 0.16
    assert train(tiny.conf(**tree), tmp_path / "run") == 0
    final = tmp_path / "run/final"

    begun = {"init_from": str(final), "lora": tree["model"]["lora"]}
    model, template = open_model(tiny.conf(model=begun), None)
    tokens = model.config.time_marks["tokens"]
    written = [tokens[character] for character in time_marks.CHARACTERS]
    assert template.decode(written) == time_marks.CHARACTERS
    assert model.config.time_marks["every_s"] == 0.16

    options = ["--model", str(final), "--list", str(tiny.dev), "--task", "srwt"]
    assert recognize.main([*options, "--max_tokens", "3", "--out", str(tmp_path / "decoded")]) == 0
    assert (tmp_path / "decoded/text").exists()
