"""examples/esc50 on a small folder of the official layout, alone and put into speech; the slow test goes from corpus to report."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "examples/esc50"
spec = importlib.util.spec_from_file_location("prepare_esc50", RECIPE / "local/prepare.py")
prepare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prepare)


@pytest.fixture
def corpus(tmp_path):
    """A clip of four classes in each of five folds, two pieces of one recording among them."""
    folder = tmp_path / "official"
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, category in ((20, "crying_baby"), (21, "sneezing"), (0, "dog"), (28, "snoring")):
            for take in "AB":
                name = f"{fold}-{100 * fold + target}-{take}-{target}.wav"
                rows.append(f"{name},{fold},{target},{category},True,{100 * fold + target},{take}")
                wave = np.random.default_rng([fold, target, ord(take)]).normal(0, 0.1, 8000).astype(np.float32)
                (folder / "audio" / name).write_bytes(write_wav(wave))
    (folder / "meta/esc50.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(corpus: Path, out: Path, *more: str):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: list(read_manifest(out / name / "manifest.jsonl")) for name in ("train", "dev", "test")}


@pytest.mark.parametrize(("fold", "dev"), [(5, 4), (1, 5)])
def test_official_folds_and_labels(corpus, tmp_path, capsys, fold, dev):
    splits = run(corpus, tmp_path / "data", "--fold", str(fold))
    assert {u.extra["fold"] for u in splits["test"]} == {fold} and {u.extra["fold"] for u in splits["dev"]} == {dev}
    assert {u.extra["fold"] for u in splits["train"]} == {1, 2, 3, 4, 5} - {fold, dev}
    assert Counter(u.labels.get("event") for u in splits["train"]) == {"cry": 6, "sneeze": 6, "other": 6}
    assert "subset: 40 of 2000" in (page := capsys.readouterr().out) and "10  no label for dog" in page
    rest = run(corpus, tmp_path / "data", "--rest", "other")
    assert Counter(u.labels.get("event") for u in rest["test"]) == {"cry": 2, "sneeze": 2, "other": 4}


def test_a_recording_in_two_folds_stops(corpus, tmp_path):
    table = corpus / "meta/esc50.csv"
    table.write_text(table.read_text().replace("5-520-A-20.wav,5,", "5-520-A-20.wav,1,"))
    with pytest.raises(ValueError, match="train and test share 1 of .* recordings in test: freesound 520"):
        run(corpus, tmp_path / "data")


def test_faults_are_told(corpus, tmp_path):
    with pytest.raises(ValueError, match="--strict_counts"):
        run(corpus, tmp_path / "data", "--strict_counts")
    with pytest.raises(ValueError, match="folds 1 to 5"):
        run(corpus, tmp_path / "data", "--fold", "0")
    with pytest.raises(ValueError, match=r"no .*esc50\.csv"):
        run(tmp_path, tmp_path / "data")


def shell(corpus: Path, work: Path, *more: str) -> None:
    command = ["bash", str(RECIPE / "run.sh"), "--data_dir", str(corpus), "--work", str(work), "--nproc", "1", *more]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=work.parent, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_events_are_put_into_speech_split_by_split(corpus, tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / "speech" / split).mkdir(parents=True)
        wav = tmp_path / f"speech/{split}.wav"
        wav.write_bytes(write_wav(np.full(16000, 0.1, np.float32)))
        row = {"key": split, "wav": str(wav), "txt": "we call it bear", "speaker": split, "words": [["we", 0.1, 0.3], ["call", 0.6, 0.9]]}
        (tmp_path / f"speech/{split}/manifest.jsonl").write_text(json.dumps(row) + "\n")
    shell(corpus, tmp_path / "work", "--stop_stage", "1", "--speech", "speech")
    for split, folds in (("train", {1, 2, 3}), ("dev", {4}), ("test", {5})):
        (found,) = read_manifest(tmp_path / f"work/data/{split}/manifest.jsonl")
        assert found.txt == "we call it bear" and (event := found.labels["event"]) in ("cry", "sneeze", "other") and found.key == f"{split}+{event}"
        assert int(Path(found.extra["recordings"][1]).name[0]) in folds
    assert (tmp_path / "work/data/test/ved.list").exists()


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps(corpus, tmp_path, smoke):
    smoke("esc50", tmp_path / "work", "--data_dir", str(corpus))
    assert (tmp_path / "work/exp/score/report.html").exists() and list((tmp_path / "work/exp/decode").iterdir())
