"""Muon: the update of a matrix is its momentum made orthogonal.

The method is of Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural networks";
the size of the update, which lets it share AdamW's learning rates and weight decay, is of Liu et
al., 2025, "Muon is scalable for LLM training" (arXiv 2502.16982). torch.optim.Muon does the same,
in bfloat16 on every device and for every matrix in every process. Most CPUs have no matrix product
for bfloat16, so there the arithmetic is float32; and processes, which hold the same gradients,
share the matrices out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import Tensor

MOMENTUM = 0.95
# Four times x → ax + bx³ + cx⁵ bring every singular value from 0.006 to 1 to between 0.65 and 1.2.
# A fifth time, which is usual, would do so from 0.002 on, and costs a quarter more.
STEPS = 4
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
RMS = 0.2  # of an update's entries, before the learning rate: about AdamW's


class Muon(torch.optim.Optimizer):
    """Muon over whole matrices, whose gradients must be the same in all processes."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Update all matrices that have a gradient."""
        moved = [(p, group) for group in self.param_groups for p in group["params"]]
        moved = [(p, group) for p, group in moved if p.grad is not None]
        updates = orthogonalize_shared([self._direction(p) for p, _ in moved])
        for (p, group), update in zip(moved, updates, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update, alpha=-group["lr"] * RMS * max(p.shape) ** 0.5)

    def _direction(self, p: Tensor) -> Tensor:
        """Add the gradient to the momentum, and look a step ahead (Nesterov)."""
        state = self.state[p]
        if not state:
            state.update(self.fresh_state(p))
        momentum = state["momentum_buffer"].lerp_(p.grad, 1 - MOMENTUM)
        return p.grad.lerp(momentum, MOMENTUM)

    @staticmethod
    def fresh_state(p: Tensor) -> dict[str, Tensor]:
        """Make the state a matrix starts from."""
        return {"momentum_buffer": torch.zeros_like(p)}


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring all singular values of ``matrix`` near 1, by the Newton-Schulz iteration.

    The arithmetic is float32 on a CPU, else bfloat16: the method does not mind rough numbers.
    Matrices of one shape in one batched product take as long as one after the other on a CPU.
    """
    a, b, c = COEFFICIENTS
    upright = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.float32 if matrix.device.type == "cpu" else torch.bfloat16)

    # The smaller of the two Gram matrices is the cheaper one.
    x = x.T if upright else x

    # No singular value is larger than the Frobenius norm.
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if upright else x


def orthogonalize_shared(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalize ``matrices``, which all processes hold alike, each in one process alone.

    Every process returns all results, bit for bit the same.
    """
    size = torch_dist.get_world_size() if torch_dist.is_initialized() else 1
    if size == 1 or not matrices:
        return [orthogonalize(m) for m in matrices]

    # The results of one process lie side by side, to be sent in one piece.
    shares = share_out([m.shape for m in matrices], size)
    results = list(matrices)
    pieces = [torch.cat([matrices[i].flatten() for i in share]) for share in shares if share]
    for share, piece in zip(shares, pieces, strict=False):
        for i, part in zip(share, piece.split([matrices[i].numel() for i in share]), strict=True):
            results[i] = part.view_as(matrices[i])

    # Each process fills its own and gets the others.
    for i in shares[torch_dist.get_rank()]:
        results[i].copy_(orthogonalize(matrices[i]))
    sent = [torch_dist.broadcast(p, owner, async_op=True) for owner, p in enumerate(pieces)]
    for exchange in sent:
        exchange.wait()
    return results


def share_out(shapes: Sequence[torch.Size], size: int) -> list[list[int]]:
    """Deal matrices to ``size`` processes, the dearest first, each to the one with least to do.

    Returns the places in ``shapes`` of the matrices of each process.
    """
    costs = [min(shape) ** 2 * (2 * max(shape) + min(shape)) for shape in shapes]
    shares: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    for i in sorted(range(len(shapes)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += costs[i]
    return shares
