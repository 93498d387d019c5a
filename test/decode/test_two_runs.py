"""Two processes that decode into one folder: one of them stops at once, and no answer is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A recognizer without a model: it answers one utterance, tells that it is at work, and waits for leave to go on.
RUN = """
import sys
from collections import Counter
from wenet_osum.decode import load
from wenet_osum.records import Hypothesis

class Recognizer:
    counts = Counter()

    def run(self, groups):
        for number, group in enumerate(groups):
            yield group, [(job.index, Hypothesis(job.key, "<TRANSCRIBE>", "said")) for job in group]
            if number == 0:
                print("at work", flush=True)
                sys.stdin.readline()

load.recognizer = lambda args: Recognizer()
from wenet_osum.bin import recognize
sys.exit(recognize.main(sys.argv[1:]))
"""


def start(folder: Path) -> subprocess.Popen:
    words = ["--model", folder, "--list", folder / "test.list", "--task", "asr", "--out", folder / "out", "--batch_size", "1"]
    command = [sys.executable, "-c", RUN, *map(str, words)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, **pipes)


@pytest.mark.slow
def test_the_second_run_stops_and_the_first_keeps_its_answers(tmp_path):
    rows = [{"key": f"k{i}", "wav": "x.wav", "duration": 1.0} for i in range(5)]
    (tmp_path / "test.list").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with start(tmp_path) as first:
        assert first.stdout.readline() == "at work\n"
        with start(tmp_path) as second:
            told = second.communicate()[1]
        assert second.returncode == 2 and f"is being written by process {first.pid} on" in told, told
        out, err = first.communicate("go on\n")
    assert first.returncode == 0, err
    answers = (tmp_path / "out/hyp.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in answers] == [row["key"] for row in rows]
    assert json.loads((tmp_path / "out/settings.json").read_text())["labels"]["gender"] == ["female", "male"]
    assert not (tmp_path / "out/lock").exists()
