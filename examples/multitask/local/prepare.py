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
from wenet_osum.corpus.data_report import hours
from wenet_osum.corpus.split import check_disjoint
from wenet_osum.corpus.task_lists import choose, reference_lines
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.dataset.prepared import text
from wenet_osum.files import write_text
from wenet_osum.records import Utterance

DISJOINT = [
    "recording"
]  # what train, dev and test must not share, over all recipes; each recipe has held its own speakers apart
SPLITS = ("train", "dev", "test")


def missing_of(source: SourceConfig, root: Path) -> list[str]:
    """What the recipe of a row has not made yet."""
    folder = root / Path(source.list).parent.parent
    wanted = [root / source.list, *(folder / split / "manifest.jsonl" for split in SPLITS)]
    return [str(path) for path in wanted if not path.exists()]


def find(mixture: DataConfig, root: Path, strict: bool) -> list[SourceConfig]:
    """The rows that can be used, their lists absolute; all others are named. Raises ValueError with
    ``strict`` for these, or when none is left.
    """
    found = []
    lacking = []
    for source in mixture.train:
        if missing := missing_of(source, root):
            lacking.append(
                f"{source.name} is left out: no {missing[0]}; run the recipe up to stage 1 first"
            )
        else:
            found.append(dataclasses.replace(source, list=str((root / source.list).resolve())))
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
    """Recipe → its utterances, their keys led by its name, so that no two lists share one."""
    found = {}
    for source in sources:
        rows = read_manifest(Path(source.list).parent.parent / split / "manifest.jsonl")
        work = Path(source.list).parents[2]  # of NAME/data/train/data.list: where the recipe worked
        found[source.name] = [_moved(u, source.name, work) for u in rows]
    return found


def _moved(utterance: Utterance, name: str, work: Path) -> Utterance:
    """Relative paths in a recipe's manifest count from the folder it worked in."""
    wav = utterance.wav if "://" in utterance.wav else str(work / utterance.wav)
    recordings = utterance.extra.get("recordings")
    extra = utterance.extra | (
        {"recordings": [_same(work, path) for path in recordings]} if recordings else {}
    )
    return dataclasses.replace(
        utterance,
        key=f"{name}-{utterance.key}",
        wav=wav,
        extra=extra,
    )


def _same(work: Path, path: str) -> str:
    """A recording that is a file there, absolute; any other name as it is."""
    if (work / path).exists():
        return str(work / path)
    return path


def holds(utterance: Utterance, task: str) -> bool:
    """Whether it has all fields of the task; words of which there are none are no transcript."""
    fields = tasks.parse(task).fields
    return all(
        field.present(utterance) and (field.kind != "transcript" or bool(utterance.txt))
        for field in fields
    )


def askable(source: SourceConfig, rows: list[Utterance]) -> SourceConfig:
    """The row with the tasks its utterances can be asked: events alone, prepared without speech,
    for their label, ``<CAPTION>`` instead of ved.
    """
    asked: dict[str, float] = {}
    for task, share in source.tasks.items():
        bare = "".join(
            field.tag for field in tasks.parse(task).fields if field.kind != "transcript"
        )
        name = next(
            (name for name in (task, bare) if name and any(holds(u, name) for u in rows)), None
        )
        if name:
            asked[name] = share
        if name != task:
            print(
                f"{source.name}: no utterance can be asked "
                f"{task}{f', {name} instead' if name else ''}"
            )
    return dataclasses.replace(source, tasks=asked)


def usable(
    rows: dict[str, list[Utterance]], sources: list[SourceConfig], task: str
) -> list[Utterance]:
    """The utterances whose recipe is asked this task in the mixture, and that hold its fields."""
    return [
        u for source in sources if task in source.tasks for u in rows[source.name] if holds(u, task)
    ]


def prepare(options: argparse.Namespace) -> None:
    """Everything. Raises ValueError for whatever is wrong with the recipes' lists."""
    asked = config.load(options.mixture, DataConfig)
    sources = find(asked, options.data_dir.resolve(), options.strict)
    splits = {split: read_split(sources, split) for split in SPLITS}
    for line in check_disjoint(
        {split: [u for rows in found.values() for u in rows] for split, found in splits.items()},
        DISJOINT,
    ):
        print(f"note: {line}")
    sources = [
        source
        for source in (askable(source, splits["train"][source.name]) for source in sources)
        if source.tasks
    ]
    for source in sources:
        rows = splits["train"][source.name]
        print(
            f"{source.name}: {len(rows)} utterances, {hours(rows):.3f} h, {source.weight:g} passes "
            f"an epoch, {', '.join(source.tasks)}"
        )
    dev = write_tests(splits, sources, options)
    config.save(
        DataConfig(train=sources, mixture=asked.mixture, dev=dev), options.out / "data.yaml"
    )
    for split, found in splits.items():
        write_manifest(
            options.out / split / "manifest.jsonl", [u for rows in found.values() for u in rows]
        )
    train = [u for rows in splits["train"].values() for u in rows]
    (options.out / "text").mkdir(exist_ok=True)
    (options.out / "text/train.txt").write_text(
        "".join(f"{line}\n" for u in train if (line := text(u))), encoding="utf-8"
    )


def write_tests(
    splits: dict[str, dict[str, list[Utterance]]],
    sources: list[SourceConfig],
    options: argparse.Namespace,
) -> dict[str, str]:
    """``OUT/{dev,test}/TASK.list`` of every task that has utterances, and ``OUT/tasks``; returns
    the dev lists. A task without any is named.
    """
    dev = {}
    there = []
    for task in [
        *tasks.names(),
        *sorted({task for source in sources for task in source.tasks} - set(tasks.names())),
    ]:
        found = {
            split: usable(
                splits[split],
                sources,
                task,
            )
            for split in ("dev", "test")
        }
        if not found["dev"] or not found["test"]:
            print(
                f"{task} is left out: nothing prepared to "
                f"{'validate' if not found['dev'] else 'test'} it on"
            )
            continue
        dev[task] = str((options.out / "dev" / f"{task}.list").resolve())
        for split, rows in found.items():
            chosen = choose(
                rows,
                task,
                options.limit[split == "test"] or None,
            )
            count = write_manifest(options.out / split / f"{task}.list", chosen)
            write_text(options.out / split / f"{task}.text", reference_lines(chosen, task))
            corpora = [source.name for source in sources if task in source.tasks]
            print(f"{task}: {count} of {len(rows)} {split} utterances of {', '.join(corpora)}")
        there.append(task)
    if options.strict and (lost := [task for task in tasks.names() if task not in there]):
        raise ValueError(f"no data for {', '.join(lost)}, and --strict asks for every task")
    (options.out / "tasks").write_text(" ".join(there) + "\n", encoding="utf-8")
    return dev


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
        help="utterances a task at most; 0: all",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop when a corpus is not prepared, or a task has no data",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
