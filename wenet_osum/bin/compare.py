"""After a phase: is the model worse than before it? Decodes and scores up to 500 dev utterances a task with both, paired.

A figure fails when it is worse by more than --margin points and the paired bootstrap's 95 % interval leaves out no change. For phase 1, which has
no LLM, the figure is token accuracy by teacher forcing, and --before is the Whisper it started from. Answers and compare.json go to EXP_DIR/compare.

examples:
  wenet_osum compare --exp_dir exp/3_encoder --before exp/2_adapter --dev data/dev --margin 2
  wenet_osum compare --exp_dir exp/1_whisper --before openai/whisper-medium --dev conf/data.yaml --limit 200
  wenet_osum compare --exp_dir exp/4_lora --before exp/3_encoder --dev data/dev --tasks "asr ser" --batch_size 64 --dtype bfloat16

exit status:
  0 no figure failed; 1 a list or a model cannot be used; 2 a fault of the arguments; 3 a figure failed
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wenet_osum import config
from wenet_osum.decode import load, options
from wenet_osum.score import resampling

if TYPE_CHECKING:
    from wenet_osum.train.compare import Verdict

FINAL = "final"  # what training leaves in an experiment folder


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="wenet_osum compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp_dir", required=True, help="folder of the phase's training run; its model is final in it")
    parser.add_argument("--before", required=True, help="folder of the run before, or a model folder or hub name")
    parser.add_argument("--dev", required=True, help="folder with a TASK.list a task, or a data.yaml with a dev table")
    parser.add_argument("--tasks", default="", help='some of its tasks, e.g. "asr ser"; default: all')
    parser.add_argument("--margin", "--gate_margin", type=float, default=2.0, help="points a figure may be worse")
    parser.add_argument("--limit", type=int, default=500, help="utterances a task at most, evenly spread over the list")
    parser.add_argument("--resample", choices=resampling.UNITS, default="utterance", help="what the bootstrap draws: utterances, or speakers")
    parser.add_argument("--normalizer", default="none", help="spelling rules of score, e.g. basic")
    options.add_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Compare and print a line a figure. Returns the exit status."""
    args = parse(argv)
    try:
        verdicts = run(args)
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    failed = sum(v.outcome == "FAILED" for v in verdicts)
    print(f"{failed} of {len(verdicts)} figures failed; {args.exp_dir}/compare/compare.json")
    return 3 if failed else 0


def run(args: argparse.Namespace) -> list[Verdict]:
    """Every figure of every task. Raises ValueError for lists and models that cannot be used."""
    from transformers.utils import logging

    from wenet_osum.train.compare import save

    logging.disable_progress_bar()
    lists = dev_lists(args.dev, args.tasks.split())
    if args.limit < 2:
        raise ValueError(f"--limit {args.limit}: a bootstrap needs at least 2 utterances")
    folders = [model_folder(args.exp_dir), model_folder(args.before)]
    verdicts = []
    for found in (_forced if _is_whisper(folders[0]) else _decoded)(args, folders, lists):
        print(found, flush=True)
        verdicts.append(found)
    save(verdicts, Path(args.exp_dir) / "compare" / "compare.json")
    return verdicts


def dev_lists(source: str, wanted: list[str]) -> dict[str, str]:
    """Task → list. Raises ValueError when there is none, or a wanted task has none."""
    if Path(source).is_dir():
        lists = {path.stem: str(path) for path in sorted(Path(source).glob("*.list"))}
    else:
        lists = config.load(source, config.DataConfig).dev
    missing = [task for task in wanted if task not in lists]
    if not lists or missing:
        raise ValueError(f"{source} has lists of {', '.join(lists) or 'no task'}{', not of ' + ', '.join(missing) if missing else ''}; write TASK.list files")
    return {task: lists[task] for task in wanted or lists}


def model_folder(path: str) -> str:
    """The model of an experiment folder, or ``path`` itself. Raises ValueError for a run that has not ended."""
    if (Path(path) / FINAL / "config.json").exists():
        return str(Path(path) / FINAL)
    if any(Path(path).glob("step_*")):
        raise ValueError(f"{path} has no {FINAL}: its training has not ended; run it to its end, or name one of its checkpoints")
    return path


def _is_whisper(folder: str) -> bool:
    from wenet_osum.train.estimate import sizes_of

    return sizes_of(folder).model_type == "whisper"


def _decoded(args: argparse.Namespace, folders: list[str], lists: dict[str, str]) -> Iterator[Verdict]:
    """A verdict a figure, task by task; the models are loaded one after the other."""
    from wenet_osum.bin._references import read_references
    from wenet_osum.decode.jobs import read_list
    from wenet_osum.train.compare import answers, decoded, spread

    args.task = "auto"
    jobs = {task: spread(read_list(path)[0], args.limit) for task, path in lists.items()}
    sides, parsed = [], {}
    for name, args.model in zip(("after", "before"), folders, strict=True):
        recognizer = load.recognizer(args)
        parsed = parsed or {task: recognizer.template.task(task) for task in lists}
        sides.append({task: answers(recognizer, task, jobs[task], Path(args.exp_dir) / "compare" / name / f"{task}.jsonl") for task in lists})
        del recognizer
    for task, path in lists.items():
        keys = {job.key for job in jobs[task]}
        references = [r.utterance for r in read_references(path) if r.utterance.key in keys]
        how = (args.normalizer, args.margin, args.resample)
        yield from decoded(parsed[task], references, sides[0][task], sides[1][task], *how)


def _forced(args: argparse.Namespace, folders: list[str], lists: dict[str, str]) -> Iterator[Verdict]:
    """Phase 1: both Whispers with the texts of the trained one."""
    import torch

    from wenet_osum.bin._references import read_references
    from wenet_osum.models import build
    from wenet_osum.text.template import Template
    from wenet_osum.train.compare import forced, tokens_compared

    template, sides = Template.load(folders[0]), []
    for folder in folders:
        model = build.load(folder, getattr(torch, args.dtype))
        mels = model.encoder.mels
        sides.append({task: forced(model, template, task, path, args.limit, mels) for task, path in lists.items()})
    for task, path in lists.items():
        (keys, after), (_, before) = sides[0][task], sides[1][task]
        speakers = resampling.speakers_of(r.utterance for r in read_references(path))
        clusters = resampling.clusters_of(keys, speakers, args.resample).of_rows
        yield tokens_compared(task, after, before, args.margin, clusters)


if __name__ == "__main__":
    sys.exit(main())
