"""The trainings that a model came from, read off the configurations beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wenet_osum import migrate


@dataclass
class Training:
    """A training run, as train.yaml and data.yaml in a model folder tell it; empty where there is
    none."""

    train: dict[str, Any]
    data: dict[str, Any]

    def sources(self) -> list[dict[str, Any]]:
        """Return the rows of its training lists."""
        return self.data.get("train") or []

    def begun_from(self) -> list[str]:
        """Return the models from which it took weights, as they were named where it ran."""
        model = self.train.get("model") or {}
        encoder = model.get("encoder") or {}
        parts = model.get("init_parts") or {}
        names = [model.get(key) for key in ("whisper", "llm", "init_from")]
        names.append(encoder.get("source"))
        names += parts.values()
        return [name for name in names if name]


@dataclass
class History:
    """What is known of a model's origin."""

    # The last training comes first.
    trainings: list[Training]
    # Models that no training of ours made.
    models: list[str]

    def origins(self) -> list[str]:
        """Return the names of the models and corpora behind the model, sorted."""
        names = set(self.models)
        for training in self.trainings:
            for source in training.sources():
                names.add(source["name"])
        return sorted(names)

    def tasks(self) -> list[str]:
        """Return the tasks that were trained, names or tags as they were written, each once."""
        found: dict[str, None] = {}
        for training in self.trainings:
            for source in training.sources():
                tasks = source.get("tasks") or {}
                found |= dict.fromkeys(tasks)
        return [*found]

    def plugins(self) -> list[str]:
        """Return the packages that brought parts of the model, each once."""
        found: dict[str, None] = {}
        for training in self.trainings:
            packages = training.train.get("plugins") or []
            found |= dict.fromkeys(packages)
        return [*found]


def read(folder: Path) -> History:
    """Read the history of the model in ``folder``: its training, and those that it began from.

    Earlier runs are looked for where they were, and in the folders above each model.
    """
    trainings: list[Training] = []
    models: dict[str, None] = {}
    waiting, seen = [folder.resolve()], set()
    while waiting:
        here = waiting.pop(0)
        if here in seen:
            continue
        seen.add(here)
        tree = _read(here / "train.yaml")
        train = migrate.train_yaml(tree)
        data = _read(here / "data.yaml")
        training = Training(train, data)
        trainings.append(training)

        # A name of a model is that of an earlier run, whose configurations tell more, or final.
        for name in training.begun_from():
            earlier = _earlier_run(name, here)
            if earlier is None:
                models[name] = None
            else:
                waiting.append(earlier)
    return History(trainings, [*models])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(text)


def _earlier_run(name: str, here: Path) -> Path | None:
    """Return the folder of an earlier run, as it was named where training ran; None for a model
    that is none."""
    above = [parent / name for parent in here.parents]
    for folder in [Path(name), *above]:
        if (folder / "train.yaml").is_file():
            return folder.resolve()
    return None
