"""examples/wenetspeech on a small folder of the official layout, bad files among them; the slow test goes from corpus to report."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum.dataset.manifest import read_manifest

RECORDINGS = {  # name → folder and subsets of its segments in turn
    "Y01": ("train/youtube/B00000", (["L", "M", "S"], ["L"], [])),
    "X02": ("train/podcast/B00001", (["L", "M"], ["S", "M", "L"], ["L"])),
    "D03": ("dev/youtube/B00000", (["DEV"], ["DEV"], ["DEV"])),
    "T04": ("test_net/B00000", (["TEST_NET"], ["TEST_NET"], ["TEST_NET"])),
    "M05": ("test_meeting/B00000", (["TEST_MEETING"], ["TEST_MEETING"], ["TEST_MEETING"])),
}


def entry(name: str, folder: str, subsets: tuple) -> dict:
    segments = [
        {"sid": f"{name}_S{i:05d}", "confidence": 1.0, "begin_time": 0.1 + i, "end_time": 0.9 + i, "subsets": found, "text": f"第{'一二三'[i]}段OK"}
        for i, found in enumerate(subsets)
    ]
    return {"aid": name, "duration": 3.0, "md5": "0", "path": f"audio/{folder}/{name}.opus", "source": "youtube", "tags": ["drama"], "url": "u", "segments": segments}


def write_json(corpus: Path, audios: list[dict]) -> None:
    tree = {"dataset": "WenetSpeech", "language": "ZH", "version": "v1.0.0", "audios": audios}
    (corpus / "WenetSpeech.json").write_text(json.dumps(tree, ensure_ascii=False, indent=1), encoding="utf-8")


@pytest.fixture(scope="module")
def prepare(load_prepare):
    return load_prepare("wenetspeech")


@cache
def opus() -> bytes:
    """Three seconds of noise; encoding them is slow."""
    out = io.BytesIO()
    soundfile.write(out, np.random.default_rng(0).normal(0, 0.1, 48000), 16000, format="OGG", subtype="OPUS")
    return out.getvalue()


@pytest.fixture
def corpus(tmp_path):
    """Five Opus recordings of three segments each; of two more one is not there and one is empty."""
    folder, audios = tmp_path / "official", [entry(name, *rest) for name, rest in RECORDINGS.items()]
    for audio in audios:
        path = folder / audio["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(opus())
    lost = [entry("Y06", "train/youtube/B00000", (["M", "L"], ["S"], [])), entry("Y07", "train/youtube/B00000", (["L", "M", "S"], ["L"], ["L"]))]
    (folder / lost[1]["path"]).write_bytes(b"")
    write_json(folder, [*audios, *lost])
    return folder


def run(prepare, corpus: Path, out: Path, *more: str):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {path.parent.name: list(read_manifest(path)) for path in out.glob("*/manifest.jsonl")}


@pytest.mark.parametrize(("subset", "keys"), [("S", ["Y01_S00000", "X02_S00001"]), ("M", ["Y01_S00000", "X02_S00000", "X02_S00001"]), ("L", 5)])
def test_subsets_are_segments_of_long_recordings(prepare, corpus, tmp_path, capsys, subset, keys):
    splits = run(prepare, corpus, tmp_path / "data", "--subset", subset)
    assert {name: len(rows) for name, rows in splits.items() if name != "train"} == {"dev": 3, "test_net": 3, "test_meeting": 3}
    found = [u.key for u in splits["train"]]
    assert (len(found) if subset == "L" else found) == keys
    first = splits["train"][0]
    assert (first.txt, first.lang, first.start, first.end, first.duration) == ("第一段OK", "zh", 0.1, 0.9, 0.8) and first.wav.endswith("B00000/Y01.opus")
    page = capsys.readouterr().out
    assert f"wenetspeech {subset} hours: subset: 1 of {prepare.HOURS[subset]}" in page and "left out, recordings: 2, e.g. audio/train/youtube" in page
    assert "recording: file not found" in page and "recording: empty file" in page
    assert (tmp_path / "data/left_out.txt").read_text().splitlines()[0] == "audio/train/youtube/B00000/Y06.opus\tfile not found"
    assert (tmp_path / "data/text/train.txt").read_text(encoding="utf-8").splitlines() == [u.txt for u in splits["train"]]


def test_bad_segments_are_counted(prepare, corpus, tmp_path, capsys):
    audios = json.loads((corpus / "WenetSpeech.json").read_text(encoding="utf-8"))["audios"]
    audios[0]["segments"][0]["text"] = " "
    audios[0]["segments"][1]["end_time"] = 0.2
    audios[1]["segments"][2]["end_time"] = 3.2
    write_json(corpus, audios)
    assert [u.key for u in run(prepare, corpus, tmp_path / "data")["train"]] == ["X02_S00000", "X02_S00001"]
    page = capsys.readouterr().out
    for reason in ("segment without a transcript", "segment that ends before it begins", "segment beyond the end of its recording"):
        assert f"1  {reason}" in page


def test_faults_are_told_and_leave_no_half_of_a_list(prepare, corpus, tmp_path):
    with pytest.raises(ValueError, match="hours: subset: 1 of 100; --strict_counts"):
        run(prepare, corpus, tmp_path / "data", "--subset", "S", "--strict_counts")
    with pytest.raises(ValueError, match="unknown subset 'XL'"):
        run(prepare, corpus, tmp_path / "data", "--subset", "XL")
    with pytest.raises(ValueError, match=r"WenetSpeech\.json does not exist"):
        run(prepare, tmp_path, tmp_path / "data")
    whole = (corpus / "WenetSpeech.json").read_text(encoding="utf-8")
    (corpus / "WenetSpeech.json").write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(ValueError, match="download it again"):
        run(prepare, corpus, tmp_path / "cut")
    assert not list((tmp_path / "cut").glob("*/manifest.jsonl*"))
    (corpus / "WenetSpeech.json").write_text('{"audios": [{"aid": "Y01", "path": "x.opus", "duration": 1}]}')
    with pytest.raises(ValueError, match=r"audios\[0\]: a recording needs segments"):
        run(prepare, corpus, tmp_path / "data")


def test_a_recording_on_both_sides_stops(prepare, corpus, tmp_path):
    audios = json.loads((corpus / "WenetSpeech.json").read_text(encoding="utf-8"))["audios"]
    audios[0]["segments"][1]["subsets"] = ["DEV"]
    write_json(corpus, audios)
    with pytest.raises(ValueError, match="train and dev share 1 of 2 recordings in dev"):
        run(prepare, corpus, tmp_path / "data", "--subset", "S")


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps_packed_by_two_jobs(corpus, tmp_path, smoke):
    work, options = tmp_path / "work", ["--data_dir", str(corpus), "--size", "small", "--jobs", "1", "--num_jobs", "2"]
    assert "other jobs are still packing" in smoke("wenetspeech", work, *options, "--stop_stage", "1", "--job", "2")
    assert not (work / "data/train/data.list").exists()
    smoke("wenetspeech", work, *options, "--stage", "1")
    assert (work / "data/train/data.list").read_text().count(".tar") == 1  # five utterances are one shard, whoever packs it
    for name in ("test_net", "test_meeting"):
        assert "| asr " in (work / f"exp/score/{name}/score.md").read_text(encoding="utf-8")
