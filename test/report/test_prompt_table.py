"""The prompt-sensitivity table by hand, and two systems side by side as tables."""

from __future__ import annotations

import json

import pytest

from wenet_osum import tasks
from wenet_osum.bin import score
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.report import comparison_table as comparison
from wenet_osum.report import prompt_table as prompt_sensitivity

GENDER = tasks.parse("<GENDER>")
RIGHT = {"zh_0": 4, "zh_1": 2, "en_0": 1, "en_1": 0}  # of four
REFS = [Utterance(f"k{i}", "a.wav", labels={"gender": "male"}) for i in range(4)]


def write(path, right: int, number: int = 4) -> None:
    rows = [Hypothesis(f"k{i}", GENDER.tags, "", labels={"gender": "male" if i < right else "female"}) for i in range(number)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row.to_json() + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    for name, right in RIGHT.items():
        write(tmp_path / "hyp" / name / "hyp.jsonl", right)
    rows = [{"folder": name, "lang": name[:2], "text": f"<{name}>"} for name in RIGHT]
    (tmp_path / "hyp/prompts.json").write_text(json.dumps({"task": "<GENDER>", "prompts": rows}))
    (tmp_path / "ref.jsonl").write_text("".join(u.to_json() + "\n" for u in REFS))
    return tmp_path


def test_spread_by_hand(folder):
    asked = prompt_sensitivity.wordings(folder / "hyp")
    rows = {row["metric"]: row for row in prompt_sensitivity.sensitivity(GENDER, REFS, asked)}
    assert set(rows) == {"accuracy", "uar", "macro_f1"}
    row = rows["accuracy"]
    assert row["values"] == {"zh_0": 100, "zh_1": 50, "en_0": 25, "en_1": 0}
    assert (row["scoring_prompt"], row["mean"], row["lowest"], row["highest"], row["spread"]) == (100, 43.75, 0, 100, 100)
    assert row["deviation"] == pytest.approx(36.9755)
    assert row["by_language"] == {"zh": 75, "en": 12.5} and row["language_difference"] == {"zh - en": 62.5}
    table = prompt_sensitivity.markdown([row]).splitlines()
    assert table[-1] == "| <GENDER> | gender | accuracy all | 100.00 | 43.75 | 0.00 | 100.00 | 100.00 | 36.98 | zh 75.00, en 12.50 | zh - en: +62.50 |"
    html = prompt_sensitivity.section([row], {"<GENDER>": asked})
    assert "&lt;en_1&gt;" in html and "<en_1>" not in html and "<td class=n>25.00</td>" in html
    assert prompt_sensitivity.markdown([]) == prompt_sensitivity.section([], {}) == ""


def test_a_wording_without_all_its_answers_is_wrong_there(folder):
    write(folder / "hyp/en_0/hyp.jsonl", 1, number=1)
    [row] = [r for r in prompt_sensitivity.sensitivity(GENDER, REFS, prompt_sensitivity.wordings(folder / "hyp")) if r["metric"] == "accuracy"]
    assert row["values"]["en_0"] == 25.0


def test_broken_or_absent_prompts(folder):
    assert prompt_sensitivity.wordings(folder) == []
    (folder / "hyp/prompts.json").write_text('{"prompts": [{"folder": "zh_0"}]}')
    with pytest.raises(ValueError, match="run recognize --prompts again"):
        prompt_sensitivity.wordings(folder / "hyp")


def compared(folder, *more: str) -> dict:
    words = ["--ref", f"{folder}/ref.jsonl", "--hyp", f"{folder}/a.jsonl", "--compare", f"{folder}/b.jsonl", "--task", "<GENDER>"]
    assert score.main([*words, "--out", f"{folder}/out", "--report", *more]) == 0
    return json.loads((folder / "out/score.json").read_text())


def test_a_comparison_stands_in_json_markdown_and_page(folder, capsys):
    refs = [Utterance(f"k{i}", "a.wav", labels={"gender": "male"}) for i in range(40)]
    (folder / "ref.jsonl").write_text("".join(u.to_json() + "\n" for u in refs))
    write(folder / "a.jsonl", 30, 40)
    write(folder / "b.jsonl", 10, 40)
    row = compared(folder)["comparison"][0]
    assert (row["first_value"], row["second_value"], row["difference"], row["better"]) == (75.0, 25.0, 50.0, "first")
    assert 30 < row["low"] < 50 < row["high"] < 70 and row["p_value"] < 0.01 and row["utterances"] == 40
    line = f"| <GENDER> | gender | accuracy all | 75.00 | 25.00 | +50.00 | [{row['low']:+.2f}, {row['high']:+.2f}] | {row['p_value']:.3f} | first |"
    assert line in (folder / "out/score.md").read_text()
    page = (folder / "out/report.html").read_text()
    assert '<span class="ok">first</span>' in page and "paired bootstrap" in page and ">comparison</a>" in page
    assert "accuracy all: difference +50.00" in capsys.readouterr().out
    write(folder / "b.jsonl", 29, 40)
    assert compared(folder)["comparison"][0]["better"] == ""


def test_which_side_is_better():
    from wenet_osum.score.bootstrap import Difference

    def better(difference: float, p: float, lower: bool) -> str:
        found = Difference(difference, difference - 1, difference + 1, p, 9)
        return comparison.row("asr", ("transcript", "wer", "en"), (5.0, 7.0), found, ("a", "b"), lower)["better"]

    assert [better(-2, 0.01, True), better(2, 0.01, True), better(2, 0.01, False), better(-2, 0.2, True)] == ["first", "second", "first", ""]
