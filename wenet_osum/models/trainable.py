"""Which parts train, at what rate; the rest is frozen and stays in eval mode."""

from __future__ import annotations

import difflib
import fnmatch
from typing import Any

from torch import nn

from wenet_osum.config import OptimConfig, PartConfig

Alias = dict[int, list[str]]


def apply_train_parts(model: nn.Module, train_parts: dict[str, PartConfig], optim: OptimConfig) -> list[dict[str, Any]]:
    """Freeze what no pattern names and return AdamW's parameter groups: params, lr, weight_decay, pattern, names.

    A pattern is a glob over parameter names, e.g. ``adapter.*`` or ``*lora*``. A parameter belongs to the first pattern, in the order
    of the yaml, that matches it. Norms and biases (all tensors of one dimension) have no weight decay. Raises ValueError for a
    pattern that is left without parameters.
    """
    names = _names(model)
    owners: dict[str, list[tuple[str, nn.Parameter]]] = {pattern: [] for pattern in train_parts}
    fixed = _fixed(model)
    for parameter in model.parameters():
        owner = next((p for p in train_parts if any(fnmatch.fnmatchcase(n, p) for n in names[id(parameter)])), None)
        parameter.requires_grad_(owner is not None and id(parameter) not in fixed)
        if owner is not None and parameter.requires_grad:
            owners[owner].append((names[id(parameter)][0], parameter))
    for pattern, members in owners.items():
        if not members:
            raise ValueError(_unmatched(pattern, names))
    model.train(model.training)
    return [group for pattern, members in owners.items() for group in _groups(pattern, members, train_parts[pattern], optim)]


def check_lora_trains(model: nn.Module, train_parts: dict[str, PartConfig]) -> None:
    """Raise ValueError when no pattern names a LoRA adapter: adapters begin as no change, and would
    stay it.
    """
    adapters = [name for name, _ in model.named_parameters() if ".lora_" in name]
    if not any(fnmatch.filter(adapters, pattern) for pattern in train_parts):
        patterns = ", ".join(train_parts)
        raise ValueError(
            f"model.lora adds adapters that train_parts ({patterns}) does not train; "
            "add '*lora*: {}', or drop model.lora"
        )


def _names(model: nn.Module) -> Alias:
    """All names of each parameter, by identity: tied weights have several."""
    names: Alias = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def _fixed(model: nn.Module) -> set[int]:
    """Parameters that are constants in truth; their module lists them in ``fixed_parameters``."""
    return {id(module.get_parameter(name)) for module in model.modules() for name in getattr(module, "fixed_parameters", ())}


def _groups(pattern: str, members: list[tuple[str, nn.Parameter]], part: PartConfig, optim: OptimConfig) -> list[dict[str, Any]]:
    lr = optim.lr if part.lr is None else part.lr
    decay = optim.weight_decay if part.weight_decay is None else part.weight_decay
    groups = []
    for rate, chosen in ((decay, [m for m in members if m[1].ndim > 1]), (0.0, [m for m in members if m[1].ndim <= 1])):
        if chosen:
            group = {"params": [p for _, p in chosen], "lr": lr, "weight_decay": rate}
            groups.append(group | {"pattern": pattern, "names": [n for n, _ in chosen]})
    return groups


def _unmatched(pattern: str, names: Alias) -> str:
    every = [name for aliases in names.values() for name in aliases]
    matched = fnmatch.filter(every, pattern)
    if matched:
        return f"train_parts {pattern!r}: what it names, e.g. {matched[0]}, never trains or belongs to a pattern above it; move it up or drop it"
    known = sorted({".".join(name.split(".")[:depth]) for name in every for depth in (1, 2)} - set(every))
    close = difflib.get_close_matches(pattern.rstrip(".*"), known, n=3, cutoff=0.5) or [k for k in known if "." not in k]
    return f"train_parts {pattern!r} matches no parameter; close: {', '.join(f'{name}.*' for name in close)}"


def set_mode(module: nn.Module, mode: bool) -> None:
    """``train(mode)`` for the children of ``module``, but eval for those whose parameters are all frozen: their dropout stays off.

    A module without parameters, such as Dropout, goes with the module it sits in.
    """
    for child in module.children():
        parameters = list(child.parameters())
        frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
        if not mode or frozen:
            child.eval()
        else:
            child.training = True
            set_mode(child, True)


def table(model: nn.Module, groups: list[dict[str, Any]] | None = None) -> str:
    """What is in the model and what of it trains: a line a part, with tensors, parameters, trained parameters and learning rate."""
    rates = {id(p): group["lr"] for group in groups or [] for p in group["params"]}
    rows: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".", 1)[0] + (" (LoRA)" if ".lora_" in name else "")
        rows.setdefault(part, []).append(parameter)
    lines = [f"{'part':<18}{'tensors':>8}{'parameters':>16}{'trained':>16}  lr"]
    total = [p for parameters in rows.values() for p in parameters]
    for part, parameters in [*rows.items(), ("total", total)]:
        trained = [p for p in parameters if p.requires_grad]
        lr = ", ".join(f"{rate:g}" for rate in sorted({rates[id(p)] for p in trained if id(p) in rates})) or "-"
        lines.append(f"{part:<18}{len(parameters):>8}{_count(parameters):>16,}{_count(trained):>16,}  {lr}")
    return "\n".join(lines)


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)
