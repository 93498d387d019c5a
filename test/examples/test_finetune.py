"""README's "Fine-tune on your corpus" is followed command by command, as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wenet_osum.dataset.audio import write_wav

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS, DATA = os.environ.get("OSUM_REAL_WEIGHTS"), os.environ.get("OSUM_REAL_DATA")
WORDS = ["she", "read", "line", "a", "b", "c"]


def section() -> str:
    """Return the section of README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("## Fine-tune on your corpus\n")[1].split("\n## ")[0]


def block(language: str) -> str:
    """Return the section's only block of a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", section(), re.DOTALL)
    return found


def follow(
    work: Path,
    whisper: Path,
    llm: Path,
    overrides: list[str],
    adapter: str = "",
    first: Path | None = None,
) -> str:
    """Run the commands in ``work`` with other models and settings; returns what they printed."""
    (work / "data.yaml").write_text(block("yaml"))
    for name in ("examples", "tools", "path.sh", "wenet_osum"):
        (work / name).symlink_to(ROOT / name)
    script = block("bash").replace("llm=Qwen/Qwen2.5-0.5B-Instruct", f"llm={llm}")
    assert str(llm) in script
    settings = "".join(f" --override {setting}" for setting in overrides)
    models = f" --whisper {whisper} --llm {llm}"
    lines = []
    for line in script.splitlines():
        if " train --config" in line:
            line += models + settings + (adapter if "train_2_align" in line else "")
        lines.append(line)
    path = os.pathsep.join(filter(None, [str(first or ""), os.environ["PATH"]]))
    own = {"PATH": path, "VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
        cwd=work,
        env=os.environ | own,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def check_report(work: Path) -> None:
    """The split, both experiments, an answer per test utterance, a score and a page are there."""
    test = (work / "data/test.jsonl").read_text().splitlines()
    answers = (work / "exp/decode/hyp.jsonl").read_text().splitlines()
    assert test and len(answers) == len(test)
    (row,) = json.loads((work / "exp/score/score.json").read_text())["scores"]
    assert row["task"] == "asr"
    assert "<svg" in (work / "exp/score/report.html").read_text()


def test_there_are_six_commands():
    commands = [line for line in block("bash").splitlines() if line.startswith("python ")]
    assert len(commands) == 6


@pytest.mark.slow
def test_six_commands_lead_to_a_report(tmp_path, warm_bin, published_pair, two_steps_published):
    """Tones of ten speakers, tiny models of the published classes."""
    work = tmp_path / "work"
    work.mkdir()
    rows = []
    for i in range(20):
        wave = 0.1 * np.sin(np.arange(9600) * (0.05 + 0.01 * i))
        (work / f"{i}.wav").write_bytes(write_wav(wave.astype(np.float32)))
        text = f"{WORDS[i % 6]} {WORDS[(i + 1) % 6]}"
        rows.append({"key": f"u{i}", "wav": f"{i}.wav", "txt": text, "lang": "en", "speaker": f"s{i % 10}"})
    (work / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = [*two_steps_published.split(), "repeat_gate.utterances=0", "rehearsal=false"]
    adapter = " --override model.adapter_conf.heads=4"
    follow(work, published_pair["whisper"], published_pair["llm"], overrides, adapter, warm_bin)
    check_report(work)


def hub_cache(folder: Path, models: dict[str, Path]) -> None:
    """Lay models out as a download from the hub does: refs, and snapshots that they name."""
    for name, source in models.items():
        model = folder / f"models--{name.replace('/', '--')}"
        revision = "0123456789" * 4
        (model / "refs").mkdir(parents=True)
        (model / "refs/main").write_text(revision)
        (model / "snapshots").mkdir()
        (model / "snapshots" / revision).symlink_to(source)


@pytest.mark.slow
def test_hub_names_are_found_in_a_hub_cache(tmp_path, published_pair, two_steps_published):
    """A download cannot be tested here, so the real hub is not; what it leaves on disk can."""
    names = {
        "openai/whisper-base": published_pair["whisper"],
        "Qwen/Qwen2.5-0.5B-Instruct": published_pair["llm"],
    }
    hub_cache(tmp_path / "hub", names)
    work = tmp_path / "work"
    work.mkdir()
    (work / "one.wav").write_bytes(write_wav(np.zeros(9600, dtype=np.float32)))
    row = {"key": "one", "wav": str(work / "one.wav"), "txt": "a b", "lang": "en"}
    (work / "data").mkdir()
    for split in ("train", "dev"):
        (work / f"data/{split}.jsonl").write_text(json.dumps(row) + "\n")
    (work / "data.yaml").write_text(block("yaml"))

    # The configuration of the README, which names hub models; two small steps.
    classes = [str(ROOT / "tools/make_ctc_classes.py"), "--tokenizer", "Qwen/Qwen2.5-0.5B-Instruct"]
    classes += ["--lowercase", "--list", "data/train.jsonl", "--out", "data/ctc_classes.json"]
    train = ["-m", "wenet_osum", "train", "--data", "data.yaml", "--exp_dir", "exp/2_align"]
    train += ["--config", str(ROOT / "examples/natural/conf/train_2_align.yaml")]
    settings = [*two_steps_published.split(), "rehearsal=false", "model.adapter_conf.heads=4"]
    for setting in settings:
        train += ["--override", setting]

    own = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    for command in (classes, train):
        done = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=work,
            env=os.environ | own,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (work / "exp/2_align/final/config.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    not (WEIGHTS and DATA),
    reason="OSUM_REAL_WEIGHTS and OSUM_REAL_DATA name no folders of models and corpora",
)
def test_the_same_with_published_models_and_natural_speech(tmp_path, load_prepare):
    """A hundred sentences of speechocean762; ten steps each."""
    prepare = load_prepare("speechocean762")
    (found,) = [p.parent for p in [*Path(DATA).glob("WAVE"), *Path(DATA).glob("*/WAVE")]][:1]
    prepare.prepare(prepare.arguments(["--data_dir", str(found), "--out", str(tmp_path / "so")]))
    lines = (tmp_path / "so/train/manifest.jsonl").read_text().splitlines()
    work = tmp_path / "work"
    work.mkdir()
    few = lines[:: max(1, len(lines) // 100)][:100]
    (work / "corpus.jsonl").write_text("\n".join(few) + "\n")
    (whisper,) = [p for p in Path(WEIGHTS).iterdir() if "whisper" in p.name]
    (llm,) = [p for p in Path(WEIGHTS).iterdir() if "qwen2.5" in p.name]
    steps = "max_steps=10 max_epochs=null eval_every=10 optim.warmup_steps=2"
    follow(work, whisper, llm, steps.split())
    check_report(work)
