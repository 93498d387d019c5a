"""Training on states from disk is training on features: the same losses, resumable, never stale."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import soundfile
import torch
import yaml

from wenet_osum import config
from wenet_osum.bin import encode_states
from wenet_osum.config import BatchConfig, CacheConfig, ConfigError, PartConfig, TrainConfig
from wenet_osum.dataset.states import PartWriter
from wenet_osum.train import encode, estimate, loop
from wenet_osum.train.checkpoint import REQUEUE
from wenet_osum.train.loop import train
from wenet_osum.train.run import INTERRUPTED

from .conftest import ROOT

PARTS = {"*lora*": {}, "adapter.*": {"lr": 2e-3}, "speech_boundary.*": {}}


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def settings(tiny, folder, **changes):
    """The tiny run with a frozen encoder and states in float32."""
    cache = {"dir": str(folder / "states"), "dtype": "float32"} | changes.pop("cache", {})
    tree = tiny.tree(train_parts=PARTS, features="encoded", cache=cache)
    tree["batch"] = {"max_frames": 500, "max_tokens": 1500, "window": 2}
    return tree | changes


def conf_of(tiny, folder, **changes):
    return config.from_dict(settings(tiny, folder, **changes))


def losses(exp_dir):
    rows = map(json.loads, (exp_dir / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return {(r["step"], r["split"], r["task"]): r["loss"] for r in rows if r["task"]}


def same_losses(ours, theirs, tolerance=2e-4):
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, loss in ours.items():
        assert loss == pytest.approx(theirs[name], abs=tolerance), name


def log_of(exp_dir):
    return (exp_dir / "train.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    """Three epochs on states, and the folder of them."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert train(conf_of(tiny, folder), folder / "exp") == 0
    return folder


def test_losses_are_those_of_features(tiny, unbroken, tmp_path):
    assert train(conf_of(tiny, tmp_path, features="cpu"), tmp_path / "exp") == 0
    same_losses(losses(unbroken / "exp"), losses(tmp_path / "exp"))
    text = log_of(unbroken / "exp")
    # the two dev lists are one, and some utterances of the corpus are the same sounds
    assert "34 utterances wanted, 10 there; to compute 24," in text


def test_states_are_computed_in_what_the_engine_computes_in(tiny, unbroken, tmp_path, monkeypatch):
    """In bfloat16 as the layers above them; and such states are others than those in float32."""
    seen, add = [], encode._add

    def watched(*given):
        seen.append(torch.is_autocast_enabled("cpu"))
        add(*given)

    monkeypatch.setattr(encode, "_add", watched)
    assert train(conf_of(tiny, tmp_path, dtype="bfloat16"), tmp_path / "exp") == 0
    assert seen and all(seen)
    (ours,) = (tmp_path / "states").iterdir()
    (theirs,) = (unbroken / "states").iterdir()
    assert ours.name != theirs.name
    assert train(conf_of(tiny, tmp_path, dtype="bfloat16", features="cpu"), tmp_path / "direct") == 0
    same_losses(losses(tmp_path / "exp"), losses(tmp_path / "direct"), tolerance=2e-2)


@pytest.mark.parametrize("pad_s", [0, 2])
def test_layers_above_the_states_train(tiny, tmp_path, pad_s, weights_of):
    """After layer 0, with silence behind the speech: 2 s are more than most utterances have."""
    model = tiny.tree()["model"] | {"encoder_conf": {"pad_s": pad_s}}
    parts = PARTS | {"encoder.layers.*": {}}
    how = {"model": model, "train_parts": parts, "cache": {"after": 0}, "max_steps": 4}
    assert train(conf_of(tiny, tmp_path, **how), tmp_path / "a") == 0
    assert train(conf_of(tiny, tmp_path, **how, features="cpu"), tmp_path / "b") == 0
    same_losses(losses(tmp_path / "a"), losses(tmp_path / "b"))
    before, after = weights_of(tmp_path / "a" / "step_00000002"), weights_of(tmp_path / "a" / "final")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(":encoder.layers.0." in name for name in moved)
    assert not any(":encoder.conv" in name for name in moved)


