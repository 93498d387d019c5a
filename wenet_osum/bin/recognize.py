"""Decode a list of utterances, for scoring.

Writes OUT/hyp.jsonl (a JSON line per utterance, in the order of the list) and OUT/text
(``key text``). Under torchrun all its processes share the work. Killed and started again with the
same command, it goes on. With --prompts the list is decoded once per wording, each in a folder of
OUT; score makes a table of how the figures move.

examples:
  wenet_osum recognize --model exp/x/final --list data/test.list --task ser --out exp/x/decode/ser
  wenet_osum recognize --model exp/x/final --list data/test.list --task auto \\
    --out exp/x/decode/own --lang en --num_beams 4
  wenet_osum recognize --model exp/x/final --list data/test.list --task ser \\
    --out exp/x/prompts/ser --prompts all
  torchrun --nproc_per_node 8 -m wenet_osum.bin.recognize --model exp/x/final \\
    --list data/test.list --task asr --out exp/x/decode/asr

exit status:
  0 done, with an error in the line of what could not be decoded; 1 nothing could be decoded;
  2 a fault of the arguments or the list
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.bin._arguments import new_parser
from wenet_osum.bin._exit import leave
from wenet_osum.bin._processes import Processes, joined
from wenet_osum.decode import all_prompts, load, longform, options, write
from wenet_osum.decode.counts import counted, speech_rate
from wenet_osum.decode.jobs import Job, group_jobs, read_list
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.progress import ProgressBar
from wenet_osum.records import Hypothesis
from wenet_osum.text.template import read_settings

# Loads the model that the arguments name.
Maker = Callable[[argparse.Namespace], Recognizer]


def main(argv: list[str] | None = None) -> int:
    """Decode, merge, and print faults as plain sentences. Returns the exit status."""
    args = parse(argv)
    try:
        with joined() as processes:
            if args.prompts:
                return sweep(args, processes)
            return recognize(args, processes)
    except (ValueError, OSError) as error:
        print(f"recognize: {error}", file=sys.stderr, flush=True)
        return 2


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("recognize", __doc__)
    add = parser.add_argument
    add("--model", required=True, help="model folder or hub name")
    add("--list", required=True, help="data.list of shards, or a raw list (JSON lines)")
    add(
        "--task",
        required=True,
        help="task name or tags, e.g. ser or '<TRANSCRIBE><AGE>'; auto: each utterance's own",
    )
    add("--out", required=True, help="folder to write into")
    add(
        "--prompts",
        choices=all_prompts.SETS,
        help="decode with every wording of the task, or with those in one language",
    )
    options.add_arguments(parser)
    return parser.parse_args(argv)


def sweep(args: argparse.Namespace, processes: Processes) -> int:
    """Decode with every wording, one after the other. Returns the worst exit status."""
    runs = all_prompts.planned(args)
    make = all_prompts.loaded_once()
    status = 0
    with processes.alone_in(args.out):
        for wording, one in runs:
            processes.say(f"prompt {wording.folder}: {wording.text}")
            ended = recognize(one, processes, make)
            status = max(status, ended)
        if processes.is_first:
            asked = [wording for wording, _ in runs]
            all_prompts.write(args.out, args.task, asked)
    return status


def recognize(args: argparse.Namespace, processes: Processes, make: Maker = load.recognizer) -> int:
    """Decode this process's share of the list with the model ``make`` loads; rank 0 merges.

    Returns the exit status, 1 when no utterance has an answer. Raises ValueError for bad options,
    for a folder that another run writes into or that holds answers of other settings, and when
    answers are missing at the end.
    """
    options.decode_options(args)
    jobs, dropped = read_list(args.list)
    with processes.alone_in(args.out):
        complete = processes.by_first(lambda: _begin(args, jobs, dropped))
        if complete:
            processes.say(f"{args.out} is complete already: {len(jobs)} utterances")
        else:
            _decode_and_merge(args, jobs, processes, make)
        failed = processes.by_first(lambda: write.all_failed(args.out))
        return 1 if failed else 0


def _begin(args: argparse.Namespace, jobs: list[Job], dropped: Counter) -> bool:
    """Prepare the folder; True when it is complete already."""
    double = dropped["duplicate key"]
    if double:
        _say(f"{args.list}: {double} lines repeat a key; the first of each is decoded")
    settings = {
        "model": args.model,
        "weights": write.fingerprint(args.model),
        "list": args.list,
        "keys": _hash(jobs),
        "task": args.task,
        **options.deciding(args),
    }
    labels = label_sets(args.model)
    return write.open_run(args.out, settings, {"labels": labels})


def _hash(jobs: list[Job]) -> str:
    """Return the SHA-256 of keys and durations: other audio under the same keys is another list."""
    lines = [f"{job.key} {job.seconds:.3f}" for job in jobs]
    listed = "\n".join(lines)
    data = listed.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()


def label_sets(model: str) -> dict[str, list[str]]:
    """Read the labels of each label field that a model chooses among, its own or the toolkit's."""
    own = read_settings(model).get("labels") or None
    found = {}
    for name in tasks.names():
        for field in tasks.parse(name, own).label_fields:
            found[field.name] = list(field.labels.names)
    return found


