"""Score hypotheses against references: a table on stdout, score.json, score.md and, with --report, one HTML page.

examples:
  wenet_osum score --ref data/test.list --hyp exp/x/decode/ser --task ser --out exp/x/score
  wenet_osum score --set ser=data/ser.list,exp/x/decode/ser --set asr=data/asr.list,exp/x/decode/asr --normalizer basic --out exp/x/score --report
  wenet_osum score --ref data/test.list --hyp exp/x/decode/ser --compare exp/y/decode/ser --task ser --out exp/x_y

exit status:
  0 done, 1 references or hypotheses cannot be read or do not fit, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from wenet_osum import tasks
from wenet_osum.bin._references import Reference, contents, read_references, sound
from wenet_osum.records import Score, Utterance
from wenet_osum.score import compare_task, report, score_task
from wenet_osum.score.hypotheses import find_file, read_hypotheses
from wenet_osum.tasks import Task

PAGE_BYTES = 8_000_000  # audio in the page, all players together


class Trial(NamedTuple):
    """One task on one list."""

    task: Task
    ref: str
    hyp: str


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="wenet_osum score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ref", action="append", default=[], metavar="LIST", help="manifest or data.list of shards; one for all or one a task")
    parser.add_argument("--hyp", action="append", default=[], metavar="PATH", help="folder of recognize, JSON lines, or 'key text' lines; one a task")
    parser.add_argument("--task", action="append", default=[], help="task name or tags; repeat --task and --hyp together")
    parser.add_argument("--set", action="append", default=[], metavar="TASK=REF,HYP", help="the same three in one word; may be repeated")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for score.json, score.md and report.html")
    parser.add_argument("--report", action="store_true", help="also write the HTML page")
    parser.add_argument("--title", default="Scores", help="heading of the page")
    parser.add_argument("--normalizer", default="none", help="none, basic, whisper_en, wenet_zh, or by language: en:whisper_en,zh:wenet_zh")
    parser.add_argument("--train_list", metavar="LIST", help="training utterances for the text-only baseline (manifest or data.list)")
    parser.add_argument("--labels", metavar="YAML", help="the model's own label sets, {field: [label, …]}")
    parser.add_argument("--bar", action="append", default=[], metavar="TASK/METRIC[/SUBSET]>=N", help="a figure to reach, e.g. 'asr/wer/en<=8'")
    parser.add_argument("--compare", action="append", default=[], metavar="PATH", help="hypotheses of a second system, one a task: paired test")
    parser.add_argument("--exp", nargs="*", default=[], metavar="DIR", help="training folders whose log.jsonl is drawn in the page")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap draws")
    parser.add_argument("--seed", type=int, default=777, help="seed of the bootstrap")
    parser.add_argument("--no_audio", action="store_true", help="no audio players in the page")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    try:
        return run(args, shlex.join(["score", *(sys.argv[1:] if argv is None else argv)]))
    except (ValueError, OSError) as error:
        print(f"score: {error}", file=sys.stderr)
        return 1


def run(args: argparse.Namespace, command: str) -> int:
    """Score every trial and write the files. Raises ValueError for whatever the user has to mend."""
    trials, bars = plan(args), report.parse_bars(args.bar)
    train = [r.utterance for r in read_references(args.train_list)] if args.train_list else []
    lists = {ref: read_references(ref) for ref in dict.fromkeys(t.ref for t in trials)}
    scores, comparison, data = [], [], []
    for i, trial in enumerate(trials):
        references = [r.utterance for r in lists[trial.ref]]
        found = _score(trial, references, args, train)
        scores += found
        path = find_file(trial.hyp, trial.task)
        data.append({"task": trial.task.name, "ref": trial.ref, "hyp": str(path), "utterances": len(references)})
        if args.compare:
            comparison += _compare(trial, args.compare[i], references, args)
    for sentence in report.unmatched(scores, bars):
        print(f"score: {sentence}", file=sys.stderr)
    meta = facts(args, command, lists, trials)
    out = Path(args.out)
    report.write_json(scores, out / "score.json", {**meta, "data": data, "comparison": comparison})
    report.write_markdown(scores, out / "score.md", meta, bars)
    if args.report:
        audio = {} if args.no_audio else sounds(scores, trials, lists)
        report.write_report(scores, out / "report.html", meta=meta, bars=bars, exp=args.exp, audio=audio)
    print(report.markdown_table(scores, bars), end="")
    for row in comparison:
        print("{task} {metric} {subset}: difference {difference:+.2f} [{low:+.2f}, {high:+.2f}], p = {p_value:.3f}".format(**row))
    print(f"written: {', '.join(str(out / n) for n in ('score.json', 'score.md', *(['report.html'] if args.report else [])))}")
    return 0


def plan(args: argparse.Namespace) -> list[Trial]:
    """The trials the flags name. Raises ValueError when their numbers do not fit."""
    labels = yaml.safe_load(Path(args.labels).read_text(encoding="utf-8")) if args.labels else None
    rows = []
    for text in args.set:
        name, _, paths = text.partition("=")
        ref, comma, hyp = paths.rpartition(",")
        if not (name and ref and comma and hyp):
            raise ValueError(f"--set {text!r} must read TASK=REF,HYP, e.g. ser=data/test/ser.jsonl,exp/decode/ser")
        rows.append((name, ref, hyp))
    refs = args.ref * len(args.task) if len(args.ref) == 1 else args.ref
    if not len(refs) == len(args.hyp) == len(args.task):
        numbers = f"{len(args.ref)}, {len(args.hyp)} and {len(args.task)}"
        raise ValueError(f"--ref, --hyp and --task belong together, got {numbers}; one --ref may serve all")
    rows += zip(args.task, refs, args.hyp, strict=True)
    if not rows:
        raise ValueError("nothing to score; give --ref LIST --hyp PATH --task NAME, or --set TASK=REF,HYP")
    if args.compare and len(args.compare) != len(rows):
        raise ValueError(f"--compare needs one path a task: {len(rows)} tasks, {len(args.compare)} paths")
    return [Trial(tasks.parse(name, labels), ref, hyp) for name, ref, hyp in rows]


def _score(trial: Trial, references: list[Utterance], args: argparse.Namespace, train: list[Utterance]) -> list[Score]:
    hypotheses, odd = read_hypotheses(trial.hyp, trial.task)
    for sentence in odd:
        print(f"score: {sentence}", file=sys.stderr)
    scores = score_task(trial.task, references, hypotheses, args.normalizer, resamples=args.resamples, seed=args.seed, train=train)
    detail = scores[0].detail
    for name, what in (("missing", "references have no answer, counted as wrong"), ("extra", "answers have no reference, left out")):
        if detail.get(name):
            print(f"score: {trial.task.name}: {detail[name]} {what}", file=sys.stderr)
    return scores


def _compare(trial: Trial, second: str, references: list[Utterance], args: argparse.Namespace) -> list[dict[str, Any]]:
    sides = [read_hypotheses(path, trial.task)[0] for path in (trial.hyp, second)]
    found = compare_task(trial.task, references, *sides, args.normalizer, resamples=args.resamples, seed=args.seed)
    return [{"task": trial.task.name, "field": f, "metric": m, "subset": s, "second": second, **d._asdict()} for (f, m, s), d in found.items()]


def facts(args: argparse.Namespace, command: str, lists: dict[str, list[Reference]], trials: list[Trial]) -> dict[str, Any]:
    """The head of the report: what was run, on what, where."""
    meta = {"title": args.title, "date": time.strftime("%Y-%m-%d %H:%M"), "command": command, "commit": commit()}
    meta |= {"data hash": f"sha256:{report.data_hash(map(contents, lists.values()))}", "normalizer": args.normalizer, "decoding": decoding(trials)}
    return meta | {"machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"}


def commit() -> str:
    """The toolkit's commit, marked when files differ from it; empty outside a git checkout."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + ("-dirty" if head and git("status", "--porcelain", "--untracked-files=no") else "")
    except OSError:  # no git on this machine
        return ""


def decoding(trials: list[Trial]) -> str:
    """The settings recognize left beside its answers, where they are the same for all tasks."""
    found = []
    for trial in trials:
        path = find_file(trial.hyp, trial.task).parent / "settings.json"
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    if not found or not all(isinstance(f, dict) for f in found):
        return ""
    same = {k: v for k, v in found[0].items() if isinstance(v, (str, int, float)) and all(f.get(k) == v for f in found)}
    return ", ".join(f"{k} {v}" for k, v in same.items())


def sounds(scores: list[Score], trials: list[Trial], lists: dict[str, list[Reference]]) -> dict[tuple[str, str], tuple[bytes, str]]:
    """Audio of the first worst utterances, as far as it is at hand and small."""
    places = {t.task.name: {r.utterance.key: r for r in lists[t.ref]} for t in trials}
    found: dict[tuple[str, str], tuple[bytes, str]] = {}
    room = PAGE_BYTES
    for score in scores:
        for row in score.detail.get("worst", [])[: report.PLAYERS]:
            name = (score.task, row["key"])
            audio = sound(places[score.task][row["key"]], room) if name not in found else None
            if audio:
                found[name] = audio
                room -= len(audio[0])
    return found


if __name__ == "__main__":
    sys.exit(main())
