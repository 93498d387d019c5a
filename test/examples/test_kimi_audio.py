"""examples/kimi_audio: its prompts, and what its phases train."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from wenet_osum import config, tasks
from wenet_osum.dataset.drop import Dropped
from wenet_osum.dataset.formats import kimi_audio
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.models import build
from wenet_osum.records import Utterance

RECIPE = Path(__file__).resolve().parents[2] / "examples/kimi_audio"


@pytest.fixture(scope="module")
def prepare(load_prepare):
    return load_prepare("kimi_audio")


def test_every_task_has_many_prompts_and_keeps_that_of_scoring(prepare, tmp_path, capsys):
    prepare.prepare(prepare.arguments(["--out", str(tmp_path)]))
    table = yaml.safe_load((tmp_path / "prompts.yaml").read_text(encoding="utf-8"))
    assert "<TRANSCRIBE>: 259 en, 261 zh" in capsys.readouterr().out
    assert set(table) == {tasks.parse(name).tags for name in tasks.default_names()}
    for name in tasks.default_names():
        for lang, prompts in table[tasks.parse(name).tags].items():
            assert prompts[0] == tasks.parse(name).prompts(lang)[0]
            assert len(set(prompts)) == len(prompts) >= (200 if name == "asr" else 30)


def test_too_few_and_equal_prompts_are_refused(prepare):
    with pytest.raises(ValueError, match="asr, en: 30 prompts, at least 200 are needed"):
        prepare.check("asr", "en", [str(i) for i in range(30)])
    with pytest.raises(ValueError, match="ser, zh: 1 prompts stand twice"):
        prepare.check("ser", "zh", [*"abcdefga"])
    with pytest.raises(ValueError, match="asks has no row for task asr"):
        prepare.table({"asks": {}})


def test_the_encoder_is_trained_after_a_fifth():
    first, second = (config.load(path, config.TrainConfig) for path in sorted(RECIPE.glob("conf/train_*.yaml")))
    assert first.model.adapter == "concat_mlp" and set(first.train_parts) == {"adapter.*", "speech_boundary.*"}
    assert second.train_parts["encoder.*"].unfreeze == 0.2
    assert {part.unfreeze for name, part in second.train_parts.items() if name != "encoder.*"} == {0.0}
    weights = [source.weight for source in config.load(RECIPE / "conf/data.yaml", config.DataConfig).train]
    assert all(2 <= weight <= 4 for weight in weights)


def test_conversations_are_written_in_kimis_form(load_local, prepare, tmp_path, tone):
    made = load_local("kimi_audio", "conversations")
    for split in ("train", "test"):
        rows = [Utterance(f"{split}{i}", f"{i}.wav", "one two", lang="en", labels={"gender": "female" if i % 2 else "m"}) for i in range(5)]
        write_manifest(tmp_path / f"corpora/c/data/{split}/manifest.jsonl", rows)
    for i in range(5):
        (tmp_path / f"corpora/c/{i}.wav").write_bytes(tone())
    # A part of the corpus, kept as one of its own: each recording is taken once.
    whole = read_manifest(tmp_path / "corpora/c/data/train/manifest.jsonl")
    part = [replace(row, wav=str(tmp_path / "corpora/c" / row.wav)) for row in whole][:3]
    write_manifest(tmp_path / "corpora/b/data/train/manifest.jsonl", part)
    prepare.prepare(prepare.arguments(["--out", str(tmp_path)]))
    mixture = tmp_path / "data.yaml"
    mixture.write_text("train: [{name: talk, list: old, weight: 1}, {name: a, list: b, weight: 1}]")
    words = ["--data_dir", tmp_path / "corpora", "--prompts", tmp_path / "prompts.yaml", "--out", tmp_path / "talk", "--mixture", mixture]
    made.prepare(made.arguments([str(word) for word in words]))
    train = config.load(mixture, config.DataConfig).train
    assert [source.name for source in train] == ["a", "talk"] and train[1].list == str(tmp_path / "talk/train.list")

    # The fifth utterance has no partner.
    one, two = kimi_audio.read(str(tmp_path / "talk/train.jsonl"), Dropped(), "")
    turns = [(turn.task, bool(turn.wav), turn.txt, turn.labels) for turn in (*one.turns, one)]
    assert turns == [
        ("<TRANSCRIBE>", True, "one two", {}),
        ("<GENDER>", False, None, {"gender": "male"}),
        ("<TRANSCRIBE>", True, "one two", {}),
        ("<GENDER>", False, None, {"gender": "female"}),
    ]
    assert one.turns[0].wav == str(tmp_path / "corpora/c/0.wav") and one.prompt != two.prompt

    with pytest.raises(ValueError, match="train.jsonl does not exist"):
        (tmp_path / "talk/train.jsonl").unlink()
        made.prepare(made.arguments([str(word) for word in (*words, "--given")]))


@pytest.mark.slow
def test_stages_to_the_scores_at_two_steps(tmp_path, smoke, published_pair, two_steps_published, natural_corpora):
    """Both phases, every test that is there, and the last turn of conversations."""
    natural, work = tmp_path / "natural", tmp_path / "work"
    natural_corpora(natural)
    train = natural / "corpora/speechocean762/data/train"
    shutil.copy(train / "manifest.jsonl", train / "data.list")
    models = ["--whisper", "whisper", "--llm", "llm", "--corpora_dir", str(natural)]
    override = f"{two_steps_published} repeat_gate.utterances=0"
    said = smoke("kimi_audio", work, *models, "--decode", "--max_tokens 4", override=override)
    assert "<TRANSCRIBE>: 259 en, 261 zh" in said and "ravdess is left out" in said

    first, second = (build.load(work / f"exp/{phase}/final") for phase in ("1_adapter", "2_sft"))
    assert first.config.adapter == "concat_mlp" and first.lora is None and second.lora is not None
    answered = (work / "exp/decode/talk/hyp.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answered) == 1, "two recordings of the test make one conversation"
    scores = {path.parent.name for path in (work / "exp/score").glob("*/score.json")}
    assert scores == {"asr:speechocean762", "sap:speechocean762", "talk"}