def _decode_and_merge(
    args: argparse.Namespace, jobs: list[Job], processes: Processes, make: Maker
) -> None:
    """Decode what is not finished yet, and merge the answers of all processes."""
    # Nobody may append before all have seen what is finished.
    done = write.finished(args.out)
    processes.wait()

    # Every process makes the same groups and takes its share of them. A model is loaded only where
    # there is something to decode.
    groups = group_jobs(
        [job for job in jobs if job.index not in done],
        args.batch_size,
        args.max_frames,
        longform.whole_s(args.longest_s),
    )
    counts = Counter()
    if groups:
        own = groups[processes.rank :: processes.size]
        counts = _decode(args, own, processes.rank, make)
    counts = processes.sum(counts)

    keys = [job.key for job in jobs]
    processes.by_first(lambda: write.merge(args.out, keys))
    if processes.is_first:
        _report(args, keys, len(done), counts)


def _decode(args: argparse.Namespace, groups: list[list[Job]], rank: int, make: Maker) -> Counter:
    """Decode groups of utterances and write their answers as they come; returns what was
    counted."""
    recognizer = make(args)
    counts = recognizer.counts
    jobs = [job for group in groups for job in group]
    progress = ProgressBar(len(jobs), audio_s=_seconds(jobs), quiet=rank != 0)
    with write.Writer(args.out, rank) as writer:
        for group, answers in recognizer.run(groups):
            writer.add(answers)
            for _, answer in answers:
                _show_fault(answer, counts)
            progress.add(len(group), _seconds(group))
    progress.close()
    return counts


def _seconds(jobs: list[Job]) -> float:
    """Return how much audio there is to decode, s."""
    return sum(job.seconds for job in jobs)


def _show_fault(answer: Hypothesis, counts: Counter) -> None:
    """Print the fault of an answer, if it has one, and count it by its kind."""
    if answer.error:
        kind = answer.error.split(":")[0]
        counts[f"failed: {kind}"] += 1
        _say(f"{answer.key}: {answer.error}")


def _report(args: argparse.Namespace, keys: list[str], before: int, counts: Counter) -> None:
    """Print what was decoded, what was odd, how fast it was, and what was counted."""
    kept = f", {before} of them from an earlier run" if before else ""
    out = Path(args.out) / write.HYPOTHESES
    _say(f"{len(keys)} utterances{kept} → {out}")

    odd = sum(bool(write.WHITE.search(key)) for key in keys)
    if odd:
        _say(f"{odd} keys hold white space, which ends a key in {write.TEXT}: there it is _")
    steps = counts["steps"]
    if steps:
        ties = counts["ties"]
        percent = 100 * ties / steps
        _say(f"ties within 1e-4: {ties} of {steps} steps ({percent:.3f} %)")
    for line in (speech_rate(counts), _notes(counts)):
        if line:
            _say(line)


def _notes(counts: Counter) -> str:
    """Describe what was counted while decoding; empty: nothing was."""
    notes = counted(counts)
    return f"counted: {notes}" if notes else ""


def _say(text: str) -> None:
    """Print a remark to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    leave(main())
