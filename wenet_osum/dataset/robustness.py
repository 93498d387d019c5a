"""The conditions a robustness table is made of.

Each has a name and the effects of ``dataset/effects`` it applies, with fixed strengths.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from wenet_osum.dataset.augment import load_effect

Conditions = dict[str, list[dict[str, Any]]]
CONDITIONS: Conditions = {
    "clean": [],
    "noise_20db": [{"name": "noise", "snr_db": [20, 20]}],
    "noise_10db": [{"name": "noise", "snr_db": [10, 10]}],
    "noise_0db": [{"name": "noise", "snr_db": [0, 0]}],
    "reverb_0.3s": [{"name": "reverb", "decay_s": [0.3, 0.3], "wet": [0.7, 0.7]}],
    "reverb_0.8s": [{"name": "reverb", "decay_s": [0.8, 0.8], "wet": [0.7, 0.7]}],
    "telephone": [
        {"name": "band_pass", "low_hz": [300, 300], "high_hz": [3400, 3400]},
        {"name": "codec", "kinds": ["mulaw"]},
    ],
    "gsm": [{"name": "codec", "kinds": ["gsm"]}],
    "mp3": [{"name": "codec", "kinds": ["mp3"], "compression": [0.95, 0.95]}],
    "loss_10": [{"name": "packet_loss", "share": [0.1, 0.1]}],
    "quiet_20db": [{"name": "gain", "gain_db": [-20, -20]}],
    "clipped": [{"name": "clipping", "share": [0.3, 0.3]}],
    "far": [
        {"name": "reverb", "decay_s": [0.6, 0.6], "wet": [1, 1]},
        {"name": "noise", "snr_db": [10, 10]},
        {"name": "gain", "gain_db": [-12, -12]},
    ],
}


def read_conditions(path: str | Path) -> Conditions:
    """Read conditions from a yaml file, ``{name: [{name: effect, …}, …]}``.

    Raises ValueError for anything else and for unknown effects or settings.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"conditions {path} cannot be read: {error}") from None
    if not _is_table(tree):
        form = "{condition: [{name: effect, …}, …]}"
        raise ValueError(f"conditions {path} must read {form}, got {str(tree)[:80]}")
    check(tree)
    return tree


def _is_table(tree: Any) -> bool:
    """Tell whether a yaml file holds a list of mappings by name."""
    if not isinstance(tree, dict):
        return False
    for rows in tree.values():
        if not isinstance(rows, list):
            return False
        for row in rows:
            if not isinstance(row, dict):
                return False
    return True


def check(conditions: Conditions) -> None:
    """Raise ValueError for an effect that does not exist or a setting it does not have.

    The error tells the condition's name.
    """
    for name, rows in conditions.items():
        for row in rows:
            written = json.dumps(row, sort_keys=True)
            try:
                load_effect(written)
            except ValueError as error:
                raise ValueError(f"condition {name}: {error}") from None
