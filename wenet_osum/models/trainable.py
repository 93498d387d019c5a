"""Choose the parts that train and their rates; freeze the rest, in eval mode."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from typing import Any

from torch import nn

from wenet_osum.config import OptimConfig, PartConfig

# Of the table of parts.
COLUMNS = "{:<18}{:>8}{:>16}{:>16}  {}"
# Names of each parameter, by its identity.
Alias = dict[int, list[str]]


def apply_train_parts(
    model: nn.Module, train_parts: dict[str, PartConfig], optim: OptimConfig
) -> list[dict[str, Any]]:
    """Freeze what no pattern names and return AdamW's parameter groups: params, lr, weight_decay,
    pattern, names.

    A pattern is a glob over parameter names, e.g. ``adapter.*`` or ``*lora*``. A parameter belongs
    to the first pattern, in the order of the yaml, that matches it. Norms and biases (all tensors
    of one dimension) have no weight decay. Raises ValueError for a pattern that is left without
    parameters.
    """
    names = _names(model)
    fixed = _fixed(model)
    owned: dict[str, list[tuple[str, nn.Parameter]]] = {pattern: [] for pattern in train_parts}
    for parameter in model.parameters():
        aliases = names[id(parameter)]
        owner = _owner(aliases, train_parts)
        trains = owner is not None and id(parameter) not in fixed
        parameter.requires_grad_(trains)
        if trains:
            owned[owner].append((aliases[0], parameter))

    groups = []
    for pattern, members in owned.items():
        if not members:
            raise ValueError(_unmatched(pattern, names))
        groups += _groups(pattern, members, train_parts[pattern], optim)

    # Frozen parts go into eval mode.
    model.train(model.training)
    return groups


def _owner(names: list[str], patterns: Iterable[str]) -> str | None:
    """Return the first pattern that matches one of the names of a parameter."""
    for pattern in patterns:
        if fnmatch.filter(names, pattern):
            return pattern
    return None


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
    """Return all names of each parameter, by identity: tied weights have several."""
    names: Alias = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases = names.setdefault(id(parameter), [])
        aliases.append(name)
    return names


def _fixed(model: nn.Module) -> set[int]:
    """Return the parameters that are constants in truth; their module lists them in
    ``fixed_parameters``."""
    found = set()
    for module in model.modules():
        for name in getattr(module, "fixed_parameters", ()):
            parameter = module.get_parameter(name)
            found.add(id(parameter))
    return found


def _groups(
    pattern: str,
    members: list[tuple[str, nn.Parameter]],
    part: PartConfig,
    optim: OptimConfig,
) -> list[dict[str, Any]]:
    """Return the parameter groups of one pattern: weights with decay, then norms and biases."""
    lr = optim.lr if part.lr is None else part.lr
    decay = optim.weight_decay if part.weight_decay is None else part.weight_decay
    weights, vectors = [], []
    for name, parameter in members:
        kind = weights if parameter.ndim > 1 else vectors
        kind.append((name, parameter))

    groups = []
    for rate, chosen in ((decay, weights), (0.0, vectors)):
        if not chosen:
            continue
        group = {
            "params": [parameter for _, parameter in chosen],
            "lr": lr,
            "weight_decay": rate,
            "pattern": pattern,
            "names": [name for name, _ in chosen],
        }
        groups.append(group)
    return groups


def _unmatched(pattern: str, names: Alias) -> str:
    """Say why a pattern is left without parameters, and what it may have meant."""
    every = [name for aliases in names.values() for name in aliases]
    matched = fnmatch.filter(every, pattern)
    if matched:
        return (
            f"train_parts {pattern!r}: what it names, e.g. {matched[0]}, never trains or belongs "
            "to a pattern above it; move it up or drop it"
        )

    # Parts, and parts of parts.
    known = set()
    for name in every:
        words = name.split(".")
        known.add(words[0])
        known.add(".".join(words[:2]))
    known -= set(every)
    wanted = pattern.rstrip(".*")
    close = difflib.get_close_matches(wanted, sorted(known), n=3, cutoff=0.5)
    if not close:
        close = sorted(name for name in known if "." not in name)
    patterns = ", ".join(f"{name}.*" for name in close)
    return f"train_parts {pattern!r} matches no parameter; close: {patterns}"


def set_mode(module: nn.Module, mode: bool) -> None:
    """Set ``train(mode)`` for the children of ``module``, but eval for those whose parameters are
    all frozen: their dropout stays off.

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
    """Say what is in the model and what of it trains: a line per part, with tensors, parameters,
    trained parameters and learning rate."""
    rates: dict[int, float] = {}
    for group in groups or []:
        for parameter in group["params"]:
            rates[id(parameter)] = group["lr"]

    # The rows: a part, with its adapters apart.
    parts: dict[str, list[nn.Parameter]] = {}
    total: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        part, _, _ = name.partition(".")
        if ".lora_" in name:
            part += " (LoRA)"
        members = parts.setdefault(part, [])
        members.append(parameter)
        total.append(parameter)

    lines = [COLUMNS.format("part", "tensors", "parameters", "trained", "lr")]
    for part, parameters in [*parts.items(), ("total", total)]:
        lines.append(_line(part, parameters, rates))
    return "\n".join(lines)


def _line(part: str, parameters: list[nn.Parameter], rates: dict[int, float]) -> str:
    """Return a line of the table."""
    trained = [p for p in parameters if p.requires_grad]
    used = {rates[id(p)] for p in trained if id(p) in rates}
    lr = ", ".join(f"{rate:g}" for rate in sorted(used)) or "-"
    count = _count(parameters)
    trained_count = _count(trained)
    return COLUMNS.format(part, len(parameters), f"{count:,}", f"{trained_count:,}", lr)


def _count(parameters: list[nn.Parameter]) -> int:
    sizes = [p.numel() for p in parameters]
    return sum(sizes)
