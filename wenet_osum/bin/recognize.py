"""Decode a list of utterances, for scoring.

Writes OUT/hyp.jsonl (a JSON line per utterance, in the order of the list) and OUT/text (``key text``). Under torchrun all its
processes share the work. Killed and started again with the same command, it goes on. With --prompts
the list is decoded once a wording, each in a folder of OUT; score makes a table of how the figures move.

examples:
  wenet_osum recognize --model exp/x/final --list data/test.list --task ser --out exp/x/decode/ser
  wenet_osum recognize --model exp/x/final --list data/test.list --task auto --out exp/x/decode/own --lang en --num_beams 4
  wenet_osum recognize --model exp/x/final --list data/test.list --task ser --out exp/x/prompts/ser --prompts all
  torchrun --nproc_per_node 8 -m wenet_osum.bin.recognize --model exp/x/final --list data/test.list --task asr --out exp/x/decode/asr

exit status:
  0 done, with an error in the line of what could not be decoded; 1 nothing could be decoded; 2 a fault of the arguments or the list
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from wenet_osum import tasks
from wenet_osum.bin._exit import leave
from wenet_osum.decode import all_prompts, load, lock, longform, options, write
from wenet_osum.decode.jobs import Job, group_jobs, read_list
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.decode.progress import Progress, counted, speech_rate
from wenet_osum.records import Hypothesis
from wenet_osum.text.template import read_settings

Maker = Callable[[argparse.Namespace], Recognizer]
T = TypeVar("T")
PATIENCE = timedelta(days=7)  # processes may finish far apart


def main(argv: list[str] | None = None) -> int:
    """Decode, merge, and say faults as plain sentences. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="wenet_osum recognize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder or hub name")
    parser.add_argument("--list", required=True, help="data.list of shards, or a raw list (JSON lines)")
    parser.add_argument("--task", required=True, help="task name or tags, e.g. ser or '<TRANSCRIBE><AGE>'; auto: each utterance's own")
    parser.add_argument("--out", required=True, help="folder to write into")
    parser.add_argument("--prompts", choices=all_prompts.SETS, help="decode with every wording of the task, or with those in one language")
    options.add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        with _processes() as (rank, size):
            return sweep(args, rank, size) if args.prompts else recognize(args, rank, size)
    except (ValueError, OSError) as error:
        print(f"recognize: {error}", file=sys.stderr, flush=True)
        return 2


