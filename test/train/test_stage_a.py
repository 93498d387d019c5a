"""Alignment by CTC alone, and phase 1: trained, averaged, decoded in each mode and scored, command by command."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import wenet_osum
from wenet_osum.bin import average, recognize, score
from wenet_osum.config import from_dict
from wenet_osum.models import build
from wenet_osum.models.ctc_scores import scoring_of
from wenet_osum.text import ctc_classes
from wenet_osum.text.template import Template
from wenet_osum.train.loop import train

CTC = ["--mode", "ctc_greedy_search"]


@pytest.fixture(scope="module")
def stage_a(tiny, tmp_path_factory):
    """The run's folder: two steps of alignment; its file of classes is gone afterwards."""
    folder = tmp_path_factory.mktemp("stage_a")
    template = Template.load(tiny.folder / "llm")
    classes = folder / "classes.txt"
    classes.write_text("\n".join(ctc_classes.learn(template.tokenizer, ["one two three four five"], 16)), encoding="utf-8")
    data = yaml.safe_load(tiny.data.read_text(encoding="utf-8"))
    data["train"][0]["tasks"] = {"asr": 1.0}
    data["dev"].pop("sgc")
    (folder / "data.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    loss = {"name": "ctc", "weight": 1.0, "scores": "distance", "classes": str(classes), "commitment": 0.1}
    model = {
        "whisper": str(tiny.folder / "whisper"),
        "llm": str(tiny.folder / "llm"),
        "adapter": "linear",
        "ce_weight": 0.0,
        "losses": [loss],
    }
    changes = {"data": str(folder / "data.yaml"), "model": model, "train_parts": {"adapter.*": {}, "encoder.*": {}}}
    tree = tiny.tree(**changes, max_steps=2, eval_every=1)
    assert train(from_dict(tree), folder / "exp") == 0
    # The same command goes on, or finds nothing to do.
    assert train(from_dict(tree), folder / "exp") == 0
    classes.unlink()
    words = ["--exp_dir", str(folder / "exp"), "--mode", "last", "--num", "2", "--out", str(folder / "mean")]
    assert average.main(words) == 0
    return folder


def test_the_loss_of_ctc_stands_by_its_name_in_the_log(stage_a):
    """It is all there is of weight 1, so it is the loss of the tasks too, in training and on the dev list."""
    rows = [json.loads(line) for line in (stage_a / "exp/log.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = [row for row in rows if row["split"] == "train"]
    assert [row["losses"]["ctc"] for row in trained if not row["task"]] == pytest.approx([row["loss"] for row in trained if row["task"]], rel=1e-5)
    dev = [row for row in rows if row["split"] == "dev" and row["task"]]
    assert dev and all(row["loss_ctc"] == pytest.approx(row["loss"], rel=1e-5) for row in dev)
    assert "  ctc " in (stage_a / "exp/train.log").read_text(encoding="utf-8")


def decode(model, listed, out, *more):
    words = ["--model", str(model), "--list", str(listed), "--task", "asr", "--out", str(out), "--max_tokens", "8"]
    assert recognize.main([*words, *more]) == 0
    return [json.loads(line) for line in (out / "hyp.jsonl").read_text(encoding="utf-8").splitlines()]


def rates(listed, hyp, out, *more):
    words = ["--set", f"asr={listed},{hyp}", "--out", str(out), "--resamples", "5", *more]
    status = score.main(words)
    scores = json.loads((out / "score.json").read_text(encoding="utf-8"))["scores"]
    return status, {s["metric"]: s["value"] for s in scores}


def test_alignment_is_trained_averaged_decoded_and_gated(stage_a, tiny, tmp_path, capsys):
    answers = decode(stage_a / "mean", tiny.dev, tmp_path / "ctc", *CTC)
    assert len(answers) == 5 and not any(row.get("error") for row in answers)
    beams = decode(stage_a / "mean", tiny.dev, tmp_path / "beams", "--mode", "ctc_prefix_beam_search")
    assert len(beams) == 5 and not any(row.get("error") for row in beams)
    status, found = rates(tiny.dev, tmp_path / "ctc", tmp_path / "score")
    assert status == 0 and found["wer"] > 0
    gate = [f"--bar=asr/wer<={found['wer'] + 1}", "--require_bars"]
    assert rates(tiny.dev, tmp_path / "ctc", tmp_path / "score", *gate)[0] == 0
    gate[0] = f"--bar=asr/wer<={found['wer'] - 1}"
    assert rates(tiny.dev, tmp_path / "ctc", tmp_path / "score", *gate)[0] == 3
    assert "missed with" in capsys.readouterr().err


def test_the_folder_says_how_it_was_trained_and_later_stages_keep_it(stage_a, tiny):
    model = build.load(stage_a / "mean")
    kept = scoring_of(model.config.losses)
    assert kept.scores == "distance" and len(kept.classes) == 16 and model.config.answers_trained is False
    # Cross-entropy alone goes on from it: the classes are still those of its alignment.
    init = {"init_from": str(stage_a / "mean")}
    tree = tiny.tree(model=init, train_parts={"adapter.*": {}}, max_steps=2, eval_every=2)
    assert train(from_dict(tree), stage_a / "next") == 0
    later = build.load(stage_a / "next/final").config
    assert scoring_of(later.losses) == kept and later.answers_trained is True
    # The next alignment may name the model in the place of the file.
    again = {"name": "ctc", "weight": 0.3, "classes": str(stage_a / "mean")}
    tree["model"] = init | {"losses": [again]}
    assert train(from_dict(tree), stage_a / "third") == 0
    assert scoring_of(build.load(stage_a / "third/final").config.losses).classes == kept.classes


def test_the_llm_of_an_aligned_model_answers_with_a_warning(stage_a, tiny, tmp_path):
    with pytest.warns(UserWarning, match="ce_weight 0 only.*--mode ctc_greedy_search"):
        answers = decode(stage_a / "mean", tiny.dev, tmp_path / "llm")
    assert len(answers) == 5


def test_other_tasks_are_refused_where_they_are_asked(stage_a, tiny, tmp_path, capsys):
    words = ["--model", str(stage_a / "mean"), "--list", str(tiny.dev), "--out", str(tmp_path), *CTC]
    assert recognize.main([*words, "--task", "sgc"]) == 2
    assert "answers <TRANSCRIBE> and, with this model, no label, not <TRANSCRIBE> <GENDER>" in capsys.readouterr().err
    transcriber = wenet_osum.load(stage_a / "mean", mode="ctc_greedy_search")
    with pytest.raises(ValueError, match="answers <TRANSCRIBE>"):
        transcriber(torch.zeros(16000), task="ser")
    rows = [json.loads(line) | {"task": "ser" if i else "asr"} for i, line in enumerate(tiny.dev.read_text().splitlines())]
    mixed = tmp_path / "mixed.list"
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "auto"
    assert recognize.main([*words[:2], "--list", str(mixed), "--out", str(out), "--task", "auto", *CTC]) == 0
    found = [json.loads(line) for line in (out / "hyp.jsonl").read_text(encoding="utf-8").splitlines()]
    assert not found[0].get("error") and all("answers <TRANSCRIBE>" in row["error"] for row in found[1:])


def test_phase_1_is_decoded_in_all_modes_and_scored(tiny, tmp_path):
    assert train(from_dict(tiny.whisper_tree(max_steps=2, eval_every=2)), tmp_path / "exp") == 0
    final = tmp_path / "exp/final"
    ways = {"decoder": [], "beam": ["--num_beams", "2"], "ctc": CTC}
    ways |= {mode: ["--mode", mode, "--num_beams", "3"] for mode in ("ctc_prefix_beam_search", "attention_rescoring")}
    for name, more in ways.items():
        answers = decode(final, tiny.dev, tmp_path / name, *more)
        assert len(answers) == 5 and not any(row.get("error") for row in answers), name
        assert rates(tiny.dev, tmp_path / name, tmp_path / f"score_{name}")[1]["wer"] > 0
    [label] = wenet_osum.load(final, task="sgc", max_tokens=4)([torch.zeros(16000)])
    assert label.labels["gender"] in ("female", "male")
    with pytest.raises(ValueError, match="phase 1 has none"):
        wenet_osum.load(final, rescore={"ctc_prefix": 0.5})
