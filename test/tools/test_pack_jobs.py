"""Packing shared out to jobs gives the shards of one job; what is left out is named and counted once."""

from __future__ import annotations

import importlib.util
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset import index as indices
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.drop import Dropped
from wenet_osum.dataset.pack_jobs import read_shuffled
from wenet_osum.dataset.scan import scan_file
from wenet_osum.dataset.shard import load_list, pack
from wenet_osum.dataset.tar import header
from wenet_osum.records import Utterance, Word

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(tool, *args):
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(a) for a in args])


@pytest.fixture
def corpus(tmp_path):
    """Twenty utterances of one recording, a key twice, a recording that is missing and a line that is broken."""
    (tmp_path / "a.wav").write_bytes(write_wav(np.sin(np.arange(3200) / 20).astype(np.float32)))
    rows = [{"key": f"k{i:02d}", "wav": f"{tmp_path}/a.wav", "txt": f"text {i}", "words": [["text", 0.0, 0.1]]} for i in range(20)]
    rows[7]["wav"] = f"{tmp_path}/gone.wav"
    rows.insert(12, rows[3])
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + "broken\n")
    return tmp_path


def keys(path) -> list[str]:
    return [str(k) for index in load_list(str(path), Counter()) for k in index.keys]


@pytest.mark.parametrize("shuffle", [[], ["--shuffle"]], ids=["in order", "shuffled"])
def test_three_jobs_make_the_shards_of_one(corpus, capsys, shuffle):
    flags = ["--num_utts_per_shard", 3, *shuffle, "--manifest", corpus / "m.jsonl"]
    assert run("make_shard_list", *flags, corpus / "one", corpus / "one.list") == 0
    assert "19 utterances in 7 shards, 3 left out" in capsys.readouterr().out
    for job in (2, 3, 1):
        assert run("make_shard_list", "--job", job, "--num_jobs", 3, *flags, corpus / "many", corpus / "many.list") == 0
        assert (corpus / "many.list").exists() == (job == 1)
    assert "3 of 3 parts are there" in capsys.readouterr().out
    one, many = ([Path(p) for p in (corpus / f"{name}.list").read_text().split()] for name in ("one", "many"))
    assert [p.name for p in one] == [p.name for p in many] and all(a.read_bytes() == b.read_bytes() for a, b in zip(one, many, strict=True))
    left = [sorted((corpus / f"{name}.list.left_out").read_text().splitlines()) for name in ("one", "many")]
    assert left[0] == left[1] and [line.split("\t")[1] for line in left[0]][1:] == ["duplicate key", "audio: file not found"]


def test_a_job_run_again_takes_its_old_part_away_first(corpus):
    flags = ["--num_utts_per_shard", 3, "--manifest", corpus / "m.jsonl", "--num_jobs", 2]
    for job in (1, 2):
        run("make_shard_list", "--job", job, *flags, corpus / "s", corpus / "data.list")
    whole = keys(corpus / "data.list")
    assert run("make_shard_list", "--job", 1, *flags, corpus / "s", corpus / "data.list") == 0
    assert keys(corpus / "data.list") == whole


def test_parts_of_another_manifest_or_way_are_not_joined(corpus, capsys):
    flags = ["--manifest", corpus / "m.jsonl", "--num_jobs", 2]
    paths = [corpus / "s", corpus / "data.list"]
    for job in (1, 2):
        run("make_shard_list", "--num_utts_per_shard", 3, "--job", job, *flags, *paths)
    assert (corpus / "data.list").exists()
    for size, line in ((4, ""), (3, "{}\n")):
        with open(corpus / "m.jsonl", "a") as lines:
            lines.write(line)
        capsys.readouterr()
        assert run("make_shard_list", "--num_utts_per_shard", size, "--job", 1, *flags, *paths) == 0
        assert "1 of 2 parts are there\n" in capsys.readouterr().out and not (corpus / "data.list").exists()


@pytest.mark.parametrize("job", [0, 3])
def test_a_job_that_is_none_is_told(corpus, capsys, job):
    assert run("make_shard_list", "--job", job, "--num_jobs", 2, "--manifest", corpus / "m.jsonl", corpus / "s", corpus / "d.list") == 1
    assert f"part {job} of 2: parts are counted from 1" in capsys.readouterr().err


def test_shuffled_reading_has_every_line_once(corpus):
    dropped = Dropped()
    found = [u.key for u in read_shuffled(str(corpus / "m.jsonl"), 1, dropped)]
    plain = sorted(found)
    assert len(found) == 21 and found != plain and dropped.total() == 1
    assert found == [u.key for u in read_shuffled(str(corpus / "m.jsonl"), 1, Dropped())] != [u.key for u in read_shuffled(str(corpus / "m.jsonl"), 2, Dropped())]


@pytest.mark.parametrize("checked", [False, True])
def test_the_index_made_while_packing_is_the_one_a_scan_finds(corpus, checked):
    fields = {"txt": " 你好 <b> ", "lang": "zh", "speaker": "s", "labels": {"age": 7.5}, "words": [Word("你", 0.0, 0.1)], "reply": "ja", "extra": {"x": [1]}}
    given = [Utterance(key, f"{corpus}/a.wav", **fields) for key in ("a.b", "长" * 120, "line\nbreak", "x.wav")]
    given.append(Utterance("part", f"{corpus}/a.wav", start=0.05, end=0.15))
    (path,) = pack(given, corpus / "s", log=print, checked=checked).paths
    stored, faults, _ = indices.restore(path, indices.stamp_of(path))
    scanned, _ = scan_file(path, path)
    assert not faults and len(stored) == 5
    for name in ("keys", "offsets", "sizes", "lengths"):
        assert np.array_equal(getattr(stored, name), getattr(scanned, name)), name
    assert np.allclose(stored.durations, scanned.durations, atol=1e-4) and all((stored.columns[c] == scanned.columns[c]).all() for c in stored.columns)


@pytest.mark.parametrize("name", ["a", "你好.txt", "n" * 100, "n" * 101, "长" * 60, ""])
@pytest.mark.parametrize("size", [0, 1, 511, 12345678, 8**11 - 1, 8**11])
def test_headers_are_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
