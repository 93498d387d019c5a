"""Muon: orthogonal updates in float32 on a CPU, the work shared out over processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as torch_dist
from torch.utils._python_dispatch import TorchDispatchMode

from wenet_osum import config
from wenet_osum.records import Utterance, Word
from wenet_osum.small.models import SmallLlm, small_llm
from wenet_osum.small.pseudo_speech import PseudoSpeech
from wenet_osum.small.text_lm import train_text_lm
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template
from wenet_osum.train import muon
from wenet_osum.train.loop import train
from wenet_osum.train.muon import Muon, orthogonalize, share_out

SHAPES = [(12, 30), (30, 12), (16, 16), (12, 30), (5, 7)]
HALF = (torch.bfloat16, torch.float16)


def matrices() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def take_steps(optimizer: torch.optim.Optimizer, count: int = 3) -> None:
    """The same gradients for every optimizer."""
    torch.manual_seed(1)
    for _ in range(count):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn_like(p)
        optimizer.step()


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_stay_and_singular_values_come_near_one(shape):
    """Those far smaller than the largest too."""
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.logspace(0, -1.5, min(shape))
    inside = u.T @ orthogonalize(u @ torch.diag(values) @ vh) @ vh.T
    found = inside.diagonal()
    assert (inside - torch.diag(found)).abs().max() < 1e-4
    assert 0.65 < found.min() <= found.max() < 1.21


def test_a_gradient_of_zeros_moves_nothing():
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_steps_are_those_of_torch_but_for_its_rounding():
    ours, theirs = matrices(), matrices()
    take_steps(Muon([{"params": ours}], lr=1e-2, weight_decay=0.1))
    settings = {"adjust_lr_fn": "match_rms_adamw", "ns_steps": muon.STEPS}
    take_steps(torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, **settings))
    start = matrices()
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.02 * (a - before).norm()


def test_a_matrix_without_a_gradient_stays_as_it_is():
    first, second, *_ = matrices()
    before = second.detach().clone()
    optimizer = Muon([{"params": [first, second]}], lr=1e-2, weight_decay=0.1)
    first.grad = torch.ones_like(first)
    optimizer.step()
    assert torch.equal(second, before) and not optimizer.state[second]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_matrix_goes_to_one_process_and_nobody_has_far_more_to_do(size):
    shapes = [torch.Size(shape) for shape in SHAPES * 4]
    shares = share_out(shapes, size)
    assert sorted(i for share in shares for i in share) == list(range(len(shapes)))
    costs = [min(shape) ** 2 * (2 * max(shape) + min(shape)) for shape in shapes]
    loads = [sum(costs[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs)


def shared_steps(rank: int, size: int, folder: str) -> None:
    """A process among ``size``: notes where its matrices end up, and how many it orthogonalized."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store{size}"
    torch_dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    counted, plain = [], muon.orthogonalize
    muon.orthogonalize = lambda m: counted.append(m.shape) or plain(m)
    params = matrices()
    take_steps(Muon([{"params": params}], lr=1e-2, weight_decay=0.1))
    torch.save(([p.detach() for p in params], len(counted)), f"{folder}/{size}-{rank}")
    torch_dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")
@pytest.mark.parametrize("size", [2, 7])
def test_processes_share_the_work_and_end_with_the_same_matrices(tmp_path: Path, size: int):
    """Also where there are more processes than matrices."""
    alone = matrices()
    take_steps(Muon([{"params": alone}], lr=1e-2, weight_decay=0.1))
    context = multiprocessing.get_context("fork")
    ranks = [(rank, size, str(tmp_path)) for rank in range(size)]
    processes = [context.Process(target=shared_steps, args=args) for args in ranks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [torch.load(tmp_path / f"{size}-{rank}") for rank in range(size)]
    assert sum(count for _, count in found) == 3 * len(SHAPES)
    assert max(count for _, count in found) <= 3 * (len(SHAPES) // 2 + 1)
    for params, _ in found:
        assert all(torch.equal(a, b) for a, b in zip(params, found[0][0], strict=True))
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(params, alone, strict=True))


class Watch(TorchDispatchMode):
    """Notes every operation on half-precision numbers, and counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.half: set[str] = set()
        self.products = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        values = torch.utils._pytree.tree_leaves((args, kwargs, result))
        if any(isinstance(v, torch.Tensor) and v.dtype in HALF for v in values):
            self.half.add(str(function))
        self.products += function.name() in ("aten::mm", "aten::addmm", "aten::bmm")
        return result


def test_a_training_of_the_text_llm_computes_nothing_in_half_precision():
    template = Template(train_tokenizer(["red cat"] * 4, 600))
    words = [Word("red", 0.1, 0.4), Word("cat", 0.4, 0.6)]
    utterance = Utterance("a", "a", "red cat", labels={"gender": "male"}, words=words)
    sizes = SmallLlm(width=32, layers=2, heads=2, kv_heads=2, ffn=32, batch=4)
    model = small_llm(sizes, template.tokenizer)
    with Watch() as watch:
        lines = [*PseudoSpeech([utterance], template, 1).lines(8)]
        train_text_lm(model, lines, sizes, seed=1)
    assert watch.products > 100 and not watch.half


@pytest.mark.parametrize("kind", ["osum", "whisper"])
def test_a_phase_of_training_computes_nothing_in_half_precision(tiny, tmp_path, kind):
    """Forward, backward, both optimizers, rehearsal and dev evaluation."""
    limits = {"max_steps": 2, "eval_every": 2, "optim": {"name": "muon", "warmup_steps": 1}}
    tree = tiny.tree(**limits) if kind == "osum" else tiny.whisper_tree(**limits)
    if kind == "osum":
        tree["model"].pop("lora")
        tree["train_parts"] = {"*": {}}
    with Watch() as watch:
        assert train(config.from_dict(tree), tmp_path) == 0
    assert watch.products > 100 and not watch.half


def test_sharded_matrices_are_refused(tiny):
    with pytest.raises(config.ConfigError, match="needs whole matrices, which engine fsdp cuts"):
        config.from_dict(tiny.tree(engine="fsdp", optim={"name": "muon"}))
