"""A task with each of its wordings, from the list to the scorer's table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from wenet_osum.bin import recognize, score
from wenet_osum.decode import load
from wenet_osum.decode.all_prompts import wordings
from wenet_osum.tasks import parse
from wenet_osum.text.template import Template

SGC = parse("sgc")


@pytest.fixture(scope="module")
def small_list(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompted")
    rows = []
    for i, gender in enumerate(("male", "female", "male")):
        soundfile.write(folder / f"{i}.wav", np.random.default_rng(i).normal(0, 0.1, 4000 + 700 * i), 16000)
        rows.append({"key": f"k{i}", "wav": str(folder / f"{i}.wav"), "txt": "the cat", "lang": "en", "gender": gender})
    (folder / "test.list").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "test.list"


def run(model_dir, small_list, out, *more):
    words = ["--model", model_dir, "--list", small_list, "--out", out, "--task", "sgc", "--max_tokens", "6", *more]
    return recognize.main([str(word) for word in words])


def test_every_wording_is_decoded_and_scored(model_dir, small_list, tmp_path, monkeypatch, capsys):
    loads, make = [], load.recognizer
    monkeypatch.setattr(load, "recognizer", lambda args: loads.append(1) or make(args))
    assert run(model_dir, small_list, tmp_path / "all", "--prompts", "all") == 0 and len(loads) == 1
    named = json.loads((tmp_path / "all/prompts.json").read_text(encoding="utf-8"))["prompts"]
    assert [(row["lang"], row["text"]) for row in named] == [(lang, text) for lang in ("zh", "en") for text in SGC.prompts(lang)]
    answers = {row["folder"]: (tmp_path / "all" / row["folder"] / "hyp.jsonl").read_text(encoding="utf-8") for row in named}
    assert len(set(answers.values())) > 5  # the model hears the prompt
    assert run(model_dir, small_list, tmp_path / "one", "--prompt", SGC.prompts("en")[2], "--lang", "en") == 0
    assert (tmp_path / "one/hyp.jsonl").read_text(encoding="utf-8") == answers["en_2"]
    assert run(model_dir, small_list, tmp_path / "default") == 0
    assert (tmp_path / "default/hyp.jsonl").read_text(encoding="utf-8") == answers["zh_0"]

    (tmp_path / "all/zh_1/hyp.jsonl").unlink()  # killed on the way: the others stay as they are
    loads.clear()
    assert run(model_dir, small_list, tmp_path / "all", "--prompts", "all") == 0 and len(loads) == 1
    assert (tmp_path / "all/zh_1/hyp.jsonl").read_text(encoding="utf-8") == answers["zh_1"]
    capsys.readouterr()

    words = ["--ref", small_list, "--hyp", tmp_path / "all", "--task", "sgc", "--out", tmp_path / "score", "--report"]
    assert score.main([str(word) for word in words]) == 0
    tree = json.loads((tmp_path / "score/score.json").read_text(encoding="utf-8"))
    [row] = [r for r in tree["prompts"] if r["metric"] == "accuracy"]
    assert row["prompts"] == 10 and set(row["values"]) == set(answers) and set(row["by_language"]) == {"zh", "en"}
    [main] = [s for s in tree["scores"] if s["metric"] == "accuracy"]
    assert row["scoring_prompt"] == row["values"]["zh_0"] == main["value"]
    assert "## Prompt sensitivity" in capsys.readouterr().out and "## Prompt sensitivity" in (tmp_path / "score/score.md").read_text()
    page = (tmp_path / "score/report.html").read_text(encoding="utf-8")
    assert "sgc: 10 wordings" in page and SGC.prompts("zh")[4] in page


def test_faults_of_prompts(model_dir, small_list, tmp_path, capsys):
    for more, message in ((["--prompt", "x"], "leave --prompt out"), (["--task", "auto"], "leave --task auto out")):
        assert run(model_dir, small_list, tmp_path, "--prompts", "all", *more) == 2
        assert message in capsys.readouterr().err


def test_a_model_with_prompts_of_its_own(parts):
    own = Template(parts[1].tokenizer, prompts={"sgc": ["谁？", "男女？"]})
    assert [(w.folder, w.text) for w in wordings(own, SGC)] == [("zh_0", "谁？"), ("zh_1", "男女？")]
    assert [w.folder for w in wordings(own, parse("<GENDER><AGE>"), "en")] == ["en_0", "en_1", "en_2"]
    with pytest.raises(ValueError, match="are in zh"):
        wordings(own, SGC, "en")
