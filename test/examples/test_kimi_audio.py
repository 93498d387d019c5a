"""examples/kimi_audio: its prompts, and what its phases train."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from wenet_osum import config, tasks
from wenet_osum.dataset.drop import Dropped
from wenet_osum.dataset.formats import kimi_audio
from wenet_osum.dataset.manifest import write_manifest
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
