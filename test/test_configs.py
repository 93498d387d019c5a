"""Every yaml of the recipes is a valid configuration; faults are told all at once, with suggestions."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from wenet_osum import config
from wenet_osum.config import ConfigError, DataConfig, TrainConfig
from wenet_osum.config.yaml_files import Merged, lineage

ROOT = Path(__file__).resolve().parents[1]
ALL_CONFS = sorted((ROOT / "examples").glob("*/conf/**/*.yaml"))
# base*.yaml are parts that others build on
RECIPE_CONFS = [path for path in ALL_CONFS if not path.name.startswith("base")]
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


def own_and_inherited(path: Path) -> tuple[dict, dict]:
    """Return what a conf says itself, and what its bases say."""
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    bases = Merged()
    for source, tree in lineage(path).items():
        if source != path:
            bases.put(tree, source)
    return own, bases.tree


def said_again(own: dict, inherited: dict, prefix: str = "") -> list[str]:
    """Return the names of values that a file says although its bases say the same."""
    found = []
    for key, value in own.items():
        below = inherited.get(key)
        if isinstance(value, dict) and value and isinstance(below, dict):
            found += said_again(value, below, f"{prefix}{key}.")
        elif key in inherited and value == below:
            found.append(f"{prefix}{key}")
    return found


@pytest.mark.parametrize("path", ALL_CONFS, ids=lambda p: "-".join(p.relative_to(ROOT / "examples").parts))
def test_a_conf_says_only_what_is_its_own(path):
    assert not said_again(*own_and_inherited(path))


def test_every_base_of_the_recipes_has_someone_who_builds_on_it():
    used = {source for path in RECIPE_CONFS for source in lineage(path)}
    assert set(ALL_CONFS) <= used


def test_few_lines_stand_in_three_training_confs():
    """What many would say stands in a base. Lines count that give a value, bases aside."""
    counts = Counter()
    for path in (path for path in ALL_CONFS if path.name.startswith("train_")):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        counts.update({line for line in lines if line and not re.match("#|base:|.*:$", line)})
    repeated = sum(count for count in counts.values() if count > 2)
    assert repeated <= 0.33 * counts.total(), f"{repeated} of {counts.total()} lines"


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
        ("augment.speeds=[0.9,", "the value is no yaml; in a shell, a list with blanks needs quotes"),
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
        ({"model": {"whisper": "w", "llm": "l", "time_marks": 0.0}}, "model.time_marks 0.0: seconds above 0"),
        ({"model": {"kind": "whisper", "whisper": "w", "ce_weight": -1}}, "model.ce_weight -1.0: must be 0 or more"),
        ({"model": {"kind": "whisper", "whisper": "w", "ce_weight": 0}}, "nothing is left to train on"),
        ({"model": {"kind": "whisper", "whisper": "w", "losses": [{"name": "ctc"}]}}, "model.losses[0].weight None: must be a number above 0"),
        ({"model": {"kind": "whisper", "whisper": "w", "losses": [{"weight": 1}]}}, "model.losses[0]: needs a name"),
        ({"model": {"kind": "whisper", "whisper": "w", "losses": [{"name": "ctc", "weight": 1}] * 2}}, "model.losses[1]: 'ctc' stands twice"),
        ({"train_parts": {}}, "name what trains"),
        ({"max_steps": None}, "one is needed to end the run"),
        ({"augment": {"noise_prob": 0.5}}, "needs augment.noise"),
        ({"augment": {"speeds": [1.0, 0]}}, "all above 0"),
        ({"patience": 0, "log_every": 0}, "patience 0: must be 1 or more\n  - log_every 0: must be 1 or more"),
        ({"keep": -1}, "keep -1: must be 1 or more"),
        ({"optim": {"clip": 0, "accumulation": 0}}, "optim.clip 0: must be above 0"),
        ({"max_hours": 0}, "max_hours 0: must be above 0"),
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


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid yaml"), ("- a\n", "must be a table of keys"), ("optim: {lr: 1}\nseed: 1\noptim: {clip: 1}\n", "'optim' stands twice")])
def test_broken_file_is_told(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path, text))


def test_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        config.load(tmp_path / "none.yaml")


def write_chain(folder: Path, **texts: str) -> Path:
    """Write files a.yaml, b.yaml, … and return a.yaml."""
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "a.yaml"


def test_tables_merge_with_those_of_the_base_and_anything_else_replaces_it(tmp_path):
    path = write_chain(
        tmp_path,
        a="base: b.yaml\noptim: {lr: 1.0e-4}\naugment: {speeds: [1.0], spec_augment: null}\n",
        b="base: c.yaml\noptim: {clip: 1.0, lr: 1.0e-3}\nmax_steps: 7\n",
        c=BASE + "optim: {clip: 9.0, eps: 1.0e-8}\n"
        "augment: {speeds: [0.9, 1.1], spec_augment: {max_time: 3}}\n",
    )
    conf = config.load(path)
    assert (conf.optim.lr, conf.optim.clip, conf.optim.eps, conf.max_steps) == (1e-4, 1.0, 1e-8, 7)
    assert conf.augment.speeds == [1.0] and conf.augment.spec_augment is None
    assert conf.model.whisper == "w" and list(conf.train_parts) == ["*"]


def test_of_several_bases_the_later_wins_and_a_shared_one_counts_once(tmp_path):
    """Without the second, what ``first`` says of ``shared`` would be undone through ``second``."""
    path = write_chain(
        tmp_path,
        a="base: [first.yaml, second.yaml]\n",
        first="base: shared.yaml\nseed: 1\nkeep: 1\n",
        second="base: shared.yaml\nkeep: 2\n",
        shared=BASE + "seed: 0\nkeep: 0\nlog_every: 3\n",
    )
    conf = config.load(path)
    assert (conf.seed, conf.keep, conf.log_every) == (1, 2, 3)


def test_paths_of_bases_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_chain(tmp_path, **{"conf/b": "base: parts/c.yaml\n", "conf/parts/c": BASE, "a": "base: conf/b.yaml\nseed: 3\n"})
    assert config.load("../a.yaml").seed == 3


def test_the_saved_form_is_the_merged_whole(tmp_path):
    conf = config.load(write_chain(tmp_path, a="base: b.yaml\nseed: 5\n", b=BASE))
    (tmp_path / "run").mkdir()
    config.save(conf, tmp_path / "run/train.yaml")
    saved = yaml.safe_load((tmp_path / "run/train.yaml").read_text())
    assert "base" not in saved and (saved["seed"], saved["max_steps"]) == (5, 10)
    assert config.load(tmp_path / "run/train.yaml") == conf


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ("base: a.yaml\n", r"config .*b\.yaml: its base leads back .*a\.yaml → .*b\.yaml → .*a\.yaml"),
        ("base: b.yaml\n", r"config .*b\.yaml: its base leads back"),
        ("base: none.yaml\n", r"config .*b\.yaml: its base .*none\.yaml does not exist; .*relative"),
        ("base: 3\n", r"config .*b\.yaml: base 3 must be a path relative to this file"),
        ("base: [3]\n", r"config .*b\.yaml: base \[3\] must be a path relative to this file"),
        ("- a\n", r"config .*b\.yaml must be a table of keys"),
        (BASE + "max_step: 3\n", r"max_step: unknown key .*'max_steps'.* \(in .*b\.yaml\)"),
        (BASE + "optim: {rate: 3}\n", r"optim\.rate: unknown key .* \(in .*b\.yaml\)"),
        (BASE + "modle: {lora: 3}\n", r"modle: unknown key .* \(in .*b\.yaml\)"),
        (BASE + "augment: {speeds: [1.0, x]}\n", r"augment\.speeds\[1\]: expected .* \(in .*b\.yaml\)"),
        (BASE + "optim: {lr: x}\nseed: x\n", r"a\.yaml: 2 faults\n.*lr: .*b\.yaml\)\n.*seed: expected int, got 'y'$"),
    ],
)
def test_the_file_at_fault_is_named(tmp_path, b, message):
    path = write_chain(tmp_path, a="base: b.yaml\nseed: y\n", b=b)
    with pytest.raises(ConfigError, match=message):
        config.load(path)


def test_what_the_command_line_sets_is_no_fault_of_a_base(tmp_path):
    path = write_chain(tmp_path, a="base: b.yaml\n", b=BASE + "seed: 3\n")
    with pytest.raises(ConfigError) as told:
        config.load(path, TrainConfig, ["seed=x"])
    assert "seed: expected int, got 'x'" in str(told.value) and "(in" not in str(told.value)
