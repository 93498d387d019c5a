"""Read what earlier versions wrote: model folders and the configurations saved beside them.

A model folder says in its config.json and text.json which ``format_version`` it has; folders
without a number are of version 1. Whatever is read is brought to the present form at once, so that
the rest of the toolkit knows one form only. A new version is a new number here and one more step in
``text_settings`` or ``train_yaml``.
"""

from __future__ import annotations

import copy
from typing import Any

FORMAT_VERSION = 2

TARGET_TOKENIZATION = {"fields": "by_field", "string": "whole"}
EFFECTS = {"level": "gain", "loss": "packet_loss", "band": "band_pass", "clip": "clipping"}


def check_version(found: int | None, where: str) -> int:
    """Return the version of a folder, 1 where it names none. Raises ValueError for a newer one."""
    version = 1 if found is None else found
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{where}: format_version {version} was written by a newer wenet_osum; this one reads "
            f"up to {FORMAT_VERSION}, update it"
        )
    return version


def text_settings(settings: dict[str, Any], where: str = "text.json") -> dict[str, Any]:
    """Return the text settings of a folder in the present form, without their version."""
    settings = dict(settings)
    version = check_version(settings.pop("format_version", None), where)
    if version < 2:
        _rename_join(settings)
    return settings


def train_yaml(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration that a run saved in the present form.

    Only for what the toolkit saved itself: a user's own file is answered with the new names
    (renamed.yaml), for it is the user who goes on writing it.
    """
    tree = copy.deepcopy(tree)
    model = tree.get("model") or {}
    _rename_join(model)
    if "init" in model:
        model["init_parts"] = model.pop("init")

    # Effects are named after what audio engineers call them.
    augment = tree.get("augment") or {}
    for effect in augment.get("effects") or []:
        name = effect["name"]
        effect["name"] = EFFECTS.get(name, name)
    return tree


def _rename_join(table: dict[str, Any]) -> None:
    """Give ``join``, where it stands, its present name and value."""
    if "join" in table:
        before = table.pop("join")
        table["target_tokenization"] = TARGET_TOKENIZATION[before]
