"""Prompt sensitivity by hand."""

from __future__ import annotations

import json

import pytest

from wenet_osum import tasks
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.score import prompt_sensitivity

GENDER = tasks.parse("<GENDER>")
RIGHT = {"zh_0": 4, "zh_1": 2, "en_0": 1, "en_1": 0}  # of four
REFS = [Utterance(f"k{i}", "a.wav", labels={"gender": "male"}) for i in range(4)]


def write(path, right: int, number: int = 4) -> None:
    rows = [
        Hypothesis(f"k{i}", GENDER.tags, "", labels={"gender": "male" if i < right else "female"})
        for i in range(number)
    ]
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
    numbers = {"scoring_prompt": 100, "mean": 43.75, "lowest": 0, "highest": 100, "spread": 100}
    assert numbers.items() <= row.items()
    assert row["deviation"] == pytest.approx(36.9755)
    assert row["by_language"] == {"zh": 75, "en": 12.5}
    assert row["language_difference"] == {"zh - en": 62.5}


def test_a_wording_without_all_its_answers_is_wrong_there(folder):
    write(folder / "hyp/en_0/hyp.jsonl", 1, number=1)
    asked = prompt_sensitivity.wordings(folder / "hyp")
    rows = {row["metric"]: row for row in prompt_sensitivity.sensitivity(GENDER, REFS, asked)}
    assert rows["accuracy"]["values"]["en_0"] == 25.0


def test_broken_or_absent_prompts(folder):
    assert prompt_sensitivity.wordings(folder) == []
    (folder / "hyp/prompts.json").write_text('{"prompts": [{"folder": "zh_0"}]}')
    with pytest.raises(ValueError, match="run recognize --prompts again"):
        prompt_sensitivity.wordings(folder / "hyp")