def test_phase_one_trains_its_decoder_on_states(tiny, tmp_path):
    trees = []
    for name in ("encoded", "cpu"):
        tree = tiny.whisper_tree(max_steps=4, features=name)
        tree["train_parts"] = {"decoder.*": {}, "ctc_head.*": {}}
        tree["cache"] = {"dir": str(tmp_path / "states"), "dtype": "float32"}
        trees.append(tree)
        assert train(config.from_dict(tree), tmp_path / name) == 0
    same_losses(losses(tmp_path / "encoded"), losses(tmp_path / "cpu"))


def test_resume_is_bitwise(tiny, unbroken, tmp_path, monkeypatch, weights_of):
    shutil.copytree(unbroken / "states", tmp_path / "states")
    original = loop.take_step

    def take_step(run, batches):
        if run.state.step + 1 == 5:
            raise Killed
        original(run, batches)

    monkeypatch.setattr(loop, "take_step", take_step)
    with pytest.raises(Killed):
        train(conf_of(tiny, tmp_path), tmp_path / "exp")
    monkeypatch.undo()
    assert train(conf_of(tiny, tmp_path), tmp_path / "exp") == 0
    ours, theirs = weights_of(tmp_path / "exp" / "final"), weights_of(unbroken / "exp" / "final")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert losses(tmp_path / "exp") == losses(unbroken / "exp")
    assert log_of(tmp_path / "exp").count("to compute 0,") == 2


def test_an_epoch_may_go_on_without_states(tiny, unbroken, tmp_path):
    """The plan counts frames of the audio either way."""
    shutil.copytree(unbroken / "states", tmp_path / "states")
    assert train(conf_of(tiny, tmp_path, max_steps=2), tmp_path / "exp") == 0
    assert train(conf_of(tiny, tmp_path, features="cpu"), tmp_path / "exp") == 0
    same_losses(losses(tmp_path / "exp"), losses(unbroken / "exp"))
    assert "changed: train.yaml: features: encoded → cpu" in log_of(tmp_path / "exp")


def test_a_kill_while_encoding_costs_one_part(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "PART_BYTES", 5000)
    original, seen = PartWriter.add, []

    def add(self, digest, encoded):
        seen.append(digest)
        if len(seen) == 20:
            raise Killed
        original(self, digest, encoded)

    monkeypatch.setattr(PartWriter, "add", add)
    with pytest.raises(Killed):
        train(conf_of(tiny, tmp_path), tmp_path / "exp")
    monkeypatch.undo()
    assert train(conf_of(tiny, tmp_path, max_steps=2), tmp_path / "exp") == 0
    line = [row for row in log_of(tmp_path / "exp").splitlines() if "to compute" in row][-1]
    left = int(line.split("to compute ")[1].split(",")[0])
    assert 24 - 19 <= left < 24 - 10, line


def test_sigterm_while_encoding_keeps_what_is_there(tiny, tmp_path, monkeypatch):
    original = PartWriter.add

    def add(self, digest, encoded):
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, digest, encoded)

    monkeypatch.setattr(PartWriter, "add", add)
    assert train(conf_of(tiny, tmp_path), tmp_path / "exp") == INTERRUPTED
    monkeypatch.undo()
    assert (tmp_path / "exp" / REQUEUE).exists()
    assert "interrupted while states of the encoder were computed" in log_of(tmp_path / "exp")
    assert train(conf_of(tiny, tmp_path, max_steps=2), tmp_path / "exp") == 0
    assert "to compute 23," in log_of(tmp_path / "exp")


