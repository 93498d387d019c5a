"""The score command from files to files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum import tasks
from wenet_osum.bin import score
from wenet_osum.bin._metadata import data_hash
from wenet_osum.records import Hypothesis, Utterance

SGC = tasks.parse("sgc")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four references with audio, three answers, one of them wrong."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    refs = [Utterance(f"键{i}", "a.wav", f"word {i}", lang="en", labels={"gender": "male" if i % 2 else "female"}) for i in range(4)]
    (tmp_path / "ref.jsonl").write_text("".join(u.to_json() + "\n" for u in refs), encoding="utf-8")
    (tmp_path / "hyp").mkdir()
    rows = [Hypothesis(u.key, SGC.tags, "", transcript=u.txt, labels={"gender": "female"}) for u in refs[:3]]
    (tmp_path / "hyp" / "hyp.jsonl").write_text("".join(h.to_json() + "\n" for h in rows), encoding="utf-8")
    settings = {"beams": 1, "rescore": {"ctc_prefix": 0.3}, "labels": {"gender": ["female", "male"]}}
    (tmp_path / "hyp" / "settings.json").write_text(json.dumps(settings))
    return tmp_path


def run(folder: Path, *more: str) -> int:
    return score.main(["--ref", f"{folder}/ref.jsonl", "--hyp", f"{folder}/hyp", "--task", "sgc", "--out", f"{folder}/out", *more])


def test_table_json_markdown_and_page(folder, capsys):
    assert run(folder, "--report", "--title", "My test", "--train_list", f"{folder}/ref.jsonl", "--bar", "sgc/accuracy>=40") == 0
    out = capsys.readouterr()
    assert "| sgc  | accuracy" in out.out and "50.00 %" in out.out and ">= 40 reached" in out.out
    assert "1 references have no answer" in out.err
    tree = json.loads((folder / "out" / "score.json").read_text(encoding="utf-8"))
    assert tree["title"] == "My test" and tree["data hash"].startswith("sha256:") and tree["decoding"] == "beams 1, rescore ctc_prefix=0.3"
    assert {s["metric"]: s["value"] for s in tree["scores"]}["accuracy"] == 50.0
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "My test" in page and "data:audio/wav;base64," in page and "键3" in page
    assert (folder / "out" / "score.md").exists()


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_references_that_lack_a_field_are_told_and_counted(folder, capsys):
    lines = (folder / "ref.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[1:]:
        del row["gender"]
    del rows[0]["txt"]
    write_rows(folder / "ref.jsonl", rows)
    assert run(folder, "--report") == 0
    err = capsys.readouterr().err
    assert "sgc: 3 of 4 references have no gender, left out of its figures" in err
    assert "sgc: 1 of 4 references have no txt, left out" in err
    tree = json.loads((folder / "out/score.json").read_text(encoding="utf-8"))
    assert tree["data"][0]["left_out"] == {"transcript": 1, "gender": 3}
    page = (folder / "out/score.md").read_text(encoding="utf-8")
    assert "| extra | left out |" in page and "| sgc | 3 | 1 | 0 | 0 | 0 | 3 |" in page
    assert "left out" in (folder / "out/report.html").read_text(encoding="utf-8")
    for row in rows:
        row.pop("txt", None)
    write_rows(folder / "ref.jsonl", rows)
    assert run(folder) == 0
    assert "sgc: no reference has txt, transcript is not scored" in capsys.readouterr().err


SPEAKERS = ["tenor", "soprano"]


def respell(path: Path, **labels: str) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in labels.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def own_labels(folder) -> Path:
    """Labels of a model's own, which recognize left beside the answers."""
    for name in ("ref.jsonl", "hyp/hyp.jsonl"):
        respell(folder / name, male="tenor", female="soprano")
    sets = {"gender": SPEAKERS, "of another version": ["x"]}
    (folder / "hyp/settings.json").write_text(json.dumps({"labels": sets}))
    return folder


def test_a_label_the_set_does_not_know_stops(own_labels, capsys):
    (own_labels / "hyp/settings.json").unlink()
    assert run(own_labels) == 1
    err = capsys.readouterr().err
    assert "4 of 4 references have labels of gender that its set does not know" in err
    assert "'soprano' 2, 'tenor' 2; known: female, male" in err
    assert "give --labels" in err and "or --label_map" in err and not (own_labels / "out").exists()


def test_label_sets_come_from_beside_the_answers(own_labels, capsys):
    assert run(own_labels) == 0
    tree = json.loads((own_labels / "out/score.json").read_text(encoding="utf-8"))
    [accuracy] = [s for s in tree["scores"] if s["metric"] == "accuracy"]
    assert accuracy["value"] == 50.0 and accuracy["detail"]["labels"] == SPEAKERS
    (own_labels / "labels.yaml").write_text("gender: [soprano, tenor, alto]\n")
    assert run(own_labels, "--labels", f"{own_labels}/labels.yaml") == 0  # beats what lies there
    tree = json.loads((own_labels / "out/score.json").read_text(encoding="utf-8"))
    assert tree["scores"][1]["detail"]["labels"] == ["soprano", "tenor", "alto"]
    assert "different sets" not in capsys.readouterr().err


