"""Answer audio files, for people and their tools.

Audio of any length is split at pauses and joined again. Answers go to stdout in the order of the files, each as soon as it is there;
progress and remarks to stderr.

formats:
  txt        transcript, labels with probabilities, word times, reply (the default)
  json       a line of JSON a file, as recognize writes it
  srt, vtt   subtitles out of word times; the labels are left out
  textgrid   Praat: a tier of words, and one for each label
  ctm        NIST lines: recording (the file's name without suffix), channel, start, duration, word; the labels are left out

srt, vtt, textgrid and ctm need word times: without --task they ask for srwt, and a task without <ALIGN> is refused. srt, vtt and
textgrid are a document a file: give several files with --out_dir. What failed has its line in txt and json on stdout; everywhere else
stderr says it and nothing is written, also where the model gave no readable word times.

examples:
  wenet_osum transcribe --model exp/x/final a.wav b.flac
  wenet_osum transcribe --model exp/x/final --task '<TRANSCRIBE><EMOTION><GENDER>' --format json *.wav > answers.jsonl
  wenet_osum transcribe --model exp/x/final --format srt talk.mp3 > talk.srt
  wenet_osum transcribe --model exp/x/final --task '<TRANSCRIBE><ALIGN><EMOTION>' --format textgrid --out_dir grids *.wav
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

from wenet_osum import tasks
from wenet_osum.decode import load, options
from wenet_osum.decode.progress import Progress, counted
from wenet_osum.decode.speech import Transcriber, make_job
from wenet_osum.decode.text_formats import FORMATS
from wenet_osum.files import write_bytes
from wenet_osum.records import Hypothesis

OLD_NAMES = {"text": "txt"}  # of formats, still taken


def main(argv: list[str] | None = None) -> int:
    """Decode files and print. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="wenet_osum transcribe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="audio files; - is stdin")
    parser.add_argument("--model", required=True, help="model folder or hub name")
    parser.add_argument("--task", help="task name or tags, e.g. ser or '<TRANSCRIBE><AGE>'; default: asr, or srwt where the format needs word times")
    parser.add_argument("--format", choices=FORMATS, default="txt", type=lambda name: OLD_NAMES.get(name, name), help="default: txt")
    parser.add_argument("--out_dir", help="write a file for each input here, called like it, instead of to stdout")
    options.add_arguments(parser)
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # file names may hold any bytes
    try:
        return transcribe(args)
    except BrokenPipeError:  # whoever read our answers has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        print(f"transcribe: {error}", file=sys.stderr, flush=True)
        return 2


def transcribe(args: argparse.Namespace) -> int:
    """Answer the files; each is written as soon as those before it are."""
    paths = check(args)
    transcriber = Transcriber(load.recognizer(args))
    jobs = [make_job(i, sys.stdin.buffer if name == "-" else name, key="stdin" if name == "-" else name) for i, name in enumerate(args.files)]
    progress = Progress(len(jobs), sum(job.seconds for job in jobs))
    failed = 0
    for path, answer in zip(paths, transcriber.answers(jobs, progress=progress), strict=True):
        failed += not show(answer, args.format, path)
    progress.close()
    if notes := counted(transcriber.recognizer.counts):
        print(f"counted: {notes}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def check(args: argparse.Namespace) -> list[Path | None]:
    """Complete the arguments and return where each answer goes; None is stdout. Raises ValueError before a model is loaded."""
    form = FORMATS[args.format]
    args.task = args.task or ("srwt" if form.timed else "asr")
    if args.task == "auto":
        raise ValueError("--task auto needs a list whose utterances name tasks; give transcribe a task name or tags")
    if form.timed and not any(field.attribute == "words" for field in tasks.parse(args.task).fields):
        raise ValueError(f"--format {args.format} needs word times, and --task {args.task} asks for none; add <ALIGN>, or give --format txt or json")
    if args.files.count("-") > 1:
        raise ValueError("- stands more than once among the files; stdin can be read once")
    names = ["stdin" if name == "-" else Path(name).stem for name in args.files]
    doubled = [name for name, n in Counter(names).items() if n > 1]
    if doubled and (args.out_dir or args.format == "ctm"):
        raise ValueError(f"{doubled[0]!r} stands for several files: answers go by the name without folder and suffix; run such files apart")
    if not args.out_dir:
        if form.document and len(args.files) > 1:
            raise ValueError(f"--format {args.format} is a document a file, and stdout takes one; give --out_dir for {len(args.files)} files")
        return [None] * len(names)
    Path(args.out_dir).mkdir(parents=True, exist_ok=True)
    return [Path(args.out_dir) / (name + form.suffix) for name in names]


def show(answer: Hypothesis, format: str, path: Path | None) -> bool:
    """Write one answer; False when there is none to write, which txt and json say on stdout, the others on stderr."""
    form = FORMATS[format]
    lost = answer.unread.get("words") if form.timed else None
    reason = answer.error or (f"no word times in {answer.text[:80]!r}" if lost and not answer.words else None)
    if reason and (form.timed or path):
        print(f"{answer.key}: failed: {reason}", file=sys.stderr, flush=True)
        return False
    if lost:
        print(f"{answer.key}: left out, for it has no times: {lost}", file=sys.stderr, flush=True)
    if path is None:
        sys.stdout.write(form.write(answer))
        sys.stdout.flush()
    else:
        text = form.write(answer).encode("utf-8", "backslashreplace")
        write_bytes(path, text)
    return not reason


if __name__ == "__main__":
    sys.exit(main())
