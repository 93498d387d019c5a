"""Muon: the update of a matrix is its momentum made orthogonal.

The method is that of Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural
networks". The size of the update, which lets Muon share AdamW's learning rates and weight decay,
is that of Liu et al., 2025, "Muon is scalable for LLM training" (arXiv 2502.16982).

torch.optim.Muon does the same in bfloat16 on every device, and for every matrix in every process.
Here the arithmetic is float32 on a CPU, since most CPUs have no matrix product for bfloat16; and
processes, which hold the same gradients, share the matrices out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import Tensor

# Share of the old momentum that a step keeps.
MOMENTUM = 0.95
# Four times x → ax + bx³ + cx⁵ bring every singular value from 0.006 to 1 to between 0.65 and 1.2.
# A fifth time, which is usual, would do so from 0.002 on, and costs a quarter more.
STEPS = 4
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Root mean square of an update's entries before the learning rate: about that of AdamW.
RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon over whole matrices, whose gradients must be the same in all processes."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Update all matrices that have a gradient."""
        moved, directions = [], []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    moved.append((p, group))
                    directions.append(self._direction(p))
        updates = orthogonalize_shared(directions)

        # Weight decay is decoupled from the gradient, as in AdamW. An orthogonal matrix has
        # entries of 1 / √(longer side), so the scale brings them to RMS (Liu et al.).
        for (p, group), update in zip(moved, updates, strict=True):
            lr = group["lr"]
            p.mul_(1 - lr * group["weight_decay"])
            longer = max(p.shape)
            p.add_(update, alpha=-lr * RMS * longer**0.5)

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

    Returns a matrix of the same shape, in float32 on a CPU and in bfloat16 elsewhere: the method
    does not mind rough numbers.
    """
    # Matrices are taken one by one: on a CPU a batched product of equal shapes is no faster.
    a, b, c = COEFFICIENTS
    on_cpu = matrix.device.type == "cpu"
    x = matrix.to(torch.float32 if on_cpu else torch.bfloat16)

    # Of the two Gram matrices, x xᵀ and xᵀ x, the smaller one is cheaper.
    rows, columns = matrix.shape
    upright = rows > columns
    if upright:
        x = x.T

    # No singular value is larger than the Frobenius norm, so all of them are at most 1 from here.
    norm = x.norm()
    x = x / norm.clamp(min=1e-7)

    # x ← a x + b (x xᵀ) x + c (x xᵀ)² x moves each singular value along the polynomial.
    for _ in range(STEPS):
        gram = x @ x.T
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, factor, x, beta=a)
    return x.T if upright else x


def orthogonalize_shared(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Orthogonalize ``matrices``, which all processes hold alike, each matrix in one process.

    Every process returns all results, bit for bit the same.
    """
    size = torch_dist.get_world_size() if torch_dist.is_initialized() else 1
    if size == 1 or not matrices:
        return [orthogonalize(matrix) for matrix in matrices]

    # The results of one process lie side by side in one buffer, which is sent in one piece.
    # Costly matrices are dealt first, so the processes without any come last.
    shares = share_out([matrix.shape for matrix in matrices], size)
    results = list(matrices)
    buffers = []
    for share in shares:
        if share:
            buffer, views = _side_by_side([matrices[i] for i in share])
            buffers.append(buffer)
            for i, view in zip(share, views, strict=True):
                results[i] = view

    # Each process fills its own buffer and receives the others.
    for i in shares[torch_dist.get_rank()]:
        results[i].copy_(orthogonalize(matrices[i]))
    exchanges = []
    for owner, buffer in enumerate(buffers):
        exchanges.append(torch_dist.broadcast(buffer, owner, async_op=True))
    for exchange in exchanges:
        exchange.wait()
    return results


def _side_by_side(matrices: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Copy ``matrices`` into one flat buffer; returns the buffer and a view of it per matrix."""
    buffer = torch.cat([matrix.flatten() for matrix in matrices])
    parts = buffer.split([matrix.numel() for matrix in matrices])
    views = []
    for matrix, part in zip(matrices, parts, strict=True):
        views.append(part.view_as(matrix))
    return buffer, views


def share_out(shapes: Sequence[torch.Size], size: int) -> list[list[int]]:
    """Deal matrices to ``size`` processes, the costliest first, each to the least loaded one.

    Returns, per process, the indices of its matrices in ``shapes``.
    """
    # Multiplications of one Newton-Schulz step on a matrix of short × long: the Gram matrix and
    # the last product take short² · long each, the Gram matrix times itself short³.
    costs = []
    for shape in shapes:
        short, long = min(shape), max(shape)
        costs.append(short**2 * (2 * long + short))

    shares: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    costliest_first = sorted(range(len(shapes)), key=lambda i: -costs[i])
    for i in costliest_first:
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += costs[i]
    return shares
