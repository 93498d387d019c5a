"""Compare a model with the one before it: is it worse, on up to 500 dev utterances per task?

Both decode the same utterances, and the scores are paired. A figure fails when it is worse by more
than --margin points and the paired bootstrap's 95 % interval leaves out no change. For phase 1,
which has no LLM, the figure is token accuracy by teacher forcing, and --before is the Whisper it
started from. Answers and compare.json go to EXP_DIR/compare.

examples:
  wenet_osum compare --exp_dir exp/3_encoder --before exp/2_adapter --dev data/dev --margin 2
  wenet_osum compare --exp_dir exp/1_whisper --before openai/whisper-medium \\
    --dev conf/data.yaml --limit 200
  wenet_osum compare --exp_dir exp/4_lora --before exp/3_encoder --dev data/dev \\
    --tasks "asr ser" --batch_size 64 --dtype bfloat16

exit status:
  0 no figure failed; 1 a list or a model cannot be used; 2 a fault of the arguments;
  3 a figure failed
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wenet_osum import config
from wenet_osum.bin._arguments import new_parser
from wenet_osum.decode import load, options
from wenet_osum.score import resampling

if TYPE_CHECKING:
    from wenet_osum.decode.jobs import Job
    from wenet_osum.records import Hypothesis
    from wenet_osum.tasks import Task
    from wenet_osum.train.compare import Verdict

# Where training leaves its model in an experiment folder.
FINAL = "final"
# Where this command writes in an experiment folder.
FOLDER = "compare"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("compare", __doc__)
    add = parser.add_argument
    add(
        "--exp_dir",
        required=True,
        help="folder of the phase's training run; its model is final in it",
    )
    add(
        "--before",
        required=True,
        help="folder of the run before, or a model folder or hub name",
    )
    add(
        "--dev",
        required=True,
        help="folder with a TASK.list per task, or a data.yaml with a dev table",
    )
    add("--tasks", default="", help='some of its tasks, e.g. "asr ser"; default: all')
    add(
        "--margin",
        "--gate_margin",
        type=float,
        default=2.0,
        help="points a figure may be worse",
    )
    add(
        "--limit",
        type=int,
        default=500,
        help="most utterances per task, evenly spread over the list",
    )
    add(
        "--resample",
        choices=resampling.UNITS,
        default="utterance",
        help="what the bootstrap draws: utterances, or speakers",
    )
    add("--normalizer", default="none", help="spelling rules of score, e.g. basic")
    options.add_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Compare and print one line per figure. Returns the exit status."""
    args = parse(argv)
    try:
        verdicts = run(args)
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    outcomes = [verdict.outcome for verdict in verdicts]
    failed = outcomes.count("FAILED")
    path = f"{args.exp_dir}/{FOLDER}/compare.json"
    print(f"{failed} of {len(verdicts)} figures failed; {path}")
    return 3 if failed else 0


def run(args: argparse.Namespace) -> list[Verdict]:
    """Compare the models in every figure of every task; prints and saves the verdicts.

    Raises ValueError for lists and models that cannot be used.
    """
    from transformers.utils import logging

    from wenet_osum.train.compare import save

    logging.disable_progress_bar()
    lists = dev_lists(args.dev, args.tasks.split())
    if args.limit < 2:
        raise ValueError(f"--limit {args.limit}: a bootstrap needs at least 2 utterances")
    folders = [model_folder(args.exp_dir), model_folder(args.before)]
    compared = _forced if _is_whisper(folders[0]) else _decoded
    verdicts = []
    for verdict in compared(args, folders, lists):
        print(verdict, flush=True)
        verdicts.append(verdict)
    save(verdicts, Path(args.exp_dir) / FOLDER / "compare.json")
    return verdicts


