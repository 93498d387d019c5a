#!/usr/bin/env python3
"""What other recipes prepared → one mixture: ``OUT/data.yaml``, lists of dev and test of every
task, and the training manifests as one.

A row of the mixture whose recipe has not been run is named and left out; with ``--strict`` it
stops.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from wenet_osum import config, tasks
from wenet_osum.config import DataConfig, SourceConfig
from wenet_osum.corpus import command
from wenet_osum.corpus.split import check_disjoint
from wenet_osum.corpus.statistics import hours
from wenet_osum.corpus.task_lists import choose, reference_lines
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.dataset.prepared import text
from wenet_osum.files import write_text
from wenet_osum.records import Utterance

# What train, dev and test must not share, over all recipes. Most recipes have held their own
# speakers apart; fsdd and meld have theirs in every split.
DISJOINT = ["recording"]
SPLITS = ("train", "dev", "test")


def missing_of(source: SourceConfig, root: Path) -> list[str]:
    """Return the files that the recipe of a row has not made yet."""
    folder = root / Path(source.list).parent.parent
    wanted = [root / source.list, *(folder / split / "manifest.jsonl" for split in SPLITS)]
    return [str(path) for path in wanted if not path.exists()]


def find(mixture: DataConfig, root: Path, strict: bool) -> list[SourceConfig]:
    """Return the rows that can be used, their lists absolute; all others are named.

    Raises ValueError with ``strict`` for these, or when none is left.
    """
    found = []
    lacking = []
    for source in mixture.train:
        missing = missing_of(source, root)
        if missing:
            lacking.append(
                f"{source.name} is left out: no {missing[0]}; run the recipe up to stage 1 first"
            )
            continue
        path = root / source.list
        whole = str(path.resolve())
        found.append(dataclasses.replace(source, list=whole))
    print(*lacking, sep="\n")
    if lacking and strict:
        raise ValueError(
            f"{len(lacking)} of {len(mixture.train)} corpora are not prepared, and --strict asks "
            "for all of them"
        )
    if not found:
        raise ValueError(
            f"no corpus of the mixture is prepared under {root}; point --data_dir at the folder "
            "the recipes worked in"
        )
    return found


def read_split(sources: Iterable[SourceConfig], split: str) -> dict[str, list[Utterance]]:
    """Return the utterances of each recipe, their keys led by its name, so that no two lists share
    one."""
    found = {}
    for source in sources:
        rows = read_manifest(Path(source.list).parent.parent / split / "manifest.jsonl")
        work = Path(source.list).parents[2]  # of NAME/data/train/data.list: where the recipe worked
        found[source.name] = [_moved(u, source.name, work) for u in rows]
    return found


def _moved(utterance: Utterance, name: str, work: Path) -> Utterance:
    """Return the utterance under a key of its own; relative paths in a recipe's manifest count from
    the folder it worked in."""
    wav = utterance.wav if "://" in utterance.wav else str(work / utterance.wav)
    extra = dict(utterance.extra)
    recordings = extra.get("recordings")
    if recordings:
        extra["recordings"] = [_same(work, path) for path in recordings]
    return dataclasses.replace(
        utterance,
        key=f"{name}-{utterance.key}",
        wav=wav,
        extra=extra,
    )


def _same(work: Path, path: str) -> str:
    """Return a recording that is a file there as an absolute path, any other name as it is."""
    if (work / path).exists():
        return str(work / path)
    return path


def holds(utterance: Utterance, task: str, without_speech: bool = False) -> bool:
    """Tell whether it has all fields of the task. No words are no transcript, but of a source of
    recordings ``without_speech``."""
    for field in tasks.parse(task).fields:
        if not field.present(utterance):
            return False
        if field.kind == "transcript" and not utterance.txt and not without_speech:
            return False
    return True


def askable(source: SourceConfig, rows: list[Utterance]) -> SourceConfig:
    """Return the row with the tasks its utterances can be asked: events alone, prepared without
    speech, for their label, ``<CAPTION>`` instead of ved.
    """
    asked: dict[str, float] = {}
    for task, share in source.tasks.items():
        name = first_held([task, without_transcript(task)], rows, source.without_speech)
        if name:
            asked[name] = share
        if name != task:
            instead = f", {name} instead" if name else ""
            print(f"{source.name}: no utterance can be asked {task}{instead}")
    return dataclasses.replace(source, tasks=asked)


def without_transcript(task: str) -> str:
    """Return the tags of a task but for the transcript's; empty when nothing else is asked."""
    tags = []
    for field in tasks.parse(task).fields:
        if field.kind != "transcript":
            tags.append(field.tag)
    return "".join(tags)


def first_held(names: list[str], rows: list[Utterance], without_speech: bool) -> str | None:
    """Return the first of some tasks that an utterance can be asked; None: there is none."""
    for name in names:
        if name and any(holds(utterance, name, without_speech) for utterance in rows):
            return name
    return None