def test_a_label_map_leads_to_the_models_own_labels(own_labels):
    respell(own_labels / "ref.jsonl", tenor="low")
    (own_labels / "map.yaml").write_text("source: a test\ngender: {low: tenor, soprano: soprano}\n")
    assert run(own_labels, "--label_map", f"{own_labels}/map.yaml") == 0


def test_sets_of_labels_that_differ_are_told(own_labels, capsys):
    (own_labels / "other").mkdir()
    (own_labels / "other/hyp.jsonl").write_bytes((own_labels / "hyp/hyp.jsonl").read_bytes())
    sets = {"gender": ["soprano", "bass"]}
    (own_labels / "other/settings.json").write_text(json.dumps({"labels": sets}))
    assert run(own_labels, "--compare", f"{own_labels}/other") == 0
    err = capsys.readouterr().err
    assert "different sets of gender labels" in err
    assert "hyp: tenor, soprano; " in err and "other: soprano, bass)" in err
    (own_labels / "hyp/settings.json").write_text('{"labels": {"gender": "tenor"}}')
    assert run(own_labels) == 1
    assert "labels of gender must be a list of texts, got tenor" in capsys.readouterr().err
    (own_labels / "sets.yaml").write_text("gender: [tenor, soprano]\n")
    assert run(own_labels, "--labels", f"{own_labels}/sets.yaml") == 0, "as that message advises"


