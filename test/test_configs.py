"""Every yaml of the recipes is a valid configuration; faults are told all at once, with suggestions."""

from __future__ import annotations

from pathlib import Path

import pytest

from wenet_osum import config
from wenet_osum.config import ConfigError, DataConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
RECIPE_CONFS = sorted((ROOT / "examples").glob("*/conf/**/*.yaml"))
WHISPER = {"model": {"kind": "whisper", "whisper": "exp/init/whisper"}, "train_parts": {"*": {}}, "max_steps": 1}


def kind_of(path: Path) -> type:
    """data*.yaml are mixtures, models*.yaml sizes of models made from nothing, all others training phases."""
    if path.name.startswith("models"):
        return pytest.importorskip("wenet_osum.small.models").SmallModels
    return DataConfig if path.name.startswith("data") else TrainConfig


@pytest.mark.parametrize("path", RECIPE_CONFS, ids=lambda p: "-".join(p.relative_to(ROOT / "examples").with_suffix("").parts))
def test_conf_of_recipe_loads(path):
    assert isinstance(config.load(path, kind_of(path)), kind_of(path))


def test_recipes_have_confs():
    assert RECIPE_CONFS


def test_saved_form_loads_to_the_same(tmp_path):
    conf = config.from_dict(WHISPER)
    config.save(conf, tmp_path / "train.yaml")
    assert config.load(tmp_path / "train.yaml") == conf


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "conf.yaml"
    path.write_text(text, encoding="utf-8")
    return path


BASE = "model: {kind: whisper, whisper: w}\ntrain_parts: {'*': {}}\nmax_steps: 10\n"


def test_overrides_are_typed(tmp_path):
    overrides = ["optim.lr=1e-4", "max_steps=7", "checkpointing=true", "augment.speeds=[0.9, 1.1]", "max_hours=2", "data=null"]
    conf = config.load(write(tmp_path, BASE), TrainConfig, overrides)
    assert conf.optim.lr == pytest.approx(1e-4) and isinstance(conf.optim.lr, float)
    assert (conf.max_steps, conf.checkpointing, conf.augment.speeds, conf.max_hours, conf.data) == (7, True, [0.9, 1.1], 2.0, None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_steps=many", "max_steps: expected int, got 'many'"),
        ("max_steps=true", "max_steps: expected int, got True"),
        ("optim.rate=1", "optim.rate: unknown key 'rate'"),
        ("engine=dpd", "unknown value 'dpd', did you mean 'ddp'"),
        ("optim.lr", "must read name=value"),
        ("optim.betas=[0.9]", "optim.betas: expected 2 values"),
        ("train_parts=[adapter]", "train_parts: expected a table of keys"),
        ("template=chatt", "template: unknown value 'chatt', did you mean 'chat'"),
        ("template=chat", "template chat: kind whisper has no LLM to chat with"),
        ("system=Go.", "system: only template chat has a system message; set template: chat"),
        ("repeat_gate.max_wer=-1", "repeat_gate: utterances 32 and max_wer -1.0 must be 0 or more"),
    ],
)
def test_wrong_override_is_told(tmp_path, override, message):
    with pytest.raises(ConfigError) as told:
        config.load(write(tmp_path, BASE), TrainConfig, [override])
    assert message in str(told.value)


def test_all_faults_at_once_with_suggestions(tmp_path):
    text = BASE + "max_step: 5\noptim: {wormup_steps: 3, lr: fast}\nbatch: {max_frames: 1.5}\nmodle: {}\n"
    with pytest.raises(ConfigError) as told:
        config.load(write(tmp_path, text))
    lines = str(told.value).splitlines()
    assert "5 faults" in lines[0] and len(lines) == 6
    for part in ("'max_steps'", "'warmup_steps'", "'model'"):
        assert f"did you mean {part}" in str(told.value)
    assert "optim.lr: expected float, got 'fast'" in str(told.value) and "batch.max_frames" in str(told.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {}}, "model.whisper"),
        ({"model": {"whisper": "w"}}, "model.llm: a folder or hub name is needed"),
        ({"model": {"kind": "whisper", "whisper": "w", "llm": "l"}}, "kind whisper has no LLM"),
        ({"model": {"kind": "whisper", "whisper": "w", "init_from": "x"}}, "give one of them"),
        ({"model": {"kind": "whisper", "whisper": "w", "ce_weight": -1}}, "model.ce_weight -1.0: must be 0 or more"),
        ({"model": {"kind": "whisper", "whisper": "w", "ce_weight": 0}}, "nothing is left to train on"),
        ({"model": {"kind": "whisper", "whisper": "w", "losses": [{"name": "ctc"}]}}, "model.losses[0].weight None: must be a number above 0"),
        ({"model": {"kind": "whisper", "whisper": "w", "losses": [{"weight": 1}]}}, "model.losses[0]: needs a name"),
        ({"model": {"kind": "whisper", "whisper": "w", "losses": [{"name": "ctc", "weight": 1}] * 2}}, "model.losses[1]: 'ctc' stands twice"),
        ({"train_parts": {}}, "name what trains"),
        ({"max_steps": None}, "one is needed to end the run"),
        ({"augment": {"noise_prob": 0.5}}, "needs augment.noise"),
        ({"augment": {"speeds": [1.0, 0]}}, "all above 0"),
    ],
)
def test_bad_pairs_are_told(change, message):
    with pytest.raises(ConfigError) as told:
        config.from_dict(WHISPER | change)
    assert message in str(told.value)


@pytest.mark.parametrize("key", ["ctc_weight", "tone_weight"])
def test_a_key_that_is_gone_is_answered_with_the_new_form(tmp_path, key):
    """Every name in the table of names that are gone is unknown now, and says what to write."""
    with pytest.raises(ConfigError, match=rf"model\.{key}: this key is gone; write .*losses: \[\{{name"):
        config.load(write(tmp_path, BASE), TrainConfig, [f"model.{key}=0.3"])


def test_mixture_faults_are_told():
    rows = [{"name": "a", "list": "x", "weight": 0}, {"name": "a", "list": "y", "tasks": {"ser": -1}}, {"name": "b"}]
    with pytest.raises(ConfigError) as told:
        config.from_dict({"train": rows[:2]}, DataConfig)
    assert all(part in str(told.value) for part in ("weight 0.0 must be above 0", "share -1.0 of task 'ser'", "the name stands twice"))
    with pytest.raises(ConfigError, match=r"train\[2\]\.list: is needed and missing"):
        config.from_dict({"train": rows}, DataConfig)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid yaml"), ("- a\n", "must be a table of keys")])
def test_broken_file_is_told(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path, text))


def test_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(tmp_path / "none.yaml")
