"""Copies to a device that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # annotations only, as in records.py
    import torch
    from torch import Tensor


# How the names of fields of a batch end that the CPU reads, step by step.
ON_CPU = ("_lengths", "_times")


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device without waiting for the work that the device has still to do.

    What lies on the CPU is page-locked first: the driver waits before it copies other memory.
    """
    kind, _, _ = str(device).partition(":")
    leaves_host = tensor.device.type == "cpu" and kind not in ("cpu", "meta")
    if leaves_host and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def moved(name: str, tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a field of a batch to a device, unless it is one that the CPU reads, by its ``name``."""
    if name.endswith(ON_CPU):
        return tensor
    return to_device(tensor, device)


def pinned(name: str, tensor: Tensor) -> Tensor:
    """Copy a field of a batch into page-locked memory."""
    return tensor.pin_memory()
