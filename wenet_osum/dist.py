"""Run a model on several processes and devices.

There is always a process group, also of one process, so the loop has no second path. Single numbers
travel over CPU tensors (gloo beside the accelerator's own backend): agreeing on them never waits
for the device.

A machine that fails cannot say so, and the others would wait for it forever. So an exchange within
a step times out after ``step_timeout_s``. Where rank 0 reads or writes for all, a second group with
a long timeout is used.
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
from wenet_osum.models import cpu_kernels, quantized, unread
from wenet_osum.models.compiled import compile_layers
from wenet_osum.records import Batch

T = TypeVar("T")
# Rank 0 may read an index or write a large model while the others wait.
LONG_TIMEOUT = timedelta(minutes=60)
# How messages of gloo begin, whose errors have no class of their own.
GLOO = "gloo/"


@dataclass
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_rank_zero(self) -> bool:
        """Return True on the process that prints and writes."""
        return self.rank == 0


# Process group with the long timeout; steps use the default one.
_long_timeout_group: torch_dist.ProcessGroup | None = None


def start(threads: int, step_timeout_s: float = 600.0) -> World:
    """Join the process group that torchrun describes in the environment.

    Without torchrun, makes a group of this process alone. Within a step a process waits
    ``step_timeout_s`` seconds for another.
    """
    global _long_timeout_group
    torch.set_num_threads(threads)
    cpu_kernels.keep_few()
    rank = int(os.environ.get("RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device, backend = _device(local), "gloo"
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
        own = torch_dist.get_default_backend_for_device(device.type)
        backend = f"cpu:gloo,{device.type}:{own}"
    alone = {} if "MASTER_ADDR" in os.environ else {"store": torch_dist.HashStore()}
    timeout = timedelta(seconds=step_timeout_s)
    torch_dist.init_process_group(backend, rank=rank, world_size=size, timeout=timeout, **alone)
    _long_timeout_group = torch_dist.new_group(timeout=LONG_TIMEOUT, backend="gloo")
    return World(rank, size, device)


def _device(local: int) -> torch.device:
    """Return the device of the ``local``-th process of this machine.

    Where SLURM shows each task one device only, that one is number 0 for all of them.
    """
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator().type
    return torch.device(kind, local % torch.accelerator.device_count())


def stop() -> None:
    """Leave the process group."""
    global _long_timeout_group
    _long_timeout_group = None
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()


def is_lost_connection(error: RuntimeError) -> bool:
    """Tell whether an error says that another process has gone, or cannot be reached."""
    return isinstance(error, torch_dist.DistError) or GLOO in str(error)


def barrier() -> None:
    """Wait for every process, with the long timeout."""
    torch_dist.all_reduce(torch.zeros(1), group=_long_timeout_group)


def sum_over_ranks(values: list[float]) -> list[float]:
    """Return the element-wise sums over all processes."""
    tensor = torch.tensor(values, dtype=torch.float64)
    torch_dist.all_reduce(tensor)
    return tensor.tolist()


def sum_gradients(params: Sequence[nn.Parameter], value: float) -> float:
    """Replace the gradients by their sums over all processes; returns the sum of ``value``.

    All ``params`` must have a gradient. All of it is one exchange.
    """
    gradients = [p.grad for p in params]
    pieces = [gradient.flatten() for gradient in gradients]
    pieces.append(torch.tensor([value]))
    flat = torch.cat(pieces)
    torch_dist.all_reduce(flat)

    sizes = [len(piece) for piece in pieces]
    *summed, total = flat.split(sizes)
    for gradient, values in zip(gradients, summed, strict=True):
        gradient.copy_(values.view_as(gradient))
    return total.item()


def from_rank_zero(make: Callable[[], T]) -> T:
    """Return in every process what ``make`` returns on rank 0, for which the others wait patiently.

    A ValueError or OSError there is raised in all: nobody waits for what will not come.
    """
    if torch_dist.get_world_size() == 1:
        return make()
    value: T | None = None
    fault: Exception | None = None
    if torch_dist.get_rank() == 0:
        try:
            value = make()
        except (ValueError, OSError) as error:
            fault = error
    found = [value, fault]
    torch_dist.broadcast_object_list(found, group=_long_timeout_group)
    value, fault = found
    if fault is not None:
        raise fault
    return value


def gather(value: Any) -> list[Any]:
    """Return the value of every process, by rank."""
    values: list[Any] = [None] * torch_dist.get_world_size()
    torch_dist.all_gather_object(values, value)
    return values


class Engine:
    """The model as it runs on all processes: DDP or FSDP2.

    ``module`` is the plain model; DDP and FSDP both average gradients over processes. What of the
    model is unread (models/unread.py) is read here, each process what it needs; such parameters are
    other tensors afterwards.
    """

    def __init__(self, model: nn.Module, conf: TrainConfig, world: World) -> None:
        self.module = model
        self.world = world
        self.sharded = conf.engine == "fsdp"
        self.half = conf.dtype == "bfloat16"
        if self.half:
            _halve_frozen(model)
        self.compute_dtype = torch.bfloat16 if self.half else torch.float32
        if conf.compile:
            compile_layers(model)
        if conf.model.quantization == quantized.NF4:
            quantized.to_nf4(model, self.compute_dtype, world.device, trains=True)
        if self.sharded:
            # Layer by layer to the device: never the whole.
            self.runner = _shard(model, self.half)
            unread.read(model, world.device)
        else:
            unread.read(model, world.device)
            model.to(world.device)
            self.runner = _replicate(model, world)

    def loss(self, batch: Batch) -> Any:
        """Run forward through the engine; returns the model's LossOutput."""
        return self._run(self.runner, batch)

    def plain_loss(self, batch: Batch) -> Any:
        """Run forward without gradient exchange, for evaluation.

        With FSDP every process must call it equally often.
        """
        return self._run(self.module, batch)

    def _run(self, model: nn.Module, batch: Batch) -> Any:
        device = self.world.device
        batch = with_features(batch.to(device), self.module.encoder.mels)
        # FSDP casts by its own policy.
        casts = self.half and not self.sharded
        with torch.autocast(device.type, torch.bfloat16, enabled=casts):
            return model(batch)

    @contextlib.contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Exchange gradients in the backward pass of the ``last`` micro-batch only.

        With FSDP every backward pass does: a process that waited would keep the gradients of the
        whole model, not its share.
        """
        keeps_own = isinstance(self.runner, DistributedDataParallel) and not last
        with self.runner.no_sync() if keeps_own else contextlib.nullcontext():
            yield

    def clip(self, largest: float) -> float:
        """Scale the gradient to norm ``largest`` where it is longer; returns its norm before."""
        trained = [p for p in self.module.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, largest)
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        return float(norm)

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Return the state dict where ``save_pretrained`` cannot read it itself, else None.

        Sharded parameters are gathered on the CPU of rank 0. Quantized ones are given as the
        numbers that products are computed with.
        """
        if not self.sharded:
            return quantized.plain_state(self.module, self.compute_dtype)
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.module, options=options)

        # ``save_pretrained`` knows tied weights by the memory they share, and gathered ones share
        # none. So only the first name of each is given.
        for name in _later_names(self.module):
            state.pop(name, None)
        return state


