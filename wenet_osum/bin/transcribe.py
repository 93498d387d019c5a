"""Answer audio files, for people and their tools.

Audio of any length is split at pauses and joined again. Answers go to stdout in the order of the
files, each as soon as it is there; progress and remarks to stderr.

formats:
  txt        transcript, labels with probabilities, word times, reply (the default)
  json       one line of JSON per file, as recognize writes it
  srt, vtt   subtitles made from word times; the labels are left out
  textgrid   Praat: a tier of words, and one for each label
  ctm        NIST lines: recording (the file's name without suffix), channel, start, duration,
             word; the labels are left out

srt, vtt, textgrid and ctm need word times: without --task they ask for srwt, and a task without
<ALIGN> is refused. srt, vtt and textgrid are one document per file: give several files with
--out_dir. What failed has its line in txt and json on stdout; everywhere else stderr says it and
nothing is written, also where the model gave no readable word times.

examples:
  wenet_osum transcribe --model exp/x/final a.wav b.flac
  wenet_osum transcribe --model exp/x/final --task '<TRANSCRIBE><EMOTION><GENDER>' \\
    --format json *.wav > answers.jsonl
  wenet_osum transcribe --model exp/x/final --format srt talk.mp3 > talk.srt
  wenet_osum transcribe --model exp/x/final --task '<TRANSCRIBE><ALIGN><EMOTION>' \\
    --format textgrid --out_dir grids *.wav
  ffmpeg -i film.mkv -f wav - | wenet_osum transcribe --model exp/x/final -

exit status:
  0 done, 1 some file failed, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections import Counter
from pathlib import Path

from wenet_osum import lookup, tasks
from wenet_osum.bin._arguments import new_parser
from wenet_osum.decode import load, options
from wenet_osum.decode.counts import counted
from wenet_osum.decode.speech import Transcriber, make_job
from wenet_osum.decode.text_formats import FORMATS
from wenet_osum.files import write_bytes
from wenet_osum.progress import ProgressBar
from wenet_osum.records import Hypothesis

# Former names of formats, still taken.
OLD_NAMES = {"text": "txt"}
# Name of standard input among the files, and its key.
STDIN = "-"
STDIN_KEY = "stdin"
# Formats that need word times ask for this task unless another is given.
TIMED_TASK = "srwt"
# Characters of an answer that are shown when it cannot be used.
SHOWN = 80


def main(argv: list[str] | None = None) -> int:
    """Decode files and print. Returns the exit status."""
    args = parse(argv)
    # File names may hold any bytes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        return transcribe(args)
    except BrokenPipeError:
        # Whoever read our answers has left: nothing more goes there, at exit neither.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        print(f"transcribe: {error}", file=sys.stderr, flush=True)
        return 2


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("transcribe", __doc__)
    add = parser.add_argument
    add("files", nargs="+", help="audio files; - is stdin")
    add("--model", required=True, help="model folder or hub name")
    add(
        "--task",
        help="task name or tags, e.g. ser or '<TRANSCRIBE><AGE>'; default: asr, or srwt where "
        "the format needs word times",
    )
    add(
        "--format",
        choices=FORMATS,
        default="txt",
        type=lambda name: OLD_NAMES.get(name, name),
        help="default: txt",
    )
    add(
        "--out_dir",
        help="write a file for each input here, called like it, instead of to stdout",
    )
    options.add_arguments(parser)
    return parser.parse_args(argv)


def transcribe(args: argparse.Namespace) -> int:
    """Answer the files; each is written as soon as those before it are.

    Returns the exit status. Raises ValueError for bad arguments.
    """
    paths = check(args)
    transcriber = Transcriber(load.recognizer(args))
    jobs = []
    for number, name in enumerate(args.files):
        if name == STDIN:
            job = make_job(number, sys.stdin.buffer, key=STDIN_KEY)
        else:
            job = make_job(number, name, key=name)
        jobs.append(job)

    progress = ProgressBar(len(jobs), audio_s=sum(job.seconds for job in jobs))
    answers = transcriber.answers(jobs, progress=progress)
    failed = 0
    for path, answer in zip(paths, answers, strict=True):
        if not show(answer, args.format, path):
            failed += 1
    progress.close()
    notes = counted(transcriber.recognizer.counts)
    if notes:
        print(f"counted: {notes}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def check(args: argparse.Namespace) -> list[Path | None]:
    """Complete the arguments and return where each answer goes; None is stdout.

    Raises ValueError, before a model is loaded, for arguments that do not go together.
    """
    lookup.add_plugins(args.plugins)
    form = FORMATS[args.format]
    if not args.task:
        args.task = TIMED_TASK if form.timed else "asr"
    _check_task(args)
    names = _names(args)
    if not args.out_dir:
        if form.document and len(names) > 1:
            raise ValueError(
                f"--format {args.format} is one document per file, and stdout takes one; "
                f"give --out_dir for {len(names)} files"
            )
        return [None] * len(names)

    folder = Path(args.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / f"{name}{form.suffix}" for name in names]


def _check_task(args: argparse.Namespace) -> None:
    """Raise ValueError for a task that cannot be asked of files, or not in this format."""
    if args.task == "auto":
        raise ValueError(
            "--task auto needs a list whose utterances name tasks; "
            "give transcribe a task name or tags"
        )
    fields = tasks.parse(args.task).fields
    has_times = any(field.attribute == "words" for field in fields)
    if FORMATS[args.format].timed and not has_times:
        raise ValueError(
            f"--format {args.format} needs word times, and --task {args.task} asks for none; "
            "add <ALIGN>, or give --format txt or json"
        )


def _names(args: argparse.Namespace) -> list[str]:
    """Return the names of the answers. Raises ValueError where two answers would have one name."""
    if args.files.count(STDIN) > 1:
        raise ValueError("- stands more than once among the files; stdin can be read once")
    names = []
    for file in args.files:
        name = STDIN_KEY if file == STDIN else Path(file).stem
        names.append(name)
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled and (args.out_dir or args.format == "ctm"):
        raise ValueError(
            f"{doubled[0]!r} stands for several files: answers go by the name without folder "
            "and suffix; run such files apart"
        )
    return names


def show(answer: Hypothesis, format: str, path: Path | None) -> bool:
    """Write one answer; False when there is none to write, which txt and json say on stdout, the
    others on stderr."""
    form = FORMATS[format]
    lost = answer.unread.get("words") if form.timed else None
    reason = answer.error
    if not reason and lost and not answer.words:
        reason = f"no word times in {answer.text[:SHOWN]!r}"
    if reason and (form.timed or path):
        print(f"{answer.key}: failed: {reason}", file=sys.stderr, flush=True)
        return False

    if lost:
        print(
            f"{answer.key}: left out, for it has no times: {lost}",
            file=sys.stderr,
            flush=True,
        )
    text = form.write(answer)
    if path is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        data = text.encode("utf-8", "backslashreplace")
        write_bytes(path, data)
    return not reason


if __name__ == "__main__":
    sys.exit(main())
