"""The list tools take WeNet's command lines, say what they left out, and fail when something is wrong."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(tool, *args):
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(a) for a in args])


@pytest.fixture
def corpus(tmp_path):
    wav = write_wav(np.sin(np.arange(16000) / 20).astype(np.float32))
    for name in "abc":
        (tmp_path / f"{name}.wav").write_bytes(wav)
    (tmp_path / "wav.scp").write_text("".join(f"{n} {tmp_path}/{n}.wav\n" for n in "abc"))
    (tmp_path / "text").write_text("a 你好\nb hello world\nc x <y>\n", encoding="utf-8")
    return tmp_path


def test_raw_list_with_segments(corpus, capsys):
    assert run("make_raw_list", corpus / "wav.scp", corpus / "text", corpus / "raw") == 0
    assert [json.loads(line)["txt"] for line in (corpus / "raw").read_text().splitlines()] == ["你好", "hello world", "x <y>"]
    (corpus / "segments").write_text("a a 0 0.5\nb c 0.25 1\n")
    assert run("make_raw_list", "--segments", corpus / "segments", corpus / "wav.scp", corpus / "text", corpus / "raw") == 0
    assert "1  text without a line in segments" in capsys.readouterr().out
    assert json.loads((corpus / "raw").read_text().splitlines()[1])["start"] == 0.25


def test_shards_by_wenets_command_line(corpus, capsys):
    flags = ["--num_utts_per_shard", 2, "--num_threads", 1, "--prefix", "p", "--shuffle", "--seed", 1, "--resample", 8000]
    assert run("make_shard_list", *flags, corpus / "wav.scp", corpus / "text", corpus / "shards", corpus / "data.list") == 0
    assert [Path(p).name for p in (corpus / "data.list").read_text().split()] == ["p_000000000.tar", "p_000000001.tar"]
    assert run("check_data_list", "--decode", "--list", corpus / "data.list") == 0
    page = capsys.readouterr().out
    assert "3 utterances in 2 parts, 0.001 h" in page and "task (not given): 3" in page and "no faults" in page


def test_shards_from_a_manifest_in_the_published_layout(corpus, capsys):
    rows = [{"key": k, "wav": f"{corpus}/{k}.wav", "txt": "x", "task": "ser", "emotion": e, "lang": "zh"} for k, e in (("a", "happy"), ("b", None))]
    (corpus / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert run("make_shard_list", "--manifest", corpus / "m.jsonl", "--layout", "osum", corpus / "shards", corpus / "data.list") == 0
    assert "1 utterances in 1 shards, 1 left out" in capsys.readouterr().out
    assert run("check_data_list", "--list", corpus / "data.list") == 0
    assert "task <TRANSCRIBE> <EMOTION>: 1 utterances" in capsys.readouterr().out


def test_check_counts_faults_and_fails(corpus, capsys):
    rows = [{"key": key, "wav": f"{corpus}/{name}.wav"} for key, name in (("a", "a"), ("b", "none"), ("a", "a"), ("n", "n"))]
    (corpus / "n.wav").write_bytes(write_wav(np.full(16000, np.nan, np.float32), subtype="FLOAT"))
    (corpus / "raw").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert run("check_data_list", "--list", corpus / "raw") == 1
    page = capsys.readouterr().out
    assert "fault 1 × audio: file not found: b" in page and "fault 1 × duplicate key: a" in page and "NaN" not in page
    assert run("check_data_list", "--decode", "--list", corpus / "raw") == 1
    assert "fault 1 × audio: NaN or infinity: n" in capsys.readouterr().out
    (corpus / "data.list").write_text("none.tar\n")
    assert run("check_data_list", "--list", corpus / "data.list") == 1
    assert "1 of 1 shards do not exist" in capsys.readouterr().out


def test_user_faults_end_in_one_line(corpus, capsys):
    assert run("make_shard_list", corpus / "none", corpus / "text", corpus / "shards", corpus / "data.list") == 1
    assert "none does not exist; check the path" in capsys.readouterr().err and not (corpus / "data.list").exists()
    with pytest.raises(SystemExit):
        run("make_shard_list", "--manifest", corpus / "m", corpus / "wav.scp", corpus / "text", corpus / "shards", corpus / "data.list")


def test_tools_start_from_any_folder(corpus):
    for tool in ("make_raw_list", "make_shard_list", "check_data_list"):
        assert subprocess.run([sys.executable, TOOLS / f"{tool}.py", "--help"], cwd=corpus, capture_output=True).returncode == 0


@pytest.mark.parametrize("key", ["k 2", "k\t2", "k\n2", "k\u30002", "k\u00a02"])
def test_keys_with_white_space_are_refused(corpus, capsys, key):
    rows = [{"key": k, "wav": f"{corpus}/a.wav", "txt": "x"} for k in ("good", key)]
    (corpus / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert run("check_data_list", "--list", corpus / "m.jsonl") == 1
    fault = "key: holds white space, which ends a key in text files"
    assert f"fault 1 × {fault}: {key!r}\n" in capsys.readouterr().out
    for more in ([], ["--shuffle"]):
        assert run("make_shard_list", *more, "--manifest", corpus / "m.jsonl", corpus / "shards", corpus / "data.list") == 0
        out = capsys.readouterr().out
        assert "1 utterances in 1 shards, 1 left out" in out and f"1  {fault}" in out
    assert run("check_data_list", "--list", corpus / "data.list") == 0


def test_kaldi_files_with_white_space_in_keys(corpus, capsys):
    """In wav.scp a tab ends the key, a space in it belongs to it."""
    for name, rest in (("wav.scp", f"{corpus}/a.wav"), ("text", "hello")):
        (corpus / name).write_text(f"a\t{rest}\nb 2\t{rest}\n")
    assert run("make_raw_list", corpus / "wav.scp", corpus / "text", corpus / "raw") == 0
    out = capsys.readouterr().out
    assert "1 utterances, 2 left out" in out and "1  key: holds white space" in out


def test_segments_are_as_long_as_they_say_or_left_out(corpus, capsys):
    rows = [{"key": f"k{end}", "wav": f"{corpus}/a.wav", "txt": "x", "start": 0.5, "end": end} for end in (0.9, 1.05, 1.5)]
    (corpus / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert run("make_shard_list", "--manifest", corpus / "m.jsonl", corpus / "shards", corpus / "data.list") == 0
    page = capsys.readouterr().out
    assert "2 utterances in 1 shards, 1 left out" in page and "1  audio: segment ends beyond the recording" in page
    assert run("check_data_list", "--decode", "--list", corpus / "m.jsonl") == 1
    assert "fault 1 × audio: segment ends beyond the recording: k1.5\n" in capsys.readouterr().out


@pytest.mark.parametrize("more", [[], ["--shuffle"]], ids=["in order", "shuffled"])
def test_recordings_beside_the_manifest_are_packed(corpus, more):
    (corpus / "m.jsonl").write_text(json.dumps({"key": "k", "wav": "a.wav", "txt": "x"}) + "\n")
    assert run("make_shard_list", *more, "--manifest", corpus / "m.jsonl", corpus / "shards", corpus / "data.list") == 0


@pytest.mark.parametrize("tool", [["add_previous"], ["make_task_lists", "--tasks", "asr"]], ids=["add_previous", "make_task_lists"])
def test_lines_that_cannot_be_read_are_counted(corpus, capsys, tool):
    (corpus / "m.jsonl").write_text(json.dumps({"key": "k", "wav": "a.wav", "txt": "x"}) + "\nbroken\n")
    assert run(*tool, corpus / "m.jsonl", corpus / "out") == 0
    assert "left out:\n       1  manifest: a line must be one JSON object" in capsys.readouterr().out


def test_word_times_beyond_the_recording_are_found_everywhere(corpus, capsys):
    rows = [{"key": f"k{end}", "wav": f"{corpus}/a.wav", "txt": "x", "words": [["x", 0.2, end]]} for end in (1.05, 1.5)]
    (corpus / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert run("check_data_list", "--list", corpus / "m.jsonl") == 1
    assert run("make_shard_list", "--manifest", corpus / "m.jsonl", corpus / "shards", corpus / "data.list") == 0
    page = capsys.readouterr().out
    assert "fault 1 × word times beyond the recording: k1.5\n" in page and "1 utterances in 1 shards, 1 left out" in page


def test_two_lists_of_one_name_are_refused(corpus, capsys):
    for folder in ("A", "B"):
        (corpus / folder / "train").mkdir(parents=True)
        (corpus / folder / "train/manifest.jsonl").write_text(json.dumps({"key": "k", "wav": f"{corpus}/a.wav", "speaker": "s"}) + "\n")
    assert run("data_report", "--disjoint", "speaker", "--out", corpus / "r.html", corpus / "A/train", corpus / "B/train") == 1
    assert "two lists are named train; give NAME=LIST" in capsys.readouterr().err


def test_lists_whose_audio_is_not_found_are_not_called_disjoint(corpus, capsys):
    for name, wav in (("train", "gone.wav"), ("test", f"{corpus}/a.wav")):
        (corpus / f"{name}.jsonl").write_text(json.dumps({"key": "k", "wav": wav, "speaker": "s"}) + "\n")
    lists = [f"{name}={corpus}/{name}.jsonl" for name in ("train", "test")]
    assert run("data_report", "--disjoint", "speaker", "--out", corpus / "r.html", *lists) == 1
    assert "train and test share 1 of 1 speakers" in capsys.readouterr().err


def test_lists_beside_their_recordings_share_them(corpus, capsys):
    (corpus / "sub").mkdir()
    for name, wav in (("m", "a.wav"), ("sub/n", "../a.wav")):
        (corpus / f"{name}.jsonl").write_text(json.dumps({"key": "k", "wav": wav, "txt": "x"}) + "\n")
    assert run("data_report", "--disjoint", "recording", "--out", corpus / "r.html", f"train={corpus}/m.jsonl", f"test={corpus}/sub/n.jsonl") == 1
    assert "train and test share 1 of 1 recordings in test" in capsys.readouterr().err
    assert run("make_shard_list", "--manifest", corpus / "m.jsonl", corpus / "shards", corpus / "data.list") == 0
    assert run("data_report", "--disjoint", "recording", "--out", corpus / "r.html", f"train={corpus}/m.jsonl", f"test={corpus}/data.list") == 1
    assert "shards can be compared by speaker alone; give the manifest" in capsys.readouterr().err


def test_a_conversation_is_decoded_too(corpus, capsys):
    turn = {"wav": f"{corpus}/a.wav", "txt": "x", "reply": "y"}
    row = {"key": "k", "wav": f"{corpus}/b.wav", "txt": "z", "reply": "w", "turns": [turn]}
    (corpus / "m.jsonl").write_text(json.dumps(row) + "\n")
    assert run("check_data_list", "--decode", "--list", corpus / "m.jsonl") == 0
    assert "no faults" in capsys.readouterr().out
