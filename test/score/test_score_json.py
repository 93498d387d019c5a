"""score.json: strict JSON, read back as it was."""

from __future__ import annotations

import json
import math

import pytest

from wenet_osum.metrics.accuracy import ACCURACY
from wenet_osum.metrics.timestamps import AAS
from wenet_osum.records import Score
from wenet_osum.score import score_json

NAN = math.nan
SCORES = [
    Score(
        "ser", "accuracy", 70.0, 40.0, 90.0, 10, 10, "en", {"labels": ["其他", "\ud800"]}, ACCURACY
    ),
    Score("srwt", "aas_ms", NAN, NAN, NAN, 0, 10, about=AAS),
]


def test_json_is_strict(tmp_path):
    path = tmp_path / "deep" / "score.json"
    score_json.write(SCORES, path, {"title": "t"})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    tree = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert tree["title"] == "t" and tree["scores"][1]["value"] is None
    assert tree["scores"][0]["detail"]["labels"] == ["其他", "\ud800"]


def test_what_is_written_is_read(tmp_path):
    score_json.write(SCORES, tmp_path / "score.json", {"title": "t"})
    tree, scores = score_json.read(tmp_path / "score.json")
    assert tree["title"] == "t" and scores[0] == SCORES[0]
    assert math.isnan(scores[1].value) and scores[1].about == AAS


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"scores": [{}]}', '{"scores": [1]}'])
def test_what_holds_no_scores_is_refused(tmp_path, content):
    path = tmp_path / "score.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="score.json cannot be read as scores .*into its --out"):
        score_json.read(path)
