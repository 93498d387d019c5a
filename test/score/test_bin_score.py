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
from wenet_osum.records import Hypothesis, Utterance

SGC = tasks.parse("sgc")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four references with audio, three answers, one of them wrong."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    refs = [Utterance(f"键{i}", "a.wav", f"word {i}", lang="en", gender="male" if i % 2 else "female") for i in range(4)]
    (tmp_path / "ref.jsonl").write_text("".join(u.to_json() + "\n" for u in refs), encoding="utf-8")
    (tmp_path / "hyp").mkdir()
    rows = [Hypothesis(u.key, SGC.tags, "", transcript=u.txt, labels={"gender": "female"}) for u in refs[:3]]
    (tmp_path / "hyp" / "hyp.jsonl").write_text("".join(h.to_json() + "\n" for h in rows), encoding="utf-8")
    (tmp_path / "hyp" / "settings.json").write_text('{"beams": 1}')
    return tmp_path


def run(folder: Path, *more: str) -> int:
    return score.main(["--ref", f"{folder}/ref.jsonl", "--hyp", f"{folder}/hyp", "--task", "sgc", "--out", f"{folder}/out", *more])


def test_table_json_markdown_and_page(folder, capsys):
    assert run(folder, "--report", "--title", "My test", "--train_list", f"{folder}/ref.jsonl", "--bar", "sgc/accuracy>=40") == 0
    out = capsys.readouterr()
    assert "| sgc  | accuracy" in out.out and "50.00 %" in out.out and ">= 40 reached" in out.out
    assert "1 references have no answer" in out.err
    tree = json.loads((folder / "out" / "score.json").read_text(encoding="utf-8"))
    assert tree["title"] == "My test" and tree["data hash"].startswith("sha256:") and tree["decoding"] == "beams 1"
    assert {s["metric"]: s["value"] for s in tree["scores"]}["accuracy"] == 50.0
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "My test" in page and "data:audio/wav;base64," in page and "键3" in page
    assert (folder / "out" / "score.md").exists()


def test_set_and_comparison(folder, capsys):
    words = f"sgc={folder}/ref.jsonl,{folder}/hyp"
    assert score.main(["--set", words, "--out", f"{folder}/out", "--compare", f"{folder}/hyp"]) == 0
    assert "sgc accuracy all: difference +0.00" in capsys.readouterr().out
    rows = json.loads((folder / "out" / "score.json").read_text(encoding="utf-8"))["comparison"]
    assert rows[0]["p_value"] == 1.0


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
        (["--ref", "r", "--hyp", "h", "--task", "ser", "--compare", "a", "--compare", "b"], "one path a task"),
    ],
)
def test_user_faults_are_one_clear_line(tmp_path, capsys, words, message):
    assert score.main([*words, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_bad_hypotheses_and_lists(folder, capsys):
    (folder / "hyp" / "hyp.jsonl").write_bytes("键0 字".encode("gb18030"))
    assert run(folder) == 1 and "not UTF-8" in capsys.readouterr().err
    (folder / "ref.jsonl").write_text("")
    assert run(folder) == 1 and "is empty" in capsys.readouterr().err
    (folder / "ref.jsonl").write_text('{"key": "a"}\n')
    assert run(folder) == 1 and "line 1" in capsys.readouterr().err


def test_scoring_loads_no_torch(folder):
    words = ["--set", f"sgc={folder}/ref.jsonl,{folder}/hyp", "--out", f"{folder}/o"]
    code = f"import sys; sys.modules['torch'] = None; from wenet_osum.bin import score; sys.exit(score.main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
