"""Processes, devices and engines. There is always a process group, also of one process, so the loop has no second path.

Small figures travel over CPU tensors (gloo beside the accelerator's own backend): agreeing on them never waits for the device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from wenet_osum.config import TrainConfig
from wenet_osum.dataset.device_features import with_features
from wenet_osum.records import Batch

T = TypeVar("T")
TIMEOUT = timedelta(minutes=60)  # rank 0 may write a large model while the others wait


@dataclass
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_rank_zero(self) -> bool:
        """True on the process that prints and writes."""
        return self.rank == 0


def start(threads: int) -> World:
    """Join the process group that torchrun describes in the environment, or make one of this process alone."""
    torch.set_num_threads(threads)
    rank, size, local = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    device, backend = _device(local), "gloo"
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
        backend = f"cpu:gloo,{device.type}:{torch_dist.get_default_backend_for_device(device.type)}"
    alone = {} if "MASTER_ADDR" in os.environ else {"store": torch_dist.HashStore()}
    torch_dist.init_process_group(backend, rank=rank, world_size=size, timeout=TIMEOUT, **alone)
    return World(rank, size, device)


def _device(local: int) -> torch.device:
    """The device of the ``local``-th process of this machine.

    Where SLURM shows each task one device only, that one is number 0 for all of them.
    """
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator().type
    return torch.device(kind, local % torch.accelerator.device_count())


def stop() -> None:
    """Leave the process group."""
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()


def barrier() -> None:
    """Wait for every process."""
    torch_dist.all_reduce(torch.zeros(1))


def sum_over_ranks(values: list[float]) -> list[float]:
    """Element-wise sums over all processes."""
    tensor = torch.tensor(values, dtype=torch.float64)
    torch_dist.all_reduce(tensor)
    return tensor.tolist()


def sum_gradients(params: Sequence[nn.Parameter], value: float) -> float:
    """Replace the gradients, which all ``params`` must have, by their sums over all processes, in one exchange; returns the sum of ``value``."""
    gradients = [p.grad for p in params]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([value])])
    torch_dist.all_reduce(flat)
    *summed, total = flat.split([*(g.numel() for g in gradients), 1])
    for gradient, values in zip(gradients, summed, strict=True):
        gradient.copy_(values.view_as(gradient))
    return total.item()


def from_rank_zero(make: Callable[[], T]) -> T:
    """What ``make`` gives on rank 0, in every process. A ValueError or OSError there is raised in all: nobody waits for what will not come."""
    if torch_dist.get_world_size() == 1:
        return make()
    found: list[Any] = [None, None]
    if torch_dist.get_rank() == 0:
        try:
            found[0] = make()
        except (ValueError, OSError) as error:
            found[1] = error
    torch_dist.broadcast_object_list(found)
    value, fault = found
    if fault is not None:
        raise fault
    return value


def gather(value: Any) -> list[Any]:
    """The value of every process, by rank."""
    values: list[Any] = [None] * torch_dist.get_world_size()
    torch_dist.all_gather_object(values, value)
    return values


class Engine:
    """The model as it runs on all processes: DDP or FSDP2.

    ``module`` is the plain model; DDP and FSDP both average gradients over processes.
    """

    def __init__(self, model: nn.Module, conf: TrainConfig, world: World) -> None:
        self.module, self.world, self.sharded = model, world, conf.engine == "fsdp"
        self.half = conf.dtype == "bfloat16"
        if self.half:
            _halve_frozen(model)
        model.to(world.device)
        self.runner = _shard(model, self.half) if self.sharded else _replicate(model, world)

    def loss(self, batch: Batch) -> Any:
        """Forward through the engine; returns the model's LossOutput."""
        return self._run(self.runner, batch)

    def plain_loss(self, batch: Batch) -> Any:
        """Forward without gradient exchange, for evaluation. With FSDP every process must call it equally often."""
        return self._run(self.module, batch)

    def _run(self, model: nn.Module, batch: Batch) -> Any:
        batch = with_features(batch.to(self.world.device), self.module.encoder.mels)
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.half and not self.sharded):
            return model(batch)

    @contextlib.contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Gradients are exchanged in the backward pass of the ``last`` micro-batch only."""
        if self.sharded:
            self.module.set_requires_gradient_sync(last)
        with contextlib.nullcontext() if last or not isinstance(self.runner, DistributedDataParallel) else self.runner.no_sync():
            yield

    def clip(self, largest: float) -> float:
        """Scale the gradient down to norm ``largest`` where it is above; returns the norm before."""
        norm = nn.utils.clip_grad_norm_([p for p in self.module.parameters() if p.requires_grad], largest)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def weights(self) -> dict[str, torch.Tensor] | None:
        """The whole state dict on the CPU of rank 0 when parameters are sharded; None when ``save_pretrained`` can read them itself.

        Gathered, tied weights no longer share memory, by which ``save_pretrained`` knows them: only the first name of each is given.
        """
        if not self.sharded:
            return None
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        state = get_model_state_dict(self.module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        tied = {n for n, _ in self.module.named_parameters(remove_duplicate=False)} - {n for n, _ in self.module.named_parameters()}
        return {name: tensor for name, tensor in state.items() if name not in tied}


def _halve_frozen(model: nn.Module) -> None:
    """Frozen parameters to bfloat16; trained ones stay in float32 as their own master copy."""
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)


def _replicate(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    devices = None if world.device.type == "cpu" else [world.device]
    return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=False, gradient_as_bucket_view=True, broadcast_buffers=False)


def _shard(model: nn.Module, half: bool) -> nn.Module:
    """Shard every layer of the long stacks on its own, then what remains."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if half else MixedPrecisionPolicy()
    for stack in [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]:
        for layer in stack:
            if sum(p.numel() for p in layer.parameters()) > 0 and not isinstance(layer, nn.ModuleList):
                fully_shard(layer, mp_policy=policy)
    # what comes from outside stays as it is: weights and times of targets need float32, the encoder
    # casts features itself
    return fully_shard(model, mp_policy=dataclasses.replace(policy, cast_forward_inputs=False))