def test_set_and_comparison(folder, capsys):
    words = f"sgc={folder}/ref.jsonl,{folder}/hyp"
    assert score.main(["--set", words, "--out", f"{folder}/out", "--compare", f"{folder}/hyp"]) == 0
    assert "sgc accuracy all: difference +0.00" in capsys.readouterr().out
    rows = json.loads((folder / "out" / "score.json").read_text(encoding="utf-8"))["comparison"]
    assert rows[0]["p_value"] == 1.0


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [({"free": False, "seed": 7}, {"free": False, "seed": 7}, "labels limited to their sets, seed 7"),
     ({"free": True}, {"free": True}, "labels free (--free)"),
     ({"free": True, "lang": "zh"}, {"free": False, "lang": "en"}, "labels limited to their sets for some tasks, free for others (--free), lang zh / en"),
     ({"task": "ser", "list": "x", "keys": "y"}, {}, "")],
)  # fmt: skip
def test_the_report_says_how_labels_were_decoded(folder, first, second, said):
    for name, settings in (("hyp", first), ("hyp2", second)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "hyp.jsonl").write_text((folder / "hyp/hyp.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
        (folder / name / "settings.json").write_text(json.dumps(settings))
    words = [f"{task}={folder}/ref.jsonl,{folder}/{name}" for task, name in (("sgc", "hyp"), ("<GENDER>", "hyp2"))]
    assert score.main(["--set", words[0], "--set", words[1], "--out", f"{folder}/out", "--resamples", "5"]) == 0
    assert json.loads((folder / "out/score.json").read_text(encoding="utf-8"))["decoding"] == said
    assert "## Counted" in (folder / "out/score.md").read_text(encoding="utf-8")


def test_references_in_shards(folder, capsys):
    rows = [json.loads(line) for line in (folder / "ref.jsonl").read_text(encoding="utf-8").splitlines()]
    with tarfile.open(folder / "s.tar", "w") as tar:
        for i, row in enumerate(rows):
            row["key"] = f"k{i}"
            parts = {"wav": (folder / "a.wav").read_bytes(), "txt": row["txt"].encode(), "json": json.dumps(row).encode()}
            for ext, data in parts.items():
                info = tarfile.TarInfo(f"k{i}.{ext}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (folder / "data.list").write_text(f"{folder}/s.tar\n")
    (folder / "text").write_text("".join(f"k{i} word {i}<male>\n" for i in range(4)))
    assert score.main(["--ref", f"{folder}/data.list", "--hyp", f"{folder}/text", "--task", "sgc", "--out", f"{folder}/o", "--report"]) == 0
    assert "50.00 %" in capsys.readouterr().out
    assert "base64," in (folder / "o" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "ser", "--hyp", "x"], "belong together"),
        (["--ref", "none.jsonl", "--hyp", "x", "--task", "ser"], "does not exist"),
        (["--set", "ser=only"], "must read TASK=REF,HYP"),
        (["--ref", "r", "--hyp", "h", "--task", "serr"], "did you mean 'ser'"),
        ([], "nothing to score"),
        (["--set", "ser=a.jsonl,h", "--set", "ser=b.jsonl,i"], "ser is scored on a.jsonl and on b.jsonl"),
        (["--ref", "r", "--hyp", "h", "--task", "ser", "--resamples", "0"], "must be at least 1"),
        (["--ref", "r", "--hyp", "h", "--task", "ser", "--compare", "a", "--compare", "b"], "one path per task"),
    ],
)
def test_user_faults_are_one_clear_line(tmp_path, capsys, words, message):
    assert score.main([*words, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_a_training_folder_without_a_log_is_told(folder, capsys):
    assert run(folder, "--report", "--exp", "exp/typo") == 0
    assert "--exp exp/typo: no log.jsonl in it" in capsys.readouterr().err


def test_bad_hypotheses_and_lists(folder, capsys):
    (folder / "hyp" / "hyp.jsonl").write_bytes("键0 字".encode("gb18030"))
    assert run(folder) == 1 and "not UTF-8" in capsys.readouterr().err
    (folder / "ref.jsonl").write_text("")
    assert run(folder) == 1 and "is empty" in capsys.readouterr().err
    (folder / "ref.jsonl").write_text('{"key": "a"}\n')
    assert run(folder) == 1 and "line 1" in capsys.readouterr().err


def lines_of(folder: Path) -> list[str]:
    return (folder / "hyp/hyp.jsonl").read_text(encoding="utf-8").splitlines()


ODD = {  # what is done to the three answers → accuracy, and what is said of it
    "as they are": (lambda lines: lines, 50.0, "1 references have no answer"),
    "reordered": (lambda lines: lines[::-1], 50.0, "1 references have no answer"),
    "repeated": (lambda lines: lines + lines[:1], 50.0, "1 line repeated word for word, counted once"),
    "one more missing": (lambda lines: lines[1:], 25.0, "2 references have no answer, counted as wrong"),
    "of more utterances": (lambda lines: [*lines, lines[0].replace("键0", "键9")], 50.0, "1 answers have no reference, left out"),
    "with a byte order mark and Windows line ends": (lambda lines: ["\ufeff" + lines[0] + "\r", *lines[1:]], 50.0, "1 references have no answer"),
    "one unread": (lambda lines: [lines[0].replace('"female"', '"femal"'), *lines[1:]], 25.0, "1 references have no answer"),
    "empty": (lambda lines: [], None, "holds no hypothesis"),
    "two answers to one key": (lambda lines: [*lines, lines[0].replace('"female"', '"male"')], None, "line 4: key '键0' has two different answers"),
    "torn": (lambda lines: [*lines[:2], lines[2][:20]], None, "line 3 is not a hypothesis"),
    "of another list": (lambda lines: [line.replace("键", "k") for line in lines], None, "no key in common"),
    "of another task": (lambda lines: [line.replace("<GENDER>", "<AGE>") for line in lines], None, "does not answer <GENDER>"),
}


@pytest.mark.parametrize("how", ODD)
def test_odd_hypothesis_files_give_the_right_score_or_a_clear_error(folder, capsys, how):
    change, accuracy, said = ODD[how]
    (folder / "hyp/hyp.jsonl").write_text("".join(line + "\n" for line in change(lines_of(folder))), encoding="utf-8")
    assert run(folder) == (0 if accuracy is not None else 1)
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    if accuracy is not None:
        tree = json.loads((folder / "out/score.json").read_text(encoding="utf-8"))
        assert {s["metric"]: s["value"] for s in tree["scores"]}["accuracy"] == accuracy


def test_players_only_for_sounds_that_are_at_hand_and_small(folder, monkeypatch):
    def players(*more: str) -> int:
        assert run(folder, "--report", *more) == 0
        return (folder / "out/report.html").read_text(encoding="utf-8").count("<audio")

    assert players() == 3 and players("--no_audio") == 0  # the wrong answers are heard once with their transcript and once with their label
    with monkeypatch.context() as patch:
        patch.setattr("wenet_osum.bin._score_files.PAGE_BYTES", 5000)  # room for one of 3244 bytes
        assert players() < 3
    monkeypatch.setattr("wenet_osum.bin._references.LARGEST", 3000)
    assert players() == 0
    (folder / "a.wav").unlink()
    assert players() == 0


def test_scoring_loads_no_torch(folder):
    words = ["--set", f"sgc={folder}/ref.jsonl,{folder}/hyp", "--out", f"{folder}/o"]
    code = f"import sys; sys.modules['torch'] = None; from wenet_osum.bin import score; sys.exit(score.main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_data_hash_follows_content_and_order():
    assert data_hash([b"a", b"b"]) != data_hash([b"b", b"a"]) != data_hash([b"ab"])


@pytest.mark.parametrize("text", ["gender: [yes, no]", "gender: [1, 2]", "gender:", "gender: male", "gender: {", "[a]"])
def test_labels_that_are_no_lists_of_texts_are_told(own_labels, capsys, text):
    (own_labels / "own.yaml").write_text(text)
    assert run(own_labels, "--labels", str(own_labels / "own.yaml")) == 1
    err = capsys.readouterr().err
    assert err.startswith("score: --labels ") and "Traceback" not in err
