"""Two systems side by side, as the command writes them everywhere."""

from __future__ import annotations

import json
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.bin import score
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.report import comparison_table

GENDER = tasks.parse("<GENDER>")
NUMBER = 40


def write(path: Path, right: int) -> None:
    """Write answers of which the first ``right`` are right."""
    lines = []
    for i in range(NUMBER):
        labels = {"gender": "male" if i < right else "female"}
        row = Hypothesis(f"k{i}", GENDER.tags, "", labels=labels)
        lines.append(row.to_json() + "\n")
    path.write_text("".join(lines))


def compared(folder: Path) -> dict:
    """Compare a.jsonl with b.jsonl; returns the first row of score.json."""
    words = ["--ref", f"{folder}/ref.jsonl", "--hyp", f"{folder}/a.jsonl", "--task", "<GENDER>"]
    words += ["--compare", f"{folder}/b.jsonl", "--out", f"{folder}/out", "--report"]
    assert score.main(words) == 0
    return json.loads((folder / "out/score.json").read_text())["comparison"][0]


def test_a_comparison_stands_in_json_markdown_and_page(tmp_path, capsys):
    refs = [Utterance(f"k{i}", "a.wav", labels={"gender": "male"}) for i in range(NUMBER)]
    (tmp_path / "ref.jsonl").write_text("".join(u.to_json() + "\n" for u in refs))
    write(tmp_path / "a.jsonl", 30)
    write(tmp_path / "b.jsonl", 10)
    row = compared(tmp_path)
    values = (row["first_value"], row["second_value"], row["difference"])
    assert values == (75.0, 25.0, 50.0) and row["better"] == "first"
    assert 30 < row["low"] < 50 < row["high"] < 70 and row["p_value"] < 0.01
    assert row["utterances"] == NUMBER

    interval = f"[{row['low']:+.2f}, {row['high']:+.2f}] | {row['p_value']:.3f}"
    line = f"| <GENDER> | gender | accuracy all | 75.00 | 25.00 | +50.00 | {interval} | first |"
    assert line in (tmp_path / "out/score.md").read_text()
    page = (tmp_path / "out/report.html").read_text()
    assert '<span class="ok">first</span>' in page and "paired bootstrap" in page
    assert ">comparison</a>" in page
    assert "accuracy all: difference +50.00" in capsys.readouterr().out
    write(tmp_path / "b.jsonl", 29)
    assert compared(tmp_path)["better"] == ""


def test_without_rows_there_is_no_table():
    assert comparison_table.markdown([]) == comparison_table.section([]) == ""