def corpus_of(tiny, folder, count=6):
    """A few utterances of the tiny corpus in files of their own; returns the data yaml and rows."""
    rows = [json.loads(line) for line in tiny.train.read_text(encoding="utf-8").splitlines()][:count]
    for row in rows:
        row["wav"] = shutil.copy(row["wav"], folder)
    listed = folder / "own.list"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"train": [{"name": "own", "list": str(listed), "tasks": {"asr": 1.0}}]}
    (folder / "data.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(folder / "data.yaml"), rows


def test_changed_audio_and_changed_weights_are_computed_again(tiny, tmp_path):
    data, rows = corpus_of(tiny, tmp_path)
    how = {"data": data, "max_steps": 2}
    assert train(conf_of(tiny, tmp_path, **how), tmp_path / "1") == 0
    assert "0 there; to compute 6," in log_of(tmp_path / "1")
    audio, _ = soundfile.read(rows[0]["wav"])
    soundfile.write(rows[0]["wav"], 0.5 * audio, 16000)
    assert train(conf_of(tiny, tmp_path, **how), tmp_path / "2") == 0
    assert "5 there; to compute 1," in log_of(tmp_path / "2")

    # the same model, one weight changed
    shutil.copytree(tiny.folder / "whisper", tmp_path / "whisper")
    from safetensors.torch import load_file, save_file

    path = tmp_path / "whisper" / "model.safetensors"
    weights = load_file(path)
    weights["model.encoder.conv1.bias"][0] += 1e-3
    save_file(weights, path, metadata={"format": "pt"})
    model = tiny.tree()["model"] | {"whisper": str(tmp_path / "whisper")}
    assert train(conf_of(tiny, tmp_path, **how, model=model), tmp_path / "3") == 0
    assert "0 there; to compute 6," in log_of(tmp_path / "3")
    assert len([*(tmp_path / "states").iterdir()]) == 2


def test_audio_that_changes_in_the_middle_of_a_run_is_left_out_and_counted(tiny, tmp_path, monkeypatch):
    data, rows = corpus_of(tiny, tmp_path)
    original = encode.fill

    def fill(*args):
        done = original(*args)
        audio, _ = soundfile.read(rows[0]["wav"])
        soundfile.write(rows[0]["wav"], 0.5 * audio, 16000)
        with open(rows[1]["wav"], "r+b") as file:
            file.truncate(2000)
        return done

    monkeypatch.setattr(encode, "fill", fill)
    conf = conf_of(tiny, tmp_path, data=data, max_epochs=1, max_steps=None)
    assert train(conf, tmp_path / "exp") == 0
    said = log_of(tmp_path / "exp")
    assert "left out so far: audio: cut short 1, states: not on disk 1" in said


AUGMENT = {"speeds": [0.9, 1.1], "gain_db": [-6, 6], "spec_augment": {"max_time": 10}}


def test_variants_are_the_first_epochs_of_the_run_without_states(tiny, tmp_path):
    how = {"augment": AUGMENT, "max_steps": None, "max_epochs": 2, "eval_every": 100}
    assert train(conf_of(tiny, tmp_path, **how, cache={"variants": 2}), tmp_path / "a") == 0
    assert train(conf_of(tiny, tmp_path, **how, features="cpu"), tmp_path / "b") == 0
    same_losses(losses(tmp_path / "a"), losses(tmp_path / "b"))
    assert "58 utterances wanted, 5 there; to compute 53," in log_of(tmp_path / "a")


def test_variants_rotate_by_epoch(tiny, tmp_path):
    from wenet_osum import dist
    from wenet_osum.config import DataConfig
    from wenet_osum.dataset.dataset import Mixture
    from wenet_osum.models import trainable
    from wenet_osum.train.start import open_model

    conf = conf_of(tiny, tmp_path, augment=AUGMENT, cache={"variants": 2})
    model, template = open_model(conf, None)
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    store = encode.open_store(model, conf)
    mixture = Mixture(config.load(conf.data, DataConfig), conf, template, 80, states=store)
    world = dist.start(1)
    try:
        assert encode.fill(store, model.encoder, mixture, [], world, print)
    finally:
        dist.stop()
    heard = []
    for epoch in range(3):
        sums = {}
        for batch in mixture.epoch(epoch):
            rows = zip(batch.keys, batch.features, batch.audio_s, strict=True)
            sums |= {key: (float(row.abs().sum()), seconds) for key, row, seconds in rows}
        heard.append(sums)
    assert len(heard[0]) == 24 and heard[0].keys() == heard[1].keys() == heard[2].keys()
    for key, sums in heard[0].items():
        # Rows of another batch are padded otherwise, and added up in another order.
        assert heard[2][key] == pytest.approx(sums, rel=1e-5)
        assert heard[1][key] != pytest.approx(sums, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"augment": {"speeds": [0.9, 1.0]}}, "augment.speeds would change them in every epoch"),
        ({"augment": {"gain_db": [-3, 3], "spec_augment": {}}}, "augment.gain_db, augment.spec_augment would"),
        ({"augment": {"effects": [{"name": "gain"}]}}, "let cache.variants: n keep n augmented versions"),
        ({"cache": {"variants": 3}}, "cache.variants 3: augment changes nothing"),
        ({"cache": {"variants": 0}}, "cache.variants 0: must be 1 or more"),
        ({"cache": {"after": -1}}, "cache.after -1: must be 0 or more"),
    ],
)
def test_what_does_not_fit_states_is_refused(tiny, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        conf_of(tiny, tmp_path, **changes)


def test_an_encoder_that_trains_is_refused_before_anything_is_computed(tiny, tmp_path):
    conf = conf_of(tiny, tmp_path, train_parts=PARTS | {"encoder.*": {}})
    with pytest.raises(ValueError, match="train_parts 'encoder[.][*]' trains encoder.conv1.weight"):
        train(conf, tmp_path / "exp")
    assert not (tmp_path / "states").exists()


def test_a_full_disk_is_refused_with_a_sentence(tiny, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(ValueError, match="GB are free; make room, set cache.dir to a larger disk"):
        train(conf_of(tiny, tmp_path), tmp_path / "exp")
    assert not [*(tmp_path / "states").glob("*/part-*")]


def test_float16_is_near(tiny, unbroken, tmp_path):
    assert train(conf_of(tiny, tmp_path, cache={"dtype": "float16"}), tmp_path / "exp") == 0
    ours, theirs = losses(tmp_path / "exp"), losses(unbroken / "exp")
    same_losses(ours, theirs, tolerance=2e-2)
    assert ours != theirs


def test_fsdp_and_bfloat16_train_on_states(tiny, tmp_path):
    """Frozen weights are bfloat16 after a resume as before it, so the states are the same ones."""
    how = {"engine": "fsdp", "dtype": "bfloat16", "data": corpus_of(tiny, tmp_path)[0]}
    assert train(conf_of(tiny, tmp_path, **how, max_steps=2), tmp_path / "exp") == 0
    assert train(conf_of(tiny, tmp_path, **how, max_steps=4), tmp_path / "exp") == 0
    said = log_of(tmp_path / "exp")
    assert "to compute 6," in said and "to compute 0," in said


def test_two_processes_share_the_work_by_command(tiny, unbroken, tmp_path):
    tree = settings(tiny, tmp_path)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    command = [sys.executable, "-m", "wenet_osum.bin.encode_states", "--config", str(tmp_path / "train.yaml")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, "--num_jobs", "2"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "to compute" in done.stdout and done.stdout.count("utterances wanted") == 1
    (folder,) = (tmp_path / "states").iterdir()
    (theirs,) = (unbroken / "states").iterdir()
    assert folder.name == theirs.name and len([*folder.glob("part-*")]) == 2
    assert train(conf_of(tiny, tmp_path), tmp_path / "exp") == 0
    assert losses(tmp_path / "exp") == losses(unbroken / "exp"), "states do not depend on who computed them"


def test_the_command_tells_faults(tiny, tmp_path, capsys):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(settings(tiny, tmp_path)), encoding="utf-8")
    assert encode_states.main(["--config", str(path), "--override", "features=cpu"]) == 2
    assert "set features: encoded" in capsys.readouterr().err
    assert encode_states.main(["--config", str(path), "--override", "cache.after=7"]) == 1
    assert "cache.after 7: the encoder has 1 layers" in capsys.readouterr().err


def test_estimate_counts_the_layers_that_run(tiny):
    from ..models.conftest import ADAPTER, llm_config, whisper_config

    conf = TrainConfig(train_parts={"adapter.*": PartConfig()}, batch=BatchConfig(max_frames=6000))
    conf.model.adapter_conf = ADAPTER
    sizes, flops = (whisper_config(), llm_config()), []
    for features, after in (("cpu", None), ("encoded", 0), ("encoded", 1), ("encoded", None)):
        conf.features, conf.cache = features, CacheConfig(after=after)
        flops.append(estimate.estimate(conf, *sizes).flops)
    assert flops == sorted(flops, reverse=True) and len(set(flops)) == 4


def test_the_command_takes_the_models_names_as_train_does(tiny, tmp_path, capsys):
    """In the place of those in the yaml."""
    tree = settings(tiny, tmp_path)
    tree["model"] = tree["model"] | {"whisper": "/nowhere/in/the/yaml", "llm": "/nowhere/in/the/yaml"}
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    command = ["--config", str(path), "--whisper", str(tiny.folder / "whisper")]
    assert encode_states.main([*command, "--llm", "/nowhere/llm"]) == 1
    assert "/nowhere/llm" in capsys.readouterr().err
    assert encode_states.main([*command, "--llm", str(tiny.folder / "llm")]) == 0
    assert [*(tmp_path / "states").glob("*/part-*")]
