"""Splitting and describing lists from the command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.shard import pack, write_list

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(tool, *args):
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(a) for a in args])


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "a.wav").write_bytes(write_wav(np.zeros(16000, np.float32)))
    rows = [{"key": f"k{i}", "wav": "a.wav", "speaker": f"s{i % 5}", "txt": f"t{i}", "lang": "en" if i % 5 else "zh", "gender": "f"} for i in range(20)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_split_and_report(corpus, capsys):
    assert run("split_manifest", "--shares", "train=0.6", "test=0.4", "--balance", "lang", "--", corpus / "m.jsonl", corpus) == 0
    assert "train: 12 utterances, 0.003 h" in capsys.readouterr().out
    lists = [f"{name}={corpus}/{name}.jsonl" for name in ("train", "test")]
    assert run("data_report", "--disjoint", "speaker", "--out", corpus / "page.html", "--", *lists) == 0
    assert "train: 12 utterances, 0.003 h, 3 speakers" in capsys.readouterr().out and "<h2>train</h2>" in (corpus / "page.html").read_text()
    assert run("data_report", "--disjoint", "speaker", "--out", corpus / "no.html", "--", lists[0], f"all={corpus}/m.jsonl") == 1
    assert "share 3 of 5 speakers" in capsys.readouterr().err and not (corpus / "no.html").exists()


def test_report_reads_shards_and_filters_languages(corpus, capsys):
    utterances = list(read_manifest(corpus / "m.jsonl"))
    for utterance in utterances:
        utterance.wav = str(corpus / "a.wav")
    write_list(corpus / "data.list", pack(utterances, corpus / "shards").paths)
    assert run("data_report", "--lang", "zh", "--out", corpus / "page.html", "--", f"x={corpus}/data.list") == 0
    assert "x: 4 utterances, 0.001 h, 1 speakers" in capsys.readouterr().out
    assert "language en 16" in (corpus / "page.html").read_text()


def test_faults_end_in_one_line(corpus, capsys):
    assert run("split_manifest", "--shares", "train=x", "--", corpus / "m.jsonl", corpus) == 1
    assert run("split_manifest", "--shares", "train=1", "--by", "speeker", "--", corpus / "m.jsonl", corpus) == 1
    assert "did you mean 'speaker'" in capsys.readouterr().err


def test_paths_that_count_from_the_manifest_are_found_from_another_folder(tmp_path):
    """A manifest with relative paths, split into another folder and cut into lists there."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = []
    for speaker in "abcd":
        (corpus / f"{speaker}.wav").write_bytes(b"x")
        turn = {"wav": f"{speaker}.wav", "txt": "x", "reply": "y"}
        rows.append({"key": speaker, "wav": f"{speaker}.wav", "txt": "x", "speaker": speaker, "turns": [turn]})
    (corpus / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("split_manifest", "--shares", "train=0.5", "test=0.5", "--", corpus / "c.jsonl", tmp_path / "data") == 0
    for name in ("train", "test"):
        for line in (tmp_path / f"data/{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert Path(row["wav"]).is_absolute() and Path(row["turns"][0]["wav"]) == Path(row["wav"]) and Path(row["wav"]).exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--shares", "train=0.6", "train=0.4"], "each name once"),
        (["--shares", "train=0.6", "test"], "write NAME=SHARE"),
        (["--shares", "train=0.6", "test=0.4", "--balance", "gendr"], "did you mean 'gender'"),
    ],
)
def test_shares_and_fields_that_are_none_are_refused(tmp_path, options, why, capsys):
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"key": k, "wav": "a.wav", "speaker": k}) + "\n" for k in "abcd"))
    assert run("split_manifest", *options, "--", tmp_path / "c.jsonl", tmp_path / "data") == 1
    assert why in capsys.readouterr().err
