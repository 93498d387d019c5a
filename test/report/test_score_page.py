"""The report and its table: complete, self-contained, safe with any text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from wenet_osum import tasks
from wenet_osum.metrics.accuracy import ACCURACY, ECE
from wenet_osum.metrics.error_rate import WER
from wenet_osum.metrics.timestamps import AAS
from wenet_osum.records import Hypothesis, Score, Utterance
from wenet_osum.report import score_page, score_table
from wenet_osum.score import score_task, targets

EVIL = '<script>alert("x")</script> & "quotes"'


def scores() -> list[Score]:
    worst = [
        {
            "key": EVIL,
            "lang": "en",
            "ref": f"say {EVIL}",
            "hyp": f"say <b>it</b> {EVIL}",
            "note": EVIL,
        }
    ]
    matrix = {
        "labels": [EVIL, "其他"], "columns": [EVIL, "其他", "unread/missing"], "confusion": [[3, 1, 0], [0, 4, 2]],
        "classes": {
            EVIL: {"count": 4, "recall": 75.0, "precision": None, "f1": 80.0},
            "其他": {"count": 6, "recall": 66.7, "precision": 80.0, "f1": 70.0},
        },
        "majority": {"label": "其他", "accuracy": 60.0}, "missing": 2, "field": "emotion", "worst": [{"key": "k", "ref": "a", "hyp": "b", "note": ""}],
    }  # fmt: skip
    bins = [{"count": 9, "confidence": 0.8, "accuracy": 0.7}]
    calibration = {"minor": True, "field": "emotion", "bins": bins}
    edits = {"substitutions": 1, "deletions": 2, "insertions": 3, "normalizer": "none"}
    return [
        Score("ser", "accuracy", 70.0, 40.0, 90.0, 10, 10, detail=matrix, about=ACCURACY),
        Score("ser", "ece", 12.0, 5.0, 20.0, 9, 9, detail=calibration, about=ECE),
        Score("asr", "wer", 5.0, 4.0, 6.0, 100, 10, "en", {"worst": worst, **edits}, WER),
        Score("srwt", "aas_ms", float("nan"), float("nan"), float("nan"), 0, 10, about=AAS),
    ]


class Check(HTMLParser):
    """Every element is closed in order, none is a script, nothing is loaded from elsewhere."""

    void = {"meta", "br", "img"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert tag not in ("script", "link", "iframe", "b")
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.void:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def written_page(tmp_path, **more) -> str:
    path = tmp_path / "deep" / "report.html"
    meta = {
        "title": EVIL,
        "command": "score --x",
        "commit": "abc123",
        "data hash": "sha256:00",
        "machine": "m",
    }
    score_page.write_page(scores(), path, meta=meta, **more)
    return path.read_text(encoding="utf-8")


def test_page_is_well_formed_escaped_and_needs_no_network(tmp_path):
    log = tmp_path / "exp" / "log.jsonl"
    log.parent.mkdir()
    rows = [
        {"step": s, "split": split, "task": "ser", "loss": 3 / s, "acc": 0.5}
        for s in (1, 2, 3)
        for split in ("train", "dev")
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = written_page(
        tmp_path,
        exp=[log.parent, tmp_path / "none"],
        audio={("asr", EVIL): (b"RIFFxx", "audio/wav")},
    )
    links = Check(text).links
    assert (
        all(link.startswith(("#", "data:audio/wav;base64,")) for link in links) and len(links) > 3
    )
    assert (
        "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        and "url(" not in text
        and "@import" not in text
    )
    pieces = [
        "score --x",
        "abc123",
        "sha256:00",
        "70.00 %",
        "[40.00, 90.00]",
        "60.00",
        "unread/missing",
        "dev loss",
        "calibration",
        "aria-label",
    ]
    for piece in pieces:
        assert piece in text, piece
    assert "<del>" in text and "<ins>" in text


def test_counts_of_what_went_wrong_stand_out(tmp_path):
    """References that a figure leaves out as well: without them it looks like the whole."""
    asr = tasks.parse("asr")
    refs = [Utterance("a", "x", "go", lang="en"), Utterance("b", "x", None, lang="en")]
    answers = {
        name: Hypothesis(name, asr.tags, "go", transcript="go", flags=["tie"]) for name in "az"
    }
    path = tmp_path / "report.html"
    score_page.write_page(score_task(asr, refs, answers, resamples=2), path, meta={"title": "t"})
    text = path.read_text(encoding="utf-8")
    assert '<span class="chip warn">left out 1</span>' in text
    assert '<span class="chip">extra 1</span>' in text
    assert '<span class="chip">flag tie 1</span>' in text


def test_tasks_are_in_the_order_they_were_scored_in(tmp_path):
    assert re.findall(r'href="#task-\d">(\w+)<', written_page(tmp_path)) == ["ser", "asr", "srwt"]


def test_scores_of_a_task_stand_together():
    mixed = [scores()[0], scores()[2], scores()[1]]
    assert [s.task for s in score_table.by_task(mixed)] == ["ser", "ser", "asr"]


def test_markdown_table_keeps_what_has_entries():
    bars = targets.parse_targets(["asr/wer/en<=8", "ser/accuracy>=80"])
    table = score_table.markdown_table(scores(), bars)
    lines = table.splitlines()
    assert len(lines) == 5 and "text only" not in lines[0] and "majority" in lines[0]
    assert ">= 80 MISSED" in lines[2] and "<= 8 reached" in lines[3] and "–" in lines[4]
    assert "calibration" not in table  # minor


def test_a_bar_makes_a_minor_figure_visible():
    bars = targets.parse_targets(["ser/ece<=20"])
    assert "calibration" in score_table.markdown_table(scores(), bars)


def test_markdown_file_names_command_and_hash(tmp_path):
    meta = {"title": "T", "command": "c", "data hash": "h"}
    score_table.write_markdown(scores(), tmp_path / "s.md", meta)
    text = (tmp_path / "s.md").read_text(encoding="utf-8")
    assert text.startswith("# T\n\n- command: `c`\n- data hash: `h`\n\n| task")


def test_figures_of_two_labels_of_one_task_name_their_field(tmp_path):
    task = tasks.parse("<EMOTION><GENDER>")
    refs = [Utterance(key, "x", labels={"emotion": "happy", "gender": "male"}) for key in "ab"]
    answers = {key: Hypothesis(key, task.tags, "", labels={"emotion": "happy", "gender": "female"}) for key in "ab"}
    found = score_task(task, refs, answers, resamples=2)
    table = score_table.markdown_table(found)
    assert "accuracy, emotion" in table and "accuracy, gender" in table
    score_page.write_page(found, tmp_path / "r.html", meta={"title": "t"})
    assert "accuracy, gender" in (tmp_path / "r.html").read_text(encoding="utf-8")