@contextmanager
def _processes():
    """(rank, number of processes) as torchrun says; alone without it."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield rank, size
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield rank, size
    finally:
        dist.destroy_process_group()


def _barrier(size: int) -> None:
    """Wait for all processes."""
    if size > 1:
        import torch.distributed as dist

        dist.barrier()


def _by_first(size: int, work: Callable[[], T]) -> T:
    """Do ``work`` in rank 0 alone. All processes get its value, or raise its ValueError or OSError."""
    if size == 1:
        return work()
    from wenet_osum.train.dist import from_rank_zero

    return from_rank_zero(work)


@contextmanager
def _alone(folder: str, size: int) -> Iterator[None]:
    """Hold the lock of an output folder in rank 0; all processes stop when another run has it."""
    with ExitStack() as stack:
        _by_first(size, lambda: stack.enter_context(lock.held(folder)))
        yield


def sweep(args: argparse.Namespace, rank: int, size: int) -> int:
    """Decode with every wording, one after the other. Returns the worst exit status."""
    runs, make, status = all_prompts.planned(args), all_prompts.loaded_once(), 0
    with _alone(args.out, size):
        for wording, one in runs:
            _say(rank, f"prompt {wording.folder}: {wording.text}")
            status = max(status, recognize(one, rank, size, make))
        if rank == 0:
            all_prompts.write(args.out, args.task, [wording for wording, _ in runs])
    return status


def recognize(args: argparse.Namespace, rank: int, size: int, make: Maker = load.recognizer) -> int:
    """Decode this process's share of the list with the model ``make`` loads; rank 0 merges.

    Returns the exit status. Raises ValueError for bad options, for a folder that another run writes
    into or that holds answers of other settings, and when answers are missing at the end.
    """
    options.search(args)
    jobs, dropped = read_list(args.list)
    with _alone(args.out, size):
        return _recognize(args, jobs, dropped, rank, size, make)


def _recognize(
    args: argparse.Namespace,
    jobs: list[Job],
    dropped: Counter,
    rank: int,
    size: int,
    make: Maker,
) -> int:
    if _by_first(size, lambda: _begin(args, jobs, dropped)):
        _say(rank, f"{args.out} is complete already: {len(jobs)} utterances")
        return 0
    done = write.finished(args.out)
    _barrier(size)  # nobody may append before all have seen what is finished
    groups = group_jobs([job for job in jobs if job.index not in done], args.batch_size, args.max_frames, longform.whole_s(args.longest_s))
    counts = Counter()
    if groups:
        counts = _decode(args, groups[rank::size], rank, make)
    counts = _sum(counts, size)
    keys = [job.key for job in jobs]
    _by_first(size, lambda: write.merge(args.out, keys))
    if rank == 0:
        _report(args, keys, len(done), counts)
    return 1 if jobs and counts["errors"] == len(jobs) else 0


def _begin(args: argparse.Namespace, jobs: list[Job], dropped: Counter) -> bool:
    """Prepare the folder; True when it is complete already."""
    if double := dropped["duplicate key"]:
        _say(0, f"{args.list}: {double} lines repeat a key; the first of each is decoded")
    # Other audio under the same keys is another list.
    listed = "\n".join(f"{job.key} {job.seconds:.3f}" for job in jobs)
    settings = {
        "model": args.model,
        "weights": write.fingerprint(args.model),
        "list": args.list,
        "keys": hashlib.sha256(listed.encode("utf-8", "surrogatepass")).hexdigest(),
        "task": args.task,
        **options.deciding(args),
    }
    return write.open_run(args.out, settings, {"labels": label_sets(args.model)})


def label_sets(model: str) -> dict[str, list[str]]:
    """Read the labels of each label field that a model chooses among, its own or the toolkit's."""
    own = read_settings(model).get("labels") or None
    fields = [f for name in tasks.names() for f in tasks.parse(name, own).label_fields]
    return {field.name: list(field.labels.names) for field in fields}


def _decode(args: argparse.Namespace, groups: list[list[Job]], rank: int, make: Maker) -> Counter:
    recognizer = make(args)
    jobs = [job for group in groups for job in group]
    progress = Progress(len(jobs), sum(job.seconds for job in jobs), quiet=rank != 0)
    with write.Writer(args.out, rank) as writer:
        for group, answers in recognizer.run(groups):
            writer.add(answers)
            _show_faults([answer for _, answer in answers], recognizer.counts)
            progress.add(len(group), sum(job.seconds for job in group))
    progress.close()
    return recognizer.counts


def _show_faults(answers: list[Hypothesis], counts: Counter) -> None:
    for answer in answers:
        if answer.error:
            counts[f"failed: {answer.error.split(':')[0]}"] += 1
            print(f"{answer.key}: {answer.error}", file=sys.stderr, flush=True)


def _sum(counts: Counter, size: int) -> Counter:
    if size == 1:
        return counts
    import torch.distributed as dist

    every: list = [None] * size
    dist.all_gather_object(every, counts)
    return sum(every, Counter())


def _report(args: argparse.Namespace, keys: list[str], before: int, counts: Counter) -> None:
    kept = f", {before} of them from an earlier run" if before else ""
    _say(0, f"{len(keys)} utterances{kept} → {Path(args.out) / write.HYPOTHESES}")
    if odd := sum(bool(write.WHITE.search(key)) for key in keys):
        _say(0, f"{odd} keys hold white space, which ends a key in {write.TEXT}: there it is _")
    if counts["steps"]:
        _say(0, f"ties within 1e-4: {counts['ties']} of {counts['steps']} steps ({100 * counts['ties'] / counts['steps']:.3f} %)")
    if rate := speech_rate(counts):
        _say(0, rate)
    if notes := counted(counts):
        _say(0, f"counted: {notes}")


def _say(rank: int, text: str) -> None:
    if rank == 0:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    leave(main())
