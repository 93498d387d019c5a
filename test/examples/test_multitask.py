"""examples/multitask: the mixture is what other recipes have prepared; what is missing is named, and one report tells all tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from wenet_osum import config, tasks
from wenet_osum.dataset.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
MIXTURE = ROOT / "examples/multitask/conf/data.yaml"
FIELDS = {  # recipe → what its utterances hold
    "librispeech": {"speaker": "l"},
    "fsdd": {"words": [["one", 0.05, 0.15], ["two", 0.2, 0.3]]},
    "commonvoice": {"gender": "female", "age": "adult"},
    "meld": {"emotion": "anger"},
    "vocalsound": {"event": "sneeze"},
    "esc50": {"txt": "", "event": "cry"},
    "style": {"style": "客服", "txt": "你好", "lang": "zh"},
    "chat": {"reply": "It is two."},
}


@pytest.fixture
def prepare(load_prepare):
    return load_prepare("multitask")


@pytest.fixture
def recipes(tmp_path, tone):
    """Work folders as the recipes leave them after stage 1; paths in the manifests count from there."""
    for r, (name, fields) in enumerate(FIELDS.items()):
        work = tmp_path / "recipes" / name
        for split, count in (("train", 4), ("dev", 2), ("test", 2)):
            (work / f"data/{split}").mkdir(parents=True)
            rows = [{"key": f"{split}{i}", "wav": f"data/{split}/{i}.wav", "txt": "one two", "lang": "en"} | fields for i in range(count)]
            for row in rows:
                (work / row["wav"]).write_bytes(tone(0.4, 100 + 30 * r))
            (work / f"data/{split}/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (work / "data/train/data.list").write_text((work / "data/train/manifest.jsonl").read_text().replace('"wav": "', f'"wav": "{work}/'))
    return tmp_path / "recipes"


def run(prepare, recipes, out, *more):
    prepare.prepare(prepare.arguments(["--data_dir", str(recipes), "--mixture", str(MIXTURE), "--out", str(out), *more]))
    return config.load(out / "data.yaml", config.DataConfig)


def test_every_corpus_recipe_has_a_row_and_all_tasks_are_asked():
    rows = yaml.safe_load(MIXTURE.read_text(encoding="utf-8"))["train"]
    folders = {p.name for p in (ROOT / "examples").iterdir() if p.is_dir()}
    # synthesized, yours, itself, and what joins others
    corpora = folders - {"toy", "osum", "multitask", "asrx", "natural", "soundwave", "kimi_audio"}
    assert corpora <= {row["name"] for row in rows} and all(row["list"] == f"{row['name']}/data/train/data.list" for row in rows)
    assert {task for row in rows for task in row["tasks"]} == set(tasks.default_names())


def test_what_is_prepared_is_mixed_and_the_rest_is_named(prepare, recipes, tmp_path, capsys):
    mixture = run(prepare, recipes, tmp_path / "data")
    assert [s.name for s in mixture.train] == sorted(FIELDS, key=[s.name for s in config.load(MIXTURE, config.DataConfig).train].index)
    assert all(Path(s.list).is_absolute() and Path(s.list).exists() for s in mixture.train)
    assert set(mixture.dev) == {*tasks.default_names(), "<CAPTION>"} and (tmp_path / "data/tasks").read_text().split() == [*tasks.default_names(), "<CAPTION>"]
    assert [u.key.split("-")[0] for task in ("ved", "<CAPTION>") for u in read_manifest(mixture.dev[task])] == ["vocalsound"] * 2 + ["esc50"] * 2
    sgc = list(read_manifest(tmp_path / "data/test/sgc.list"))
    assert [u.key for u in sgc] == ["commonvoice-test0", "commonvoice-test1"] and Path(sgc[0].wav).exists()
    assert {u.key.split("-")[0] for u in read_manifest(mixture.dev["asr"])} == {"librispeech", "fsdd", "commonvoice"}, "only who is asked for it"
    assert len(list(read_manifest(tmp_path / "data/train/manifest.jsonl"))) == 4 * len(FIELDS)
    assert "one two<开始回答>It is two." in (tmp_path / "data/text/train.txt").read_text().splitlines()
    page = capsys.readouterr().out
    assert "ravdess is left out: no " in page and "wenetspeech is left out" in page
    assert "esc50: no utterance can be asked ved, <CAPTION> instead" in page and "meld: 4 utterances, 0.000 h, 2 passes per epoch, ser" in page


def test_strict_is_content_with_every_default_task(prepare, recipes, tmp_path, monkeypatch):
    """Languages, translations and speaker turns are asked by whoever wants them."""
    rows = yaml.safe_load(MIXTURE.read_text(encoding="utf-8"))["train"]
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"train": [row for row in rows if row["name"] in FIELDS]}))
    monkeypatch.setattr(sys.modules[__name__], "MIXTURE", mine)
    mixture = run(prepare, recipes, tmp_path / "data", "--strict")
    assert set(tasks.default_names()) <= set(mixture.dev)
    (recipes / "chat/data/dev/manifest.jsonl").write_text("")
    with pytest.raises(ValueError, match="no data for sttc, and --strict"):
        run(prepare, recipes, tmp_path / "data", "--strict")


def test_strict_wants_all_and_a_task_without_data_is_named(prepare, recipes, tmp_path, capsys):
    with pytest.raises(ValueError, match="of 13 corpora are not prepared, and --strict"):
        run(prepare, recipes, tmp_path / "data", "--strict")
    (recipes / "chat/data/dev/manifest.jsonl").unlink()
    (recipes / "meld/data/train/data.list").unlink()
    mixture = run(prepare, recipes, tmp_path / "data")
    assert not {"sttc", "ser"} & set(mixture.dev) and "sttc" not in (tmp_path / "data/tasks").read_text()
    page = capsys.readouterr().out
    assert "sttc is left out: nothing prepared to validate it on" in page
    assert f"meld is left out: no {recipes.resolve()}/meld/data/train/data.list" in page
    with pytest.raises(ValueError, match="no corpus of the mixture is prepared"):
        run(prepare, tmp_path, tmp_path / "data")


def test_a_recording_that_two_recipes_put_on_both_sides_stops(prepare, recipes, tmp_path):
    """As when styles are told on another recipe's test set."""
    listed = recipes / "style/data/train/manifest.jsonl"
    listed.write_text(listed.read_text().replace("data/train/0.wav", f"{recipes.resolve()}/librispeech/data/test/0.wav"))
    with pytest.raises(ValueError, match="train and test share 1 of .* recordings in test"):
        run(prepare, recipes, tmp_path / "data")


@pytest.mark.slow
def test_recipe_from_lists_to_one_report_at_two_steps(recipes, tmp_path, smoke):
    smoke("multitask", tmp_path / "work", "--data_dir", str(recipes))
    scored = json.loads((tmp_path / "work/exp/score/score.json").read_text())
    assert {row["task"] for row in scored["data"]} == {*tasks.default_names(), "<CAPTION>"} and (tmp_path / "work/exp/score/report.html").exists()