def _later_names(model: nn.Module) -> set[str]:
    """Return the names of parameters that have another name before."""
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    first = {name for name, _ in model.named_parameters()}
    return every - first


def _halve_frozen(model: nn.Module) -> None:
    """Cast frozen parameters to bfloat16; trained ones stay float32 as their own master copy."""
    for parameter in model.parameters():
        frozen = not parameter.requires_grad
        if frozen and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)


def _replicate(model: nn.Module, world: World) -> nn.Module:
    """Wrap the model in DDP; one process alone needs none."""
    if world.size == 1:
        return model
    devices = None if world.device.type == "cpu" else [world.device]
    return DistributedDataParallel(
        model,
        device_ids=devices,
        find_unused_parameters=False,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,
    )


def _shard(model: nn.Module, half: bool) -> nn.Module:
    """Shard every layer of the long stacks on its own, then what remains (FSDP2)."""
    policy = MixedPrecisionPolicy()
    if half:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in sharded_layers(model):
        fully_shard(layer, mp_policy=policy)

    # What comes from outside stays as it is: weights and times of targets need float32, and the
    # encoder casts features itself.
    outer = dataclasses.replace(policy, cast_forward_inputs=False)
    return fully_shard(model, mp_policy=outer)


def sharded_layers(model: nn.Module) -> list[nn.Module]:
    """Return what FSDP gathers and lets go on its own: the layers of the long stacks.

    What remains is gathered for the whole of a forward and backward pass.
    """
    layers = []
    for stack in model.modules():
        if not isinstance(stack, nn.ModuleList) or len(stack) < 2:
            continue
        for layer in stack:
            size = sum(p.numel() for p in layer.parameters())
            if size > 0 and not isinstance(layer, nn.ModuleList):
                layers.append(layer)
    return layers
