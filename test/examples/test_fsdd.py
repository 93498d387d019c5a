"""examples/fsdd: digits joined into strings, on a tiny corpus made here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum.dataset.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "examples/fsdd"
spec = importlib.util.spec_from_file_location("prepare_fsdd", RECIPE / "local/prepare.py")
prepare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prepare)

TAKES = (0, 1, 5, 6, 7, 45)  # two of the test set, one for dev
LENGTHS_S = {digit: 0.15 + 0.02 * digit for digit in range(10)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two speakers, every digit, six takes: a tone each, 8 kHz, longer for higher digits."""
    folder = tmp_path_factory.mktemp("fsdd")
    (folder / "recordings").mkdir()
    for speaker, pitch in (("anna", 220.0), ("bert", 110.0)):
        for digit in range(10):
            time = np.arange(round(LENGTHS_S[digit] * 8000)) / 8000
            for take in TAKES:
                tone = 0.3 * np.sin(2 * np.pi * (pitch + 10 * digit + take) * time)
                soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{take}.wav", tone, 8000, subtype="PCM_16")
    return folder


def run(corpus: Path, out: Path, *more: str):
    """Prepare a small set; gives the manifests by split."""
    sizes = ["--train_strings", "12", "--dev_strings", "4", "--test_strings", "6"]
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *sizes, *more]))
    return {name: list(read_manifest(out / name / "manifest.jsonl")) for name in ("train", "dev", "test")}


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("data"))


def takes(utterances) -> set[int]:
    return {int(Path(name).stem.split("_")[2]) for u in utterances for name in u.extra["recordings"]}


def test_takes_go_where_they_belong(prepared):
    assert takes(prepared["train"]) == {5, 6, 7} and takes(prepared["dev"]) == {45} and takes(prepared["test"]) == {0, 1}


def test_strings_are_of_one_speaker_and_three_to_eight_digits(prepared):
    for name, utterance in ((name, u) for name, split in prepared.items() for u in split):
        sources = [Path(source).stem.split("_") for source in utterance.extra["recordings"]]
        assert (1 if name == "train" else 3) <= len(sources) <= 8 and {s[1] for s in sources} == {utterance.speaker}
        assert utterance.txt.split() == [prepare.DIGITS[int(s[0])] for s in sources] == [w.text for w in utterance.words]
    assert any(len(u.words) < 3 for u in prepared["train"])


def test_both_speakers_are_in_every_split(prepared):
    assert all({u.speaker for u in split} == {"anna", "bert"} for split in prepared.values())


def test_word_times_lie_on_the_sound(corpus, tmp_path):
    """With next to no noise the tone is loud inside each word and silent outside."""
    for utterance in run(corpus, tmp_path, "--snr_db", "80", "80")["test"]:
        audio, rate = soundfile.read(utterance.wav)
        assert rate == 16000 and len(audio) / rate == pytest.approx(utterance.duration)
        loud = np.zeros(len(audio), bool)
        for word in utterance.words:
            assert word.end - word.start == pytest.approx(LENGTHS_S[prepare.DIGITS.index(word.text)], abs=0.002)
            loud[round((word.start + 0.005) * rate) : round((word.end - 0.005) * rate)] = True
            assert np.abs(audio[round(word.start * rate) : round(word.end * rate)]).max() > 0.2
        quiet = ~np.convolve(loud, np.ones(640), "same").astype(bool)  # 20 ms away from any word
        assert np.abs(audio[quiet]).max() < 0.01


def test_pauses_are_within_their_range(prepared):
    for utterance in prepared["train"]:
        ends = [0.0, *(w.end for w in utterance.words)]
        begins = [*(w.start for w in utterance.words), utterance.duration]
        pauses = np.array(begins) - np.array(ends)
        assert pauses.min() > prepare.PAUSE_S[0] - 0.002 and pauses.max() < prepare.PAUSE_S[1] + 0.002


def test_noise_is_at_the_asked_level(corpus, tmp_path):
    quiet = run(corpus, tmp_path / "a", "--snr_db", "10", "10")["test"][0]
    audio, rate = soundfile.read(quiet.wav)
    word = quiet.words[0]
    noise, speech = audio[: round((word.start - 0.01) * rate)], audio[round(word.start * rate) : round(word.end * rate)]
    assert 10 * np.log10((speech**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=4)


def test_the_same_seed_gives_the_same_bytes(corpus, tmp_path):
    first, again, other = run(corpus, tmp_path / "a"), run(corpus, tmp_path / "b"), run(corpus, tmp_path / "c", "--seed", "1")
    read = [[(u.txt, Path(u.wav).read_bytes()) for u in split["test"]] for split in (first, again, other)]
    assert read[0] == read[1] != read[2]


def test_recordings_are_used_evenly(corpus):
    recordings = [r for r in prepare.find_recordings(corpus) if r.take in (5, 6, 7)]
    strings = prepare.deal(recordings, 60, np.random.default_rng(0))
    uses = [sum(r in string for string in strings) for r in recordings]
    assert max(uses) - min(uses) <= 2 and min(uses) > 0


def test_leaving_a_speaker_out(corpus, tmp_path):
    splits = run(corpus, tmp_path, "--leave_out", "bert")
    assert {u.speaker for u in splits["train"] + splits["dev"]} == {"anna"} and {u.speaker for u in splits["test"]} == {"bert"}
    assert takes(splits["train"]) == {5, 6, 7} and takes(splits["test"]) <= set(TAKES)


def test_unknown_speaker_is_told(corpus, tmp_path):
    with pytest.raises(ValueError, match="no such speaker; known: anna, bert"):
        run(corpus, tmp_path, "--leave_out", "carl")


def test_incomplete_corpus_is_said_and_strict_stops(corpus, tmp_path, capsys):
    run(corpus, tmp_path)
    assert "fsdd test recordings: subset: 40 of 300" in capsys.readouterr().out
    with pytest.raises(ValueError, match="subset: 60 of 2400; --strict_counts"):
        run(corpus, tmp_path, "--strict_counts")


def test_official_counts_add_up():
    assert prepare.official_counts(None) == {"train": 2400, "dev": 300, "test": 300}
    assert prepare.official_counts("george") == {"train": 2000, "dev": 250, "test": 500}


def test_text_is_of_training_alone(corpus, tmp_path):
    splits = run(corpus, tmp_path)
    assert (tmp_path / "text/train.txt").read_text().splitlines() == [u.txt for u in splits["train"]]


@pytest.mark.parametrize("name", ["ten_anna_0.wav", "1_anna.wav", "12_anna_3.wav"])
def test_strange_names_are_told(corpus, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    (copy / "recordings" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=name):
        run(copy, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"not a wav file at all"])
def test_unreadable_recording_is_told(corpus, tmp_path, content):
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    for path in (copy / "recordings").glob("*_bert_45.wav"):
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"_bert_45\.wav"):
        run(copy, tmp_path / "out")


def test_empty_folder_is_told_without_a_traceback(tmp_path):
    command = [sys.executable, str(RECIPE / "local/prepare.py"), "--data_dir", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: no wav file") and "Traceback" not in done.stderr


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps(corpus, tmp_path, smoke):
    """Every stage runs once, every phase for two steps."""
    sizes = ["--train_strings", "24", "--dev_strings", "4", "--test_strings", "4"]
    said = smoke("fsdd", tmp_path, "--data_dir", str(corpus), *sizes)
    for task in ("asr", "srwt"):
        decoded, scores = tmp_path / "exp/decode" / task, tmp_path / "exp/score"
        assert list(decoded.iterdir()) and list(scores.glob(f"{task}*")), said[-2000:]