def usable(
    rows: dict[str, list[Utterance]], sources: list[SourceConfig], task: str
) -> list[Utterance]:
    """Return the utterances whose recipe is asked this task in the mixture, and that hold its
    fields."""
    found = []
    for source in sources:
        if task in source.tasks:
            silent = source.without_speech
            for row in rows[source.name]:
                if holds(row, task, silent):
                    found.append(row)
    return found


def joined(rows: dict[str, list[Utterance]]) -> list[Utterance]:
    """Return the utterances of all recipes, one recipe after another."""
    return [utterance for of_recipe in rows.values() for utterance in of_recipe]


def prepare(options: argparse.Namespace) -> None:
    """Join what is there. Raises ValueError for whatever is wrong with the recipes' lists."""
    asked = config.load(options.mixture, DataConfig)
    found = find(asked, options.data_dir.resolve(), options.strict)
    splits = {}
    for split in SPLITS:
        splits[split] = read_split(found, split)
    every = {split: joined(rows) for split, rows in splits.items()}
    for line in check_disjoint(every, DISJOINT):
        print(f"note: {line}")

    sources = with_tasks(found, splits["train"])
    dev = write_tests(splits, sources, options)
    mixture = DataConfig(train=sources, mixture=asked.mixture, dev=dev)
    config.save(mixture, options.out / "data.yaml")
    for split, rows in every.items():
        write_manifest(options.out / split / "manifest.jsonl", rows)
    train = every["train"]
    texts = map(text, train)
    lines = [f"{line}\n" for line in texts if line]
    write_text(options.out / "text/train.txt", "".join(lines))


def with_tasks(found: list[SourceConfig], train: dict[str, list[Utterance]]) -> list[SourceConfig]:
    """Return the rows whose utterances can be asked something, with those tasks, and name them."""
    sources = []
    for source in found:
        rows = train[source.name]
        source = askable(source, rows)
        if source.tasks:
            sources.append(source)
            print(
                f"{source.name}: {len(rows)} utterances, {hours(rows):.3f} h, "
                f"{source.weight:g} passes per epoch, {', '.join(source.tasks)}"
            )
    return sources


def all_tasks(sources: list[SourceConfig]) -> list[str]:
    """Return the default tasks, then the others that the mixture asks, by name."""
    known = tasks.default_names()
    others = set()
    for source in sources:
        others |= set(source.tasks) - set(known)
    return [*known, *sorted(others)]


def write_tests(
    splits: dict[str, dict[str, list[Utterance]]],
    sources: list[SourceConfig],
    options: argparse.Namespace,
) -> dict[str, str]:
    """Write ``OUT/{dev,test}/TASK.list`` of every task that has utterances, and ``OUT/tasks``.

    Returns the dev lists. A task without any is named. Raises ValueError with ``strict`` for these.
    """
    dev = {}
    for task in all_tasks(sources):
        found = {split: usable(splits[split], sources, task) for split in ("dev", "test")}
        if not found["dev"] or not found["test"]:
            use = "test" if found["dev"] else "validate"
            print(f"{task} is left out: nothing prepared to {use} it on")
            # Nor do lists of another mixture stay.
            for folder in ("dev", "test"):
                for ending in ("list", "text"):
                    (options.out / folder / f"{task}.{ending}").unlink(missing_ok=True)
            continue
        corpora = [source.name for source in sources if task in source.tasks]
        names = ", ".join(corpora)
        for split, rows in found.items():
            limit = options.limit[split == "test"] or None
            chosen = choose(rows, task, limit)
            folder = options.out / split
            count = write_test(folder, task, chosen)
            print(f"{task}: {count} of {len(rows)} {split} utterances of {names}")
        path = options.out / "dev" / f"{task}.list"
        dev[task] = str(path.resolve())

    lost = [task for task in tasks.default_names() if task not in dev]
    if options.strict and lost:
        raise ValueError(f"no data for {', '.join(lost)}, and --strict asks for every task")
    write_text(options.out / "tasks", " ".join(dev) + "\n")
    return dev


def write_test(folder: Path, task: str, chosen: list[Utterance]) -> int:
    """Write the list of a task and its reference texts; returns how many utterances it has."""
    write_text(folder / f"{task}.text", reference_lines(chosen, task))
    return write_manifest(folder / f"{task}.list", chosen)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(__doc__, "folder with the recipes' work folders: NAME/data/…")
    parser.add_argument(
        "--mixture", type=Path, required=True, help="yaml with the rows of the mixture"
    )
    parser.add_argument(
        "--limit",
        type=int,
        nargs=2,
        default=(200, 0),
        metavar=("DEV", "TEST"),
        help="utterances per task at most; 0: all",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop when a corpus is not prepared, or a task has no data",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