def dev_lists(source: str, wanted: list[str]) -> dict[str, str]:
    """Return the list of each task, of those ``wanted`` or of all.

    Raises ValueError when there is none, or a wanted task has none.
    """
    if Path(source).is_dir():
        paths = sorted(Path(source).glob("*.list"))
        lists = {path.stem: str(path) for path in paths}
    else:
        lists = config.load(source, config.DataConfig).dev
    missing = [task for task in wanted if task not in lists]
    if not lists or missing:
        known = ", ".join(lists) or "no task"
        lacking = f", not of {', '.join(missing)}" if missing else ""
        raise ValueError(f"{source} has lists of {known}{lacking}; write TASK.list files")
    return {task: lists[task] for task in wanted or lists}


def model_folder(path: str) -> str:
    """Return the model of an experiment folder, or ``path`` itself.

    Raises ValueError for a run that has not ended.
    """
    folder = Path(path)
    final = folder / FINAL
    if (final / "config.json").exists():
        return str(final)
    if any(folder.glob("step_*")):
        raise ValueError(
            f"{path} has no {FINAL}: its training has not ended; "
            "run it to its end, or name one of its checkpoints"
        )
    return path


def _is_whisper(folder: str) -> bool:
    """Return whether a model is one of phase 1."""
    from wenet_osum.train.inherited import sizes_of

    return sizes_of(folder).model_type == "whisper"


def _decoded(
    args: argparse.Namespace, folders: list[str], lists: dict[str, str]
) -> Iterator[Verdict]:
    """Yield one verdict per figure, task by task."""
    from wenet_osum.bin._references import read_references
    from wenet_osum.decode.jobs import read_list
    from wenet_osum.train.compare import decoded, spread

    jobs = {}
    for task, path in lists.items():
        listed, _ = read_list(path)
        jobs[task] = spread(listed, args.limit)

    # The models are loaded one after the other. Tasks are scored as the trained one knows them.
    trained, earlier = folders
    tasks, after = _answers(args, trained, "after", jobs)
    _, before = _answers(args, earlier, "before", jobs)

    for task, path in lists.items():
        keys = {job.key for job in jobs[task]}
        utterances = [reference.utterance for reference in read_references(path)]
        yield from decoded(
            tasks[task],
            [utterance for utterance in utterances if utterance.key in keys],
            after[task],
            before[task],
            args.normalizer,
            args.margin,
            args.resample,
        )


def _answers(
    args: argparse.Namespace, folder: str, name: str, jobs: dict[str, list[Job]]
) -> tuple[dict[str, Task], dict[str, dict[str, Hypothesis]]]:
    """Return the tasks with a model's label sets, and its answers by task and key.

    The answers are also kept in the folder ``name``.
    """
    from wenet_osum.train.compare import answers

    args.task = "auto"
    args.model = folder
    recognizer = load.recognizer(args)
    tasks = {task: recognizer.template.task(task) for task in jobs}
    found = {}
    for task, of_task in jobs.items():
        out = Path(args.exp_dir) / FOLDER / name / f"{task}.jsonl"
        found[task] = answers(recognizer, task, of_task, out)
    return tasks, found


def _forced(
    args: argparse.Namespace, folders: list[str], lists: dict[str, str]
) -> Iterator[Verdict]:
    """Yield one verdict per task of phase 1; both Whispers get the texts of the trained one."""
    import torch

    from wenet_osum.bin._references import read_references
    from wenet_osum.models import build
    from wenet_osum.text.template import Template
    from wenet_osum.train.compare import forced, tokens_compared

    template = Template.load(folders[0])
    dtype = getattr(torch, args.dtype)
    sides = []
    for folder in folders:
        model = build.load(folder, dtype)
        mels = model.encoder.mels
        side = {}
        for task, path in lists.items():
            side[task] = forced(model, template, task, path, args.limit, mels)
        sides.append(side)

    for task, path in lists.items():
        keys, after = sides[0][task]
        _, before = sides[1][task]
        speakers = resampling.speakers_of(r.utterance for r in read_references(path))
        clusters = resampling.clusters_of(keys, speakers, args.resample)
        yield tokens_compared(task, after, before, args.margin, clusters.of_rows)


if __name__ == "__main__":
    sys.exit(main())
