"""What the engines hand to the model, and the device a process takes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from wenet_osum import dist
from wenet_osum.models import build, cpu_kernels, trainable
from wenet_osum.records import Batch

ANSWERS = torch.tensor([5, 3, 4])


@pytest.fixture
def alone():
    """A process group of this process only."""
    world = dist.start(1)
    yield world
    dist.stop()


def some_batch() -> Batch:
    """Three utterances whose weights and times bfloat16 does not hold."""
    draw = torch.Generator().manual_seed(0)
    frames, count = torch.tensor([61, 50, 33]), int(ANSWERS.sum())
    features = (
        torch.randn(3, 61, 80, generator=draw) * (torch.arange(61) < frames[:, None])[..., None]
    )
    ids = torch.randint(3, 200, (count,), generator=draw)
    times = 16.0 + 0.01 * torch.arange(2 * count).view(count, 2)
    texts = {
        "prompt_ids": ids[:9],
        "prompt_lengths": torch.tensor([3, 2, 4]),
        "answer_ids": ids,
        "answer_lengths": ANSWERS,
    }
    targets = {
        "transcript_ids": ids,
        "transcript_ids_lengths": ANSWERS,
        "transcript_times": times,
    }
    return Batch(
        keys=["a", "b", "c"],
        tasks=["asr"] * 3,
        features=features,
        feature_lengths=frames,
        **texts,
        answer_weights=torch.full((count,), 0.3),
        targets=targets,
    )


def run(tiny, world, engine: str):
    """Loss through that engine in bfloat16, and the batch that reached the model."""
    conf = tiny.conf(engine=engine, dtype="bfloat16")
    torch.manual_seed(3)
    model = build.build(conf.model)[0]
    runner, seen = dist.Engine(model, conf, world), []
    forward = type(model).forward

    def noting(self, batch):
        seen.append(batch)
        return forward(self, batch)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(model, "forward", noting.__get__(model))
        return runner.loss(some_batch()), seen[0]


def test_weights_and_times_of_targets_reach_every_engine_whole(tiny, alone):
    batch, results = some_batch(), {}
    for engine in ("ddp", "fsdp"):
        results[engine], seen = run(tiny, alone, engine)
        assert (
            torch.equal(seen.answer_weights, batch.answer_weights)
            and seen.answer_weights.dtype == torch.float32
        ), engine
        name = "transcript_times"
        assert torch.equal(seen.targets[name], batch.targets[name]), engine
        assert torch.equal(seen.features, batch.features), engine
        torch.testing.assert_close(
            results[engine].loss, (results[engine].nll * batch.answer_weights).sum()
        )
    assert torch.equal(results["ddp"].weight, results["fsdp"].weight)
    torch.testing.assert_close(results["ddp"].loss, results["fsdp"].loss, rtol=1e-2, atol=0)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_weights_that_an_engine_reads_are_those_of_a_whole_model(tiny, alone, engine):
    conf = tiny.conf(engine=engine, dtype="bfloat16")
    states = []
    for weights_later in (False, True):
        torch.manual_seed(3)
        model = build.build(conf.model, weights_later=weights_later)[0]
        trainable.apply_train_parts(model, conf.train_parts, conf.optim)
        assert bool(model.unread) == weights_later
        states.append(dist.Engine(model, conf, alone).module.state_dict())
    wanted, found = states
    assert wanted.keys() == found.keys()
    dtypes = {found["llm.model.norm.weight"].dtype, found["encoder.conv1.weight"].dtype}
    assert dtypes == {torch.bfloat16, torch.float32}, "frozen, and trained"
    for name, tensor in wanted.items():
        whole = [getattr(x, "full_tensor", lambda x=x: x)() for x in (tensor, found[name])]
        assert whole[0].dtype == whole[1].dtype and torch.equal(*whole), name


def gradients(tiny, world, engine: str) -> torch.Tensor:
    """All gradients of a batch in bfloat16, end to end; no dropout."""
    conf = tiny.conf(engine=engine, dtype="bfloat16")
    torch.manual_seed(3)
    model = build.build(conf.model)[0]
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    runner = dist.Engine(model, conf, world)
    model.eval()
    with runner.accumulating(last=True):
        runner.loss(some_batch()).loss.backward()

    found = []
    for _, parameter in sorted(model.named_parameters()):
        if parameter.grad is not None:
            grad = parameter.grad
            whole = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
            found.append(whole.float().flatten().cpu())
    return torch.cat(found)


@pytest.mark.gpu
def test_fsdp_of_one_device_has_the_gradients_of_the_plain_model(tiny, alone):
    plain = gradients(tiny, alone, "ddp")
    sharded = gradients(tiny, alone, "fsdp")
    error = (sharded - plain).norm() / plain.norm()
    assert plain.norm() > 0 and error < 0.05, f"they differ by {error:.3f} of their norm"


@pytest.mark.gpu
def test_a_micro_batch_has_the_loss_of_its_utterances_alone_in_bfloat16(tiny, alone):
    conf = tiny.conf(dtype="bfloat16")
    torch.manual_seed(3)
    model = build.build(conf.model)[0].eval()
    runner = dist.Engine(model, conf, alone)
    with torch.no_grad():
        together = runner.loss(some_batch()).nll.cpu()
        single = [runner.loss(one).nll.cpu() for one in one_by_one(some_batch())]
    torch.testing.assert_close(together, torch.cat(single), atol=0.05, rtol=0.02)
    assert together.std() > 0.2, "tokens that cost the same would not tell utterances apart"


def one_by_one(batch: Batch) -> list[Batch]:
    """Each utterance of a batch as a batch of its own, without the padding of the others."""
    prompts = batch.prompt_ids.split(batch.prompt_lengths.tolist())
    answers = batch.answer_ids.split(batch.answer_lengths.tolist())
    weights = batch.answer_weights.split(batch.answer_lengths.tolist())
    found = []
    for row, key in enumerate(batch.keys):
        frames = batch.feature_lengths[row : row + 1]
        one = Batch(
            keys=[key],
            tasks=[batch.tasks[row]],
            features=batch.features[row : row + 1, : int(frames)],
            feature_lengths=frames,
            prompt_ids=prompts[row],
            prompt_lengths=batch.prompt_lengths[row : row + 1],
            answer_ids=answers[row],
            answer_lengths=batch.answer_lengths[row : row + 1],
            answer_weights=weights[row],
        )
        found.append(one)
    return found


@pytest.mark.parametrize(("local", "visible", "index"), [(0, 1, 0), (3, 1, 0), (3, 8, 3)])
def test_a_process_takes_the_device_it_sees(monkeypatch, local, visible, index):
    """SLURM may show every task one device alone, whatever its number."""
    shown = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: visible,
        current_accelerator=lambda: torch.device("xpu"),
    )
    monkeypatch.setattr(torch, "accelerator", shown)
    assert dist._device(local) == torch.device("xpu", index)


def test_a_cpu_keeps_few_kernels_unless_the_user_says_otherwise(monkeypatch):
    """One per shape: with a new length in every batch they take gigabytes."""
    monkeypatch.delenv(cpu_kernels.VARIABLE, raising=False)
    dist.start(1)
    dist.stop()
    assert os.environ[cpu_kernels.VARIABLE] == str(cpu_kernels.KERNELS)
    monkeypatch.setenv(cpu_kernels.VARIABLE, "7")
    dist.start(1)
    dist.stop()
    assert os.environ[cpu_kernels.VARIABLE] == "7"
