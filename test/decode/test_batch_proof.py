"""Answers do not depend on company: all eight tasks on clips from 0.1 s to over 30 s, alone and in batches, in any order, from lists and shards.

The one exception is a tie: where the best two scores lie within 1e-4, arithmetic in another order may pick the other one. Ties are
counted, printed, and rare.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum import tasks
from wenet_osum.bin import recognize
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.shard import pack, write_list
from wenet_osum.decode.row import TIE

ROOT = Path(__file__).resolve().parents[2]
SECONDS = [0.1, 29.9, 0.11, 4.01, 0.77, 1.0, 15.2, 0.4375, 2.5, 7.77, 1.333, 0.2, 30.7, 3.0, 0.63, 5.1]  # odd and even numbers of frames
MOST_TIES = 0.001  # of all steps
CLOSE = 1e-4  # probabilities come from sums in another order


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """The same utterances as a raw list, as that in reverse order, and as shards of five."""
    folder = tmp_path_factory.mktemp("company")
    rows = []
    for i, seconds in enumerate(SECONDS):
        audio = np.random.default_rng(i).normal(0, 0.02 + 0.01 * (i % 5), round(seconds * 16000))
        soundfile.write(folder / f"{i}.wav", audio, 16000)
        rows.append(json.dumps({"key": f"k{i}", "wav": str(folder / f"{i}.wav"), "task": tasks.default_names()[i % 8], "duration": seconds}) + "\n")
    (folder / "raw.list").write_text("".join(rows))
    (folder / "turned.list").write_text("".join(reversed(rows)))
    packed = pack(read_manifest(folder / "raw.list"), folder / "shards", per_shard=5, log=lambda line: None)
    write_list(folder / "shards.list", packed.paths)
    return folder


def arguments(model_dir, listed, out, *more: str) -> list[str]:
    return ["--model", str(model_dir), "--list", str(listed), "--task", "auto", "--out", str(out), "--max_tokens", "14", *more]


def answers(out: Path) -> dict[str, dict]:
    """Rows by key."""
    rows = [json.loads(line) for line in (out / "hyp.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for piece in row.get("pieces", []):
            piece.pop("probs", None)
    return {row["key"]: row for row in rows}


def alike(one: dict, other: dict) -> bool:
    """Whether two rows are equal, their probabilities as far as sums in another order are."""
    probs = {name: pytest.approx(known, abs=CLOSE) for name, known in other.get("probs", {}).items()}
    return {**one, "probs": one.get("probs", {})} == {**other, "probs": probs}


def differing(one: dict[str, dict], other: dict[str, dict]) -> list[str]:
    """Keys with other answers although neither run met a tie there."""
    assert one.keys() == other.keys()
    changed = [k for k in one if not alike(one[k], other[k])]
    return [k for k in changed if "tie" not in one[k].get("flags", []) + other[k].get("flags", [])]


def test_probabilities_are_compared_by_their_distance():
    """0.14565 is rounded to 0.1456 or 0.1457, whatever is added in another order."""
    row = {"key": "a", "text": "x", "probs": {"emotion": {"sad": 0.14565 - 1e-7, "happy": 0.85435}}}
    near = {**row, "probs": {"emotion": {"sad": 0.14565 + 1e-7, "happy": 0.85435}}}
    far = {**row, "probs": {"emotion": {"sad": 0.14565 + 5e-4, "happy": 0.85435}}}
    assert alike(row, near)
    assert not alike(row, far) and not alike(row, {**near, "text": "y"})
    assert not alike(row, {"key": "a", "text": "x"}), "probabilities on one side only"


WAYS = {
    "one by one": ("raw.list", ["--batch_size", "1"]),
    "by three": ("raw.list", ["--batch_size", "3"]),
    "by seven, small budget": ("raw.list", ["--batch_size", "7", "--max_frames", "4000"]),
    "other order": ("turned.list", ["--batch_size", "5"]),
    "shards": ("shards.list", ["--batch_size", "6"]),
}


SEARCHES = {
    "greedy": ([], [*WAYS]),
    "beam": (["--num_beams", "3"], ["one by one", "shards"]),
    "sampling": (["--temperature", "1.0"], ["other order"]),
    "free": (["--free"], ["other order"]),
    "chat": (["--prompt", "Say it."], ["one by one", "shards"]),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_answers_do_not_depend_on_company(model_dir, chat_dir, lists, tmp_path, capsys, name):
    search, ways = SEARCHES[name]
    model_dir = chat_dir if name == "chat" else model_dir
    assert recognize.main(arguments(model_dir, lists / "raw.list", tmp_path / "together", *search)) == 0
    together = answers(tmp_path / "together")
    said = capsys.readouterr().err
    if name != "sampling":  # draws have no ties
        ties, steps = map(int, re.search(r"ties within 1e-4: (\d+) of (\d+) steps", said).groups())
        assert steps > 100 and ties <= MOST_TIES * steps and TIE == 1e-4
    assert len({row["text"] for row in together.values()}) > len(SECONDS) - 3 and not any(row.get("error") for row in together.values())
    assert {row["task"] for row in together.values()} == {tasks.parse(name).tags for name in tasks.default_names()}
    assert len(together["k12"]["pieces"]) == 2
    for way in ways:
        listed, more = WAYS[way]
        assert recognize.main(arguments(model_dir, lists / listed, tmp_path / way, *search, *more)) == 0
        assert differing(together, answers(tmp_path / way)) == [], way
    if "other order" in ways:
        assert [*answers(tmp_path / "other order")] == [f"k{i}" for i in reversed(range(len(SECONDS)))]


@pytest.mark.slow
def test_two_processes_on_shards_answer_as_one(model_dir, lists, tmp_path):
    assert recognize.main(arguments(model_dir, lists / "raw.list", tmp_path / "one", "--num_beams", "3")) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "wenet_osum.bin.recognize"]
    words = arguments(model_dir, lists / "shards.list", tmp_path / "two", "--num_beams", "3", "--batch_size", "3")
    done = subprocess.run([*command, *words], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"ties within 1e-4: \d+ of \d+ steps", done.stderr)
    one, two = answers(tmp_path / "one"), answers(tmp_path / "two")
    assert differing(one, two) == [] and [*one] == [*two]


@pytest.mark.slow
def test_killed_and_started_again_it_gives_the_same(model_dir, lists, tmp_path):
    """A real kill: no chance to clean up."""
    assert recognize.main(arguments(model_dir, lists / "raw.list", tmp_path / "whole")) == 0
    command = [sys.executable, "-m", "wenet_osum.bin.recognize", *arguments(model_dir, lists / "raw.list", tmp_path / "killed", "--batch_size", "1")]
    part = tmp_path / "killed/part.0.jsonl"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None and not (part.is_file() and part.read_bytes().count(b"\n") >= 2):
            time.sleep(0.005)
        running.kill()
    assert running.returncode < 0 and not (tmp_path / "killed/hyp.jsonl").exists()
    held = part.read_bytes().count(b"\n")
    assert 2 <= held < len(SECONDS)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and re.search(rf"16 utterances, {held} of them from an earlier run", done.stderr), done.stderr
    assert "RTF" in done.stderr
    assert differing(answers(tmp_path / "whole"), answers(tmp_path / "killed")) == []
    assert [*answers(tmp_path / "killed")] == [f"k{i}" for i in range(len(SECONDS))]
