"""tools/make_ctc_classes.py on lists of two languages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wenet_osum.small.train_tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["The cat sat", "今天天气很好", "the hat"]


@pytest.fixture
def lists(tmp_path):
    for name, texts in {"train": TEXTS, "dev": ["the cat", "zoo"]}.items():
        rows = [{"key": f"{name}{i}", "wav": "a.wav", "txt": text} for i, text in enumerate(texts)]
        (tmp_path / f"{name}.list").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train_tokenizer(TEXTS * 9, 500).save_pretrained(str(tmp_path / "llm"))
    return tmp_path


def run(lists, *more):
    words = ["--tokenizer", str(lists / "llm"), "--list", str(lists / "train.list"), "--out", str(lists / "c.json"), *more]
    command = [sys.executable, str(ROOT / "tools/make_ctc_classes.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_training_transcript_can_be_written(lists):
    done = run(lists, "--check", str(lists / "dev.list"), "--size", "60", "--lowercase")
    assert done.returncode == 0, done.stderr
    first, train, dev = done.stdout.splitlines()
    pieces = json.loads((lists / "c.json").read_text(encoding="utf-8"))
    assert first.endswith(f"c.json: {len(pieces)} classes") and len(pieces) <= 60
    assert "3 transcripts" in train and train.endswith("all can be written")
    assert "1 cannot be written and CTC leaves them out ('o' 1, 'z' 1)" in dev
    assert "T" not in pieces, "the transcripts were lower-cased first"


def test_faults_are_told(lists):
    done = run(lists, "--size", "5")
    assert done.returncode == 1 and "size 5" in done.stderr
