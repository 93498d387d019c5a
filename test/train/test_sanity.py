from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wenet_osum.config import PartConfig
from wenet_osum.records import Batch
from wenet_osum.train import run
from wenet_osum.train.checkpoint import State
from wenet_osum.train.sanity import SanityChecks, fingerprint
from wenet_osum.train.unfreeze import still_frozen

END = 9


def batch(answers: list[list[int]], weights: list[float] | None = None, tasks: list[str] | None = None) -> Batch:
    count, ids = len(answers), [i for answer in answers for i in answer]
    return Batch(
        keys=[f"k{i}" for i in range(count)],
        tasks=tasks or ["<TRANSCRIBE>"] * count,
        features=torch.zeros(count, 4, 2),
        feature_lengths=torch.full((count,), 4),
        prompt_ids=torch.zeros(0, dtype=torch.int64),
        prompt_lengths=torch.zeros(count, dtype=torch.int64),
        answer_ids=torch.tensor(ids),
        answer_lengths=torch.tensor([len(answer) for answer in answers]),
        answer_weights=torch.tensor(weights or [1.0] * len(ids)),
    )


@pytest.fixture
def model():
    return nn.ModuleDict({"frozen": nn.Linear(3, 3), "trained": nn.Linear(3, 3)})


def checks_of(model) -> SanityChecks:
    return SanityChecks(model, {"trained.weight": "trained.*", "trained.bias": "trained.*"}, END)


def outcome(checks: SanityChecks, promised: list[str], whole_epoch: bool = True) -> dict[str, bool]:
    return {check.name: check.passed for check in checks.judge(lambda value: [value], 1, promised, whole_epoch)}


def change(tensor: torch.Tensor) -> None:
    with torch.no_grad():
        tensor.view(-1)[0] += 1e-6


def test_all_pass_when_all_is_well(model):
    checks = checks_of(model)
    checks.watch(batch([[1, 2, END], [3, END]]))
    change(model["trained"].weight)
    assert outcome(checks, ["<TRANSCRIBE>"]) == {"frozen": True, "trained": True, "tasks": True, "end": True}


def test_a_changed_frozen_tensor_fails(model):
    checks = checks_of(model)
    change(model["frozen"].bias)
    change(model["trained"].weight)
    found = {check.name: check for check in checks.judge(lambda value: [value], 1, [], True)}
    assert not found["frozen"].passed and "frozen.bias" in found["frozen"].text
    assert found["trained"].passed


def test_an_unchanged_part_fails(model):
    assert not outcome(checks_of(model), [])["trained"]


@pytest.mark.parametrize("answers", [[[1, 2]], [[1, END, END]], [[END, 1]], [[1, END], [2]]])
def test_end_of_text_must_stand_once_and_last(model, answers):
    checks = checks_of(model)
    checks.watch(batch(answers))
    assert not outcome(checks, [])["end"]


def test_end_of_text_must_carry_loss(model):
    checks = checks_of(model)
    checks.watch(batch([[1, END]], weights=[1.0, 0.0]))
    assert not outcome(checks, [])["end"]


def test_a_task_without_loss_tokens_fails_after_an_epoch(model):
    checks = checks_of(model)
    checks.watch(batch([[1, END], [END]], weights=[1.0, 1.0, 1.0], tasks=["<TRANSCRIBE>", "<AGE>"]))
    assert not outcome(checks, ["<TRANSCRIBE>", "<GENDER>"])["tasks"]
    assert outcome(checks, ["<TRANSCRIBE>", "<GENDER>"], whole_epoch=False)["tasks"]


def test_fillers_are_not_watched(model):
    checks = checks_of(model)
    checks.watch(dataclasses.replace(batch([[1, 2]]), filler=True))
    assert checks.answers == 0 and not checks.bad_ends


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.int64, torch.uint8])
def test_fingerprint_sees_value_place_and_size(dtype):
    a = torch.tensor([0, 1, 0, 1, 1]).to(dtype)
    assert fingerprint(a) == fingerprint(a.clone())
    assert len({fingerprint(a), fingerprint(a.flip(0)), fingerprint(a[:4]), fingerprint(torch.zeros_like(a))}) == 4
    assert fingerprint(a[::2]) == fingerprint(a[::2].contiguous())


def test_a_part_that_has_not_begun_may_stand_still(model):
    """As when patience ends a run before ``unfreeze`` lets it train."""
    late = still_frozen({"trained.*": PartConfig(unfreeze=0.5), "other.*": PartConfig()}, 40, 100)
    assert late == {"trained.*"} and still_frozen({"trained.*": PartConfig(unfreeze=0.5)}, 51, 100) == set()
    for parts, passed in ((set(checks_of(model).part_of.values()), True), (set(), False)):
        found = checks_of(model).judge(lambda value: [value], 1, [], False, parts)
        assert {check.name: check.passed for check in found}["trained"] == passed


def test_a_first_dev_loss_that_is_no_number_is_not_the_best():
    state = State()
    for step, loss in ((1, math.nan), (2, 2.0), (3, 1.0), (4, math.nan)):
        state.step = step
        state.note_dev({"asr": loss})
    assert (state.best_step, state.best_loss, state.stale) == (3, 1.0, 1)


def test_the_last_line_is_written_by_all_processes_or_none(monkeypatch):
    """It gathers from all: one that read fillers alone since the last line takes part."""
    lines = []
    monkeypatch.setattr(run.run_log, "progress_line", lambda one, stats: lines.append(stats))
    for logged, written in ((4, 1), (5, 0)):
        lines.clear()
        ending = SimpleNamespace(state=State(step=5), interrupted=True, collect_stats=dict, reached_limit=lambda: None)
        ending.meter = SimpleNamespace(padded=0, since=logged)
        ending.save, ending.requeue, ending.progress = lambda: None, lambda where: 85, SimpleNamespace(close=lambda: None)
        assert run.Run.finish(ending) == 85 and len(lines) == written
