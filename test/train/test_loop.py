from __future__ import annotations

import json
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

from wenet_osum import lock
from wenet_osum.models import build
from wenet_osum.train import checkpoint, loop
from wenet_osum.train import run as run_module
from wenet_osum.train.checkpoint import REQUEUE, STOP
from wenet_osum.train.loop import train
from wenet_osum.train.run import INTERRUPTED, SANITY_FAILED


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@pytest.fixture
def die_at(monkeypatch):
    """Let the run die in a step, before the step has done anything."""
    original = loop.take_step

    def arm(step: int) -> None:
        def take_step(run, batches):
            if run.state.step + 1 == step:
                raise Killed
            original(run, batches)

        monkeypatch.setattr(loop, "take_step", take_step)

    yield arm


@pytest.fixture(scope="session")
def unbroken(tiny):
    assert train(tiny.conf(), tiny.folder / "unbroken") == 0
    return tiny.folder / "unbroken"


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(exp_dir) -> list[tuple]:
    rows = map(json.loads, (exp_dir / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [(r["step"], r["split"], r["task"], r["loss"], r["acc"]) for r in rows if r["task"]]


def test_a_run_leaves_complete_folders_and_curves(tiny, unbroken, weights_of):
    assert [p.name for p in checkpoint.complete(unbroken)] == ["step_00000002", "step_00000004", "step_00000006"]
    for name in ("train.yaml", "data.yaml", "state.json", "trainer", "config.json", "text.json", "tokenizer.json", "lora", "DONE"):
        assert (unbroken / "step_00000006" / name).exists(), name
    assert not (unbroken / "final" / "trainer").exists()
    assert same(weights_of(unbroken / "final"), weights_of(unbroken / "step_00000006"))
    assert build.load(unbroken / "final").lora is not None
    rows = losses(unbroken)
    assert {row[:3] for row in rows} >= {(1, "train", "asr"), (1, "train", "sgc"), (2, "dev", "asr"), (6, "dev", "sgc")}
    text = (unbroken / "train.log").read_text(encoding="utf-8")
    for part in ("rehearsal: ", "hours as planned", *(f"sanity {name:8s} passed" for name in ("frozen", "trained", "tasks", "end"))):
        assert part in text


def test_resume_is_bitwise(tiny, unbroken, tmp_path, die_at, monkeypatch, weights_of):
    die_at(6)
    with pytest.raises(Killed):
        train(tiny.conf(), tmp_path)
    monkeypatch.undo()
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step_00000002", "step_00000004"]
    assert train(tiny.conf(), tmp_path) == 0
    assert same(weights_of(tmp_path / "final"), weights_of(unbroken / "final"))
    assert losses(tmp_path) == losses(unbroken)


def test_phase_one_resumes_bitwise_too(tiny, tmp_path, die_at, monkeypatch, weights_of):
    from wenet_osum import config

    conf = config.from_dict(tiny.whisper_tree(max_steps=4))
    assert train(conf, tmp_path / "a") == 0
    die_at(4)
    with pytest.raises(Killed):
        train(conf, tmp_path / "b")
    monkeypatch.undo()
    assert train(conf, tmp_path / "b") == 0
    assert same(weights_of(tmp_path / "a" / "final"), weights_of(tmp_path / "b" / "final"))


@pytest.mark.parametrize("moment", ["dcp", "publish"])
def test_a_kill_inside_a_checkpoint_costs_only_that_one(tiny, unbroken, tmp_path, monkeypatch, weights_of, moment):
    def die(*args, **kwargs):
        if "00000004" in str(args[0] if moment == "publish" else kwargs["checkpoint_id"]):
            raise Killed
        return original(*args, **kwargs)

    place = (checkpoint, "publish") if moment == "publish" else (checkpoint.dcp, "save")
    original = getattr(*place)
    monkeypatch.setattr(*place, die)
    with pytest.raises(Killed):
        train(tiny.conf(), tmp_path)
    monkeypatch.undo()
    assert (tmp_path / ".step_00000004.tmp").is_dir()
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step_00000002"]
    assert train(tiny.conf(), tmp_path) == 0
    assert not list(tmp_path.glob(".*.tmp"))
    assert same(weights_of(tmp_path / "final"), weights_of(unbroken / "final"))


def test_a_folder_without_done_is_not_resumed_from(tiny, unbroken, tmp_path, weights_of):
    shutil.copytree(unbroken / "step_00000004", tmp_path / "step_00000004")
    shutil.copytree(unbroken / "step_00000006", tmp_path / "step_00000006", ignore=shutil.ignore_patterns("DONE", "model.safetensors"))
    assert train(tiny.conf(), tmp_path) == 0
    assert same(weights_of(tmp_path / "step_00000006"), weights_of(unbroken / "step_00000006"))


def test_one_big_batch_equals_many_small_ones(tiny, tmp_path, weights_of):
    """eps 1 makes AdamW's step proportional to the gradient, so that weights compare gradients."""
    results = []
    for name, size, accumulation in (("big", 24, 1), ("small", 3, 8)):
        conf = tiny.conf(max_steps=2, eval_every=9, rehearsal=False)
        conf.optim.eps, conf.optim.lr, conf.optim.accumulation, conf.optim.clip, conf.optim.warmup_steps = 1.0, 1.0, accumulation, 1e9, 0
        conf.batch.max_frames, conf.batch.max_tokens, conf.batch.max_utterances = 10**6, 10**6, size
        conf.model.adapter_conf["dropout"] = conf.model.lora.dropout = 0.0
        conf.train_parts["adapter.*"].lr = 1.0
        assert train(conf, tmp_path / name) == 0
        results.append(weights_of(tmp_path / name / "final"))
    start = weights_of(tiny.folder / "whisper")["model.safetensors:model.encoder.conv1.weight"]
    assert (results[0]["model.safetensors:encoder.conv1.weight"] - start).abs().max() > 1e-4, "nothing was learned"
    # A step of rate 1 adds gradients up in another order: a few roundings of a number around 1.
    big, small = results
    for name in big:
        size = max(1.0, float(big[name].abs().max()))
        bound = 16 * torch.finfo(torch.float32).eps * size
        assert (big[name] - small[name]).abs().max() < bound, name


@pytest.mark.parametrize("ask", [lambda exp: os.kill(os.getpid(), signal.SIGUSR1), lambda exp: (exp / STOP).touch()], ids=["signal", "file"])
def test_who_asks_to_stop_gets_a_checkpoint_and_can_go_on(ask, tiny, unbroken, tmp_path, monkeypatch, weights_of):
    original = loop.take_step

    def take_step(run, batches):
        if run.state.step == 2:
            ask(tmp_path)
        original(run, batches)

    monkeypatch.setattr(loop, "take_step", take_step)
    assert train(tiny.conf(), tmp_path) == INTERRUPTED == 85
    monkeypatch.undo()
    assert (tmp_path / REQUEUE).exists() and (tmp_path / "step_00000003" / "DONE").exists()
    assert train(tiny.conf(), tmp_path) == 0
    assert not (tmp_path / REQUEUE).exists() and not (tmp_path / STOP).exists()
    assert same(weights_of(tmp_path / "final"), weights_of(unbroken / "final"))


def test_a_stop_in_a_step_to_be_evaluated_leaves_the_same_curve(tiny, unbroken, tmp_path, monkeypatch, weights_of):
    original = loop.take_step

    def take_step(run, batches):
        if run.state.step == 3:
            (tmp_path / STOP).touch()
        original(run, batches)

    monkeypatch.setattr(loop, "take_step", take_step)
    assert train(tiny.conf(), tmp_path) == INTERRUPTED
    monkeypatch.undo()
    stopped = tmp_path / "step_00000004"
    assert checkpoint.read_state(stopped).dev == {}
    assert train(tiny.conf(), tmp_path) == 0
    assert losses(tmp_path) == losses(unbroken)
    states = [checkpoint.read_state(folder / "step_00000004") for folder in (tmp_path, unbroken)]
    assert states[0].dev == states[1].dev and states[0].best_step == states[1].best_step
    assert same(weights_of(tmp_path / "final"), weights_of(unbroken / "final"))


def test_a_second_run_in_the_same_folder_is_refused(tiny, tmp_path):
    with lock.held(tmp_path), pytest.raises(ValueError, match="is being written by process"):
        train(tiny.conf(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_stays_and_a_raised_limit_goes_on(tiny, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "x")
    (tmp_path / "x" / "final" / "average.json").write_text("{}")
    assert train(tiny.conf(), tmp_path / "x") == 0
    assert (tmp_path / "x" / "final" / "average.json").exists(), "an averaged final must not be replaced"
    assert train(tiny.conf(max_steps=7), tmp_path / "x") == 0
    assert checkpoint.complete(tmp_path / "x")[-1].name == "step_00000007"
    assert len(checkpoint.complete(tmp_path / "x")) <= 3 + 1


def test_epochs_and_patience_end_a_run(tiny, tmp_path, monkeypatch):
    assert train(tiny.conf(max_steps=None, max_epochs=1, eval_every=100), tmp_path / "epochs") == 0
    state = checkpoint.read_state(checkpoint.complete(tmp_path / "epochs")[-1])
    assert state.epoch == 1 and state.step == state.total_steps
    scores = iter([3.0, 1.0, 2.0, 2.0])
    monkeypatch.setattr(run_module, "evaluate", lambda *_: {"asr": {"loss": next(scores), "acc": 0.0, "tokens": 1.0}})
    assert train(tiny.conf(max_steps=50, eval_every=1, patience=2, keep=1), tmp_path / "patience") == 0
    assert [p.name for p in checkpoint.complete(tmp_path / "patience")] == ["step_00000002", "step_00000004"], "the best is kept"
    state = json.loads((tmp_path / "patience" / "final" / "state.json").read_text())
    assert state["step"] == 2, "final is the best one when patience ended the run"


def test_a_failed_sanity_check_leaves_no_final(tiny, tmp_path, monkeypatch):
    original = loop.take_step

    def take_step(run, batches):
        original(run, batches)
        with torch.no_grad():
            next(p for p in run.model.parameters() if not p.requires_grad).add_(1e-3)

    monkeypatch.setattr(loop, "take_step", take_step)
    assert train(tiny.conf(max_steps=2), tmp_path) == SANITY_FAILED
    assert "sanity frozen   FAILED" in (tmp_path / "train.log").read_text(encoding="utf-8")
    assert not (tmp_path / "final").exists()


def test_steps_without_a_finite_gradient_are_left_out_and_end_the_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.dist.Engine, "clip", lambda self, largest: float("nan"))
    with pytest.raises(ValueError, match="20 steps in a row had gradient norm nan"):
        train(tiny.conf(max_steps=50, eval_every=100), tmp_path)


def test_other_parts_cannot_resume(tiny, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "x")
    with pytest.raises(ValueError, match="other train_parts"):
        train(tiny.conf(train_parts={"adapter.*": {}}, max_steps=8), tmp_path / "x")


def test_fsdp_of_one_process_equals_ddp_and_resumes_bitwise(tiny, unbroken, tmp_path, die_at, monkeypatch, weights_of):
    assert train(tiny.conf(engine="fsdp"), tmp_path / "a") == 0
    theirs, ours = weights_of(unbroken / "final"), weights_of(tmp_path / "a" / "final")
    assert theirs.keys() == ours.keys() and max((theirs[n] - ours[n]).abs().max() for n in theirs) < 1e-5
    die_at(6)
    with pytest.raises(Killed):
        train(tiny.conf(engine="fsdp"), tmp_path / "b")
    monkeypatch.undo()
    assert train(tiny.conf(engine="fsdp"), tmp_path / "b") == 0
    assert same(weights_of(tmp_path / "b" / "final"), ours)


def test_fine_tuning_begins_from_a_finished_model(tiny, unbroken, tmp_path, weights_of):
    """As examples/osum's finetune.yaml: adapter and the LoRA it has; everything else stays as it was."""
    conf = tiny.conf(model={"init_from": str(unbroken / "final")}, train_parts={"adapter.*": {}, "*lora*": {}}, max_steps=2)
    assert train(conf, tmp_path) == 0
    before, after = weights_of(unbroken / "final"), weights_of(tmp_path / "final")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed
    assert all("lora" in name or ":adapter." in name for name in changed)
    assert any("lora" in name for name in changed) and any(":adapter." in name for name in changed)


def test_the_whole_llm_trains(tiny, tmp_path, weights_of):
    tree = tiny.tree(max_steps=2, train_parts={"adapter.*": {}, "llm.*": {"lr": 1e-4}})
    del tree["model"]["lora"]
    from wenet_osum import config

    assert train(config.from_dict(tree), tmp_path) == 0
    start, end = weights_of(tiny.folder / "llm"), weights_of(tmp_path / "final")
    moved = [n for n in start if not torch.equal(start[n], end[n.replace("model.safetensors:", "model.safetensors:llm.")])]
    assert len(moved) == len(start), "every tensor of the LLM"


def test_features_made_on_the_device_train_alike(tiny, unbroken, tmp_path):
    assert train(tiny.conf(features="device"), tmp_path) == 0
    for ours, theirs in zip(losses(tmp_path), losses(unbroken), strict=True):
        assert ours[:3] == theirs[:3] and ours[3] == pytest.approx(theirs[3], abs=1e-3)


def test_what_is_left_out_is_counted_by_reason_in_log_and_tensorboard(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = [json.loads(line) for line in tiny.train.read_text(encoding="utf-8").splitlines()]
    broken = tmp_path / "broken.wav"
    with open(rows[0]["wav"], "rb") as whole:
        broken.write_bytes(whole.read(2000))
    rows[0] |= {"wav": str(broken), "duration": 0.5}  # its header is fine: it falls out while training
    rows[1]["duration"] = 31.0  # the plan leaves it out
    rows[2]["txt"] = 200 * rows[2]["txt"]  # so it does with a target as long as this
    (tmp_path / "l").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = tiny.write("left_out.yaml", {"train": [{"name": "some", "list": str(tmp_path / "l"), "tasks": {"asr": 1.0}}]})
    conf = tiny.conf(data=str(data), filter={"max_target_tokens": {"asr": 60}}, max_steps=None, max_epochs=1)
    assert train(conf, tmp_path / "x") == 0
    text = (tmp_path / "x" / "train.log").read_text(encoding="utf-8")
    assert "1  some: longer than 30.0 s" in text and "left out so far: audio: cut short 1" in text
    beforehand, first_step, _ = text.partition("step 1/")
    assert first_step and "targets too long, as estimated by list/task: some/asr 4.3 % of 23 over 60 tokens" in beforehand
    assert "1  some: target for asr longer than 60 tokens, as estimated" in beforehand
    board = EventAccumulator(str(tmp_path / "x" / "tensorboard"))
    board.Reload()
    assert board.Scalars("utterances left out/some: longer than 30.0 s")[-1].value == 1
    assert board.Scalars("dropped/audio: cut short")[-1].value == 1


def test_a_step_that_is_left_out_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    original, left, bad = loop.take_step, [], []

    def take_step(run, batches):
        original(run, batches)
        left.extend(name for name, p in run.model.named_parameters() if p.grad is not None)
        bad.append(run.bad_steps)

    norms = iter([float("nan"), float("nan"), 1.0, float("nan"), 1.0, 1.0])
    monkeypatch.setattr(loop, "take_step", take_step)
    monkeypatch.setattr(loop.dist.Engine, "clip", lambda self, largest: next(norms))
    assert train(tiny.conf(max_steps=6, eval_every=100), tmp_path) == 0
    assert not left and bad == [1, 2, 0, 1, 0, 0]


def test_gradients_are_clipped_as_asked_and_each_step_draws_anew(tiny, tmp_path, monkeypatch):
    clip, seed = loop.dist.Engine.clip, loop.seed_everything
    norms, seeds = [], []

    def clipped(self, largest):
        before = clip(self, largest)
        gradients = [p.grad.flatten() for p in self.module.parameters() if p.grad is not None]
        norms.append((before, float(torch.cat(gradients).norm())))
        return before

    monkeypatch.setattr(loop.dist.Engine, "clip", clipped)
    monkeypatch.setattr(loop, "seed_everything", lambda *given: seeds.append(given) or seed(*given))
    conf = tiny.conf(max_steps=3, eval_every=100, rehearsal=False)
    conf.optim.clip = 1e-3
    assert train(conf, tmp_path) == 0
    assert all(before > 1e-3 and after == pytest.approx(1e-3, rel=1e-3) for before, after in norms)
    assert seeds == [(conf.seed, step, 0) for step in (1, 2, 3)]


def test_a_step_weighs_its_tokens_and_no_filler(monkeypatch):
    monkeypatch.setattr(run_module.dist, "sum_over_ranks", lambda own: own)
    batch = SimpleNamespace(filler=False, answer_weights=torch.tensor([2.0, 0.5, 0.0]), audio_s=[1.0, 3.0])
    nobody = SimpleNamespace(filler=True, answer_weights=torch.tensor([1.0]), audio_s=[0.5])
    here = SimpleNamespace(start_seconds=0.0, start_time=0.0, world=SimpleNamespace(is_rank_zero=True), interrupt=SimpleNamespace(seen=False))
    totals = run_module.Run.sum_step(here, [batch, nobody])
    assert (totals.loss_weight, totals.audio_s) == (2.5, 4.0)


def test_audio_adds_up_over_steps(unbroken):
    heard = [checkpoint.read_state(folder).audio_s for folder in checkpoint.complete(unbroken)]
    assert heard[1] > 1.4 * heard[0] and heard[2] > 1.2 * heard[1]


def test_hours_are_hours():
    limits = SimpleNamespace(max_steps=None, max_epochs=None, max_hours=2.0, patience=None)
    reached = [
        run_module.Run.reached_limit(SimpleNamespace(conf=limits, state=checkpoint.State(seconds=seconds)))
        for seconds in (7199.0, 7200.0)
    ]
    assert reached == [None, "max_hours 2.0"]
