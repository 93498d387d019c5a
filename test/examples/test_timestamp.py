"""examples/timestamp: times from CTM, MFA's TextGrids and forced alignment, on the folders of the recipes that it builds upon."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.records import Utterance, Word

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "examples/timestamp"

SPLITS = {"train": ("S1", "S2"), "dev": ("S3",), "test": ("S4",)}
TEXT = "今天 好"


@pytest.fixture(scope="module")
def prepare(load_prepare):
    return load_prepare("timestamp")


@pytest.fixture
def source(tmp_path):
    """Manifests as examples/aishell leaves them, two utterances per speaker; one has times already."""
    for split, speakers in SPLITS.items():
        rows = []
        for speaker in speakers:
            for i in range(2):
                path = tmp_path / f"wav/{speaker}{i}.wav"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(write_wav(np.random.default_rng(i).normal(0, 0.1, 16000).astype(np.float32)))
                words = [Word("今天", 0.1, 0.5), Word("好", 0.5, 0.9)] if (speaker, i) == ("S4", 0) else None
                rows.append(Utterance(f"{speaker}{i}", str(path), "".join(TEXT.split()), lang="zh", speaker=speaker, words=words, duration=1.0))
        write_manifest(tmp_path / "source" / split / "manifest.jsonl", rows)
    return tmp_path / "source"


@pytest.fixture
def ctm(tmp_path):
    """Times of all but one utterance; of another they say something else."""
    lines = [f"{s}{i} 1 0.13 0.40 今天\n{s}{i} 1 0.53 0.37 好\n" for speakers in SPLITS.values() for s in speakers for i in range(2) if f"{s}{i}" not in ("S10", "S21")]
    (tmp_path / "times.ctm").write_text("".join(lines) + "S21 1 0.1 0.2 别的\nS21 1 0.3 0.2 话\n", encoding="utf-8")
    return tmp_path / "times.ctm"


def run(prepare, source: Path, out: Path, *more: str):
    prepare.prepare(prepare.arguments(["--source", str(source), "--out", str(out), *map(str, more)]))
    return {name: list(read_manifest(out / name / "manifest.jsonl")) for name in SPLITS}


def test_ctm_gives_characters_their_times_and_says_what_is_left_out(prepare, source, ctm, tmp_path, capsys):
    splits = run(prepare, source, tmp_path / "data", "--times", ctm, "--format", "ctm")
    assert {name: [u.key for u in rows] for name, rows in splits.items()} == {"train": ["S11", "S20"], "dev": ["S30", "S31"], "test": ["S40", "S41"]}
    assert splits["test"][1].words == [Word("今", 0.13, 0.33), Word("天", 0.33, 0.53), Word("好", 0.53, 0.9)]
    page = capsys.readouterr().out
    assert "train: 2 of 4 utterances have word times, 6 words" in page and "1  no alignment of this name" in page
    assert "1  transcript and alignment say different things" in page or "1  words of the transcript are not in the alignment" in page
    assert "test: new times against those of the manifest:\n  mean shift, ms (zh): 22.5" in page  # 30, 30, 30 and 0 ms
    assert "boundaries within 50 ms, % (zh): 100.0" in page and "dev: new times" not in page


def test_text_grids_are_found_by_the_name_of_the_recording(prepare, source, tmp_path):
    for path in (tmp_path / "wav").glob("*.wav"):
        folder = tmp_path / "grids" / path.stem[:2]
        folder.mkdir(parents=True, exist_ok=True)
        tier = '"IntervalTier" "words" 0 1 3 0 0.5 "今天" 0.5 0.9 "好" 0.9 1 ""'
        (folder / f"{path.stem}.TextGrid").write_text(f'"ooTextFile" "TextGrid" 0 1 <exists> 1 {tier}', encoding="utf-8")
    splits = run(prepare, source, tmp_path / "data", "--times", tmp_path / "grids", "--format", "mfa")
    assert sum(map(len, splits.values())) == 8 and splits["dev"][0].words[2] == Word("好", 0.5, 0.9)


def test_times_of_an_aligner_are_taken_by_key(prepare, source, tmp_path):
    rows = {name: list(read_manifest(source / name / "manifest.jsonl")) for name in SPLITS}
    for name, found in rows.items():
        for i, row in enumerate(found):
            row.words = [Word("今", 0, 0.2), Word("天", 0.2, 0.4), Word("好", 0.4, 0.9)] if i == 0 else None
        write_manifest(tmp_path / "aligned" / name / "manifest.jsonl", found)
    splits = run(prepare, source, tmp_path / "data", "--aligned", tmp_path / "aligned")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 1, "dev": 1, "test": 1} and splits["train"][0].words[1].text == "天"


def test_times_of_the_manifest_itself_are_cut_into_characters(prepare, source, tmp_path):
    for name in SPLITS:
        rows = list(read_manifest(source / name / "manifest.jsonl"))
        for row in rows:
            row.words = [Word("今天", 0.1, 0.5), Word("好", 0.5, 0.9)]
        write_manifest(source / name / "manifest.jsonl", rows)
    splits = run(prepare, source, tmp_path / "data")
    assert sum(map(len, splits.values())) == 8 and splits["dev"][0].words == [Word("今", 0.1, 0.3), Word("天", 0.3, 0.5), Word("好", 0.5, 0.9)]


def test_faults_are_told(prepare, source, ctm, tmp_path):
    with pytest.raises(ValueError, match=r"no utterance of train, dev got word times:\n +7  no word times"):
        run(prepare, source, tmp_path / "data")
    with pytest.raises(ValueError, match="unknown word_times 'cmt', did you mean 'ctm'"):
        run(prepare, source, tmp_path / "data", "--times", ctm, "--format", "cmt")
    with pytest.raises(ValueError, match=r"lacks dev, train/manifest\.jsonl"):
        run(prepare, tmp_path, tmp_path / "data", "--times", ctm, "--format", "ctm")
    (source / "dev/manifest.jsonl").write_text((source / "train/manifest.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ValueError, match="train and dev share 2 of 2 speakers"):
        run(prepare, source, tmp_path / "data", "--times", ctm, "--format", "ctm")


def test_unknown_corpora_and_missing_times_are_told(source, tmp_path):
    for options, words in ((["--corpus", "aishel"], "known are aishell librispeech"), ([], "give --times (alignments), --aligner")):
        done = subprocess.run(["bash", str(RECIPE / "run.sh"), "--size", "small", "--work", str(tmp_path / "w"), *options], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and words in done.stderr


@pytest.fixture
def aligner(tmp_path):
    """A phase-1 model with a CTC head and random weights."""
    import torch
    from transformers import WhisperForConditionalGeneration

    from wenet_osum.models.whisper import WhisperPhase
    from wenet_osum.small.models import SmallWhisper, save_whisper
    from wenet_osum.small.train_tokenizer import train_tokenizer
    from wenet_osum.text.template import Template

    torch.manual_seed(0)
    tokenizer = train_tokenizer([TEXT], vocab_size=300)
    save_whisper(SmallWhisper(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=1), tokenizer, tmp_path / "aligner")
    phase = WhisperPhase(WhisperForConditionalGeneration.from_pretrained(tmp_path / "aligner"))
    phase.add_ctc_head(phase.blank)
    phase.save_pretrained(tmp_path / "aligner")
    Template(tokenizer).save(tmp_path / "aligner")
    return tmp_path / "aligner"


@pytest.mark.slow
def test_recipe_from_forced_alignment_to_report_at_two_steps(source, aligner, tmp_path, smoke):
    smoke("timestamp", tmp_path / "work", "--corpus", "aishell", "--source", "source", "--aligner", "aligner", "--size", "small")
    table = (tmp_path / "work/exp/score/test/score.md").read_text(encoding="utf-8")
    assert "| srwt " in table and "| asr " in table
