"""One bar shows the progress of all long work."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from wenet_osum import progress
from wenet_osum.progress import CLEAR, ProgressBar

ROOT = Path(__file__).resolve().parents[1]


class Clock:
    """Stands in for the time module; a test sets ``now``."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(progress, "time", clock := Clock())
    return clock


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress, "on_terminal", lambda: True)


def test_the_line_has_count_rate_and_time_left(clock):
    bar = ProgressBar(40, "steps", title="text LLM")
    clock.now += 5
    bar.add(10, note="loss 2.500")
    drawn = "[" + "#" * 6 + "." * 18 + "]"
    assert bar.line() == f"text LLM: {drawn} 10/40 steps, 2 steps/s, 15 s left, loss 2.500"


def test_audio_gives_the_real_time_factor_and_the_time_left(clock):
    bar = ProgressBar(2, audio_s=100.0)
    clock.now += 5
    bar.add(1, 20.0)
    assert bar.line().endswith("] 1/2 utterances, 0.2 utterances/s, RTF 0.2500 (4x real time), 20 s left")


def test_an_unknown_total_has_no_bar_and_no_time_left(clock):
    bar = ProgressBar(None, "shards")
    clock.now += 2
    bar.add(3)
    assert bar.line() == "3 shards, 1.5 shards/s"


def test_nothing_to_do_is_done():
    assert ProgressBar(0).line().startswith("[" + "#" * 24 + "] 0/0 utterances")


def test_what_an_earlier_run_finished_is_no_part_of_the_rate(clock):
    bar = ProgressBar(100, "steps", done=90)
    clock.now += 10
    bar.add(5)
    assert bar.line().endswith("] 95/100 steps, 0.5 steps/s, 10 s left")


def test_elsewhere_a_plain_line_is_written_every_ten_seconds(clock, monkeypatch, capsys):
    monkeypatch.setattr(progress, "on_terminal", lambda: False)
    bar = ProgressBar(4)
    for _ in range(3):
        clock.now += 4
        bar.add()
    assert len(capsys.readouterr().err.splitlines()) == 1
    bar.close()
    shown = capsys.readouterr()
    assert shown.out == "" and "3/4 utterances" in shown.err
    assert "\r" not in shown.err and shown.err.endswith("\n")


def test_a_terminal_gets_one_line_written_over(clock, terminal, capsys):
    bar = ProgressBar(4)
    for _ in range(2):
        clock.now += 1
        bar.add()
    bar.write("a line above")
    bar.close()
    shown = capsys.readouterr()
    assert shown.out == "a line above\n"
    assert shown.err.count("\n") == 1 and shown.err.count(CLEAR) == 5


def test_what_is_iterated_over_is_counted(clock, capsys):
    bar = ProgressBar(None)
    assert [*bar.over("abc")] == ["a", "b", "c"]
    assert "3 utterances" in capsys.readouterr().err


def test_a_log_takes_the_lines_and_a_quiet_bar_shows_nothing(clock, terminal, capsys):
    lines = []
    logged, quiet = ProgressBar(4, every_s=30.0, log=lines.append), ProgressBar(4, quiet=True)
    for _ in range(2):
        clock.now += 16
        logged.add()
        quiet.add()
    quiet.close()
    assert len(lines) == 1 and "2/4" in lines[0]
    assert capsys.readouterr().err == ""


# A carriage return that is printed, a bar of another library, a rate or a time left of one's own.
OF_ONES_OWN = re.compile(r"^\r|\b(utterances|steps|recordings|transcripts)/s\b|\bs left\b|\x1b\[")
READS_LINES = {"removesuffix", "strip", "rstrip", "split", "replace"}


def own_progress(path: Path) -> list[str]:
    """Return what a file writes of its own to show progress."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [*ast.walk(tree)]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    read = {id(a) for c in calls if getattr(c.func, "attr", "") in READS_LINES for a in c.args}
    texts = [n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    found = [f"line {n.lineno}: {n.value[:40]!r}" for n in texts if id(n) not in read and OF_ONES_OWN.search(n.value)]
    found += [f"line {c.lineno}: isatty" for c in calls if getattr(c.func, "attr", "") == "isatty"]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return found + [f"line {i.lineno}: tqdm" for i in imports if "tqdm" in ast.unparse(i)]


def test_nobody_else_shows_progress():
    patterns = ("wenet_osum/**/*.py", "tools/*.py", "examples/*/local/*.py")
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    found = {str(path.relative_to(ROOT)): own_progress(path) for path in sorted(paths)}
    own = found.pop("wenet_osum/progress.py")
    assert len(own) > 1, "the pattern finds the one that may"
    found = {name: lines for name, lines in found.items() if lines}
    assert not found, f"use wenet_osum.progress: {found}"
