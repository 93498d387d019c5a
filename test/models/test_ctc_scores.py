"""CTC's product in half precision: the numbers of float32, and no copy of the table in float32."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wenet_osum.models.ctc_scores import Scoring
from wenet_osum.models.losses import ctc
from wenet_osum.models.objective import Speech

VOCABULARY, WIDTH, ROWS, STATES, BLANK = 300, 16, 2, 12, 0


class Shapes(TorchDispatchMode):
    """Notes what is as large as the table, by dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and sorted(leaf.shape) == [WIDTH, VOCABULARY]:
                self.tables.add(leaf.dtype)
        return found


def table_of(trained: bool) -> torch.Tensor:
    """A frozen table lies in bfloat16, a trained one in float32."""
    draw = torch.Generator().manual_seed(1)
    table = 0.1 * torch.randn(VOCABULARY, WIDTH, generator=draw)
    table = table.bfloat16()
    return table.float().requires_grad_() if trained else table


def run(table, states, half: bool, **keys):
    """Losses of two transcripts, and the gradient of the states."""
    states = states.clone().requires_grad_()
    speech = Speech(states, torch.tensor([STATES, 9]), 0.08, lambda: None, BLANK, table)
    targets = {
        "transcript_ids": torch.tensor([3, 3, 7, 5, 250]),
        "transcript_ids_lengths": torch.tensor([3, 2]),
    }
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        values = ctc.Loss(None, **keys)(speech, targets).values
    (gradient,) = torch.autograd.grad(values.sum(), states)
    return values.detach(), gradient


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("keys", [{}, {"scores": "distance"}, {"commitment": 0.5}])
def test_half_precision_gives_the_numbers_of_float32(keys, trained):
    table = table_of(trained)
    draw = torch.Generator().manual_seed(2)
    states = 0.1 * torch.randn(ROWS, STATES, WIDTH, generator=draw)
    with Shapes() as shapes:
        values, gradient = run(table, states, True, **keys)
    whole, wanted = run(table.detach().float(), states, False, **keys)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, whole, rtol=0.01, atol=0.05)
    error = (gradient - wanted).norm() / wanted.norm()
    assert 0 < error < 0.02, "half precision rounds, and no more than that"
    assert shapes.tables <= {torch.bfloat16} or trained


def test_a_cpu_decodes_in_float32():
    """It is slow in half precision; what is decoded on it is what was, whatever autocast does around it."""
    table = table_of(False)
    states = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(3))
    compared = Scoring().over(table, BLANK)
    wanted = compared.states(states) @ table.float().T
    assert torch.equal(compared.logits(states), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        half = compared.logits(states)
        assert half.dtype == torch.bfloat16 and not torch.equal(half.argmax(-1), wanted.argmax(-1))
        assert torch.equal(compared.best(states), wanted.argmax(-1))


def test_which_transcripts_are_impossible_is_what_torch_finds():
    """Counted from lengths and repeats, not read off the losses."""
    draw = torch.Generator().manual_seed(3)
    for _ in range(20):
        sizes = torch.randint(0, 7, (4,), generator=draw)
        ids = torch.randint(1, 3, (int(sizes.sum()),), generator=draw)
        lengths = torch.randint(1, 9, (4,), generator=draw)
        logs = torch.randn(4, 8, 3, generator=draw).log_softmax(-1)
        given = (logs.transpose(0, 1), ids, lengths, sizes)
        infinite = torch.nn.functional.ctc_loss(*given, blank=0, reduction="none").isinf()
        losses, impossible = ctc._torch_losses(logs, lengths, ids, sizes, 0)
        assert torch.equal(impossible, infinite)
        assert bool((losses[infinite] == 0).all()) and bool(losses.isfinite().all())
