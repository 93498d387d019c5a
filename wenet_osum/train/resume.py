"""Go on with a configuration that has changed.

What differs is printed, and no utterance of the epoch is lost or read twice.

The position of a run in its epoch is a number of micro-batches of a plan. With other budgets,
filters or another seed that plan no longer comes out, so the old one is made once more from its
fingerprint, and what it had not read yet is planned anew. Where the data or the mixture have
changed the epoch cannot be ended, and the run stops. Between two epochs everything may change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wenet_osum import config, migrate
from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset import fingerprint
from wenet_osum.train.checkpoint import State


def changed_keys(folder: Path | None, conf: TrainConfig, data: DataConfig) -> list[str]:
    """List every key of train.yaml and data.yaml that has changed since a checkpoint, as
    ``file: key: old → new``. ``folder`` None: there is none, and nothing has changed."""
    if folder is None:
        return []
    found = []
    for name, now in (("train.yaml", conf), ("data.yaml", data)):
        # Plain tables: a file of another version may hold keys that this one does not know.
        text = (folder / name).read_text(encoding="utf-8")
        stored = yaml.safe_load(text)
        if name == "train.yaml":
            stored = migrate.train_yaml(stored)
        for line in fingerprint.differences(stored, config.plain(now)):
            found.append(f"{name}: {line}")
    return found


def lacks_dev(state: State, eval_every: int) -> bool:
    """Tell whether a run was stopped in a step that was to be evaluated."""
    return state.step % eval_every == 0 and not state.dev


def follow(state: State, plan: dict[str, Any]) -> list[str]:
    """Bring the state of a checkpoint to the plan of this start; returns lines for the log.

    Raises ValueError, which names the keys and what to do, when an epoch is under way that the new
    plan cannot end.
    """
    before, state.plan = state.plan, plan
    if before == {} and not state.consumed:
        return []
    changed = fingerprint.differences(before, plan)
    if not changed:
        return []

    # Epochs have another length now.
    state.length_key = ""
    state.epoch_batches = None
    if not state.consumed and not state.earlier:
        return [f"epoch {state.epoch} begins under another plan"]
    found = fingerprint.obstacles(before, plan)
    if found:
        reasons = "; ".join(found)
        raise ValueError(
            f"epoch {state.epoch} is under way (micro-batch {state.consumed}) and cannot be ended: "
            f"{reasons}. Bring back the old values until the epoch is over, or go on in "
            "a new --exp_dir with model.init_from"
        )
    state.earlier = [*state.earlier, {"plan": before, "consumed": state.consumed}]
    state.consumed = 0
    return [
        f"epoch {state.epoch} goes on under another plan: what it has not drawn yet is planned "
        "anew, no utterance is lost or repeated"
    ]
