"""Files for people: python -m wenet_osum.bin.transcribe --model exp/x/final --task ser talk.wav interview.flac

Answers go to stdout in the order of the files, progress to stderr. Audio of any length is split at pauses and joined again.
Exit status: 0 done, 1 some file failed, 2 a fault of the arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Drop
from wenet_osum.decode import load, pipeline
from wenet_osum.decode.progress import Progress
from wenet_osum.records import Hypothesis, Utterance


def main(argv: list[str] | None = None) -> int:
    """Decode files and print. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="transcribe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="audio files")
    parser.add_argument("--model", required=True, help="model folder or hub name")
    parser.add_argument("--task", default="asr", help="task name or tags, e.g. ser or '<TRANSCRIBE><AGE>'")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: a line per file, as recognize writes it")
    load.add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return transcribe(args)
    except (ValueError, OSError) as error:
        print(f"transcribe: {error}", file=sys.stderr, flush=True)
        return 2


def transcribe(args: argparse.Namespace) -> int:
    """Answer the files; each is printed as soon as those before it are."""
    if args.task == "auto":
        raise ValueError("--task auto needs a list whose utterances name tasks; give transcribe a task name or tags")
    recogniser = load.recogniser(args)
    jobs = [_job(place, name) for place, name in enumerate(args.files)]
    groups = pipeline.group_jobs(jobs, args.batch_size, args.max_frames)
    progress = Progress(len(jobs), sum(job.seconds for job in jobs))
    waiting: dict[int, Hypothesis] = {}
    shown = failed = 0
    for group, answers in recogniser.run(groups):
        waiting |= dict(answers)
        progress.add(len(group), sum(job.seconds for job in group))
        while shown in waiting:
            answer = waiting.pop(shown)
            shown, failed = shown + 1, failed + (answer.error is not None)
            print(answer.to_json() if args.format == "json" else as_text(answer), flush=True)
    progress.close()
    return 1 if failed else 0


def _job(place: int, name: str) -> pipeline.Job:
    job = pipeline.Job(place, name, 0.0, lambda: (Utterance(name, name), Path(name)))
    try:
        job.seconds = read_duration(name)
    except Drop as drop:
        job.error = str(drop)
    return job


def as_text(answer: Hypothesis) -> str:
    """An answer for reading: the transcript, then a line for each label, timed word, reply and remark."""
    if answer.error:
        return f"{answer.key}: failed: {answer.error}"
    lines = [f"{answer.key}: {answer.transcript or ''}".rstrip()]
    for name, label in answer.labels.items():
        prob = answer.probs.get(name, {}).get(label)
        lines.append(f"  {name}: {label}" + (f" ({100 * prob:.0f} %)" if prob is not None else ""))
    lines += [f"  {word.start:9.2f} {word.end:9.2f}  {word.text}" for word in answer.words or []]
    if answer.reply is not None:
        lines.append(f"  reply: {answer.reply}")
    lines += [f"  could not be read: {name}: {json.dumps(found, ensure_ascii=False)}" for name, found in answer.unread.items()]
    return "\n".join(lines + ([f"  flags: {', '.join(answer.flags)}"] if answer.flags else []))


if __name__ == "__main__":
    sys.exit(main())
