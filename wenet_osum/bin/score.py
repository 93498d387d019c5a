"""Score hypotheses against references: a table on stdout, score.json, score.md and, with --report, one HTML page.

examples:
  wenet_osum score --ref data/test.list --hyp exp/x/decode/ser --task ser --out exp/x/score
  wenet_osum score --set ser=data/ser.list,exp/x/decode/ser --set asr=data/asr.list,exp/x/decode/asr --normalizer basic --out exp/x/score --report
  wenet_osum score --ref data/test.list --hyp exp/x/decode/ser --compare exp/y/decode/ser --task ser --out exp/x_y
  wenet_osum score --ref ravdess.jsonl --label_map ravdess --hyp exp/x/decode/ravdess --task '<EMOTION>' --out exp/x/ravdess
  wenet_osum score --ref chat.jsonl --hyp exp/x/decode/sttc --task sttc --judge http://localhost:8000/v1 Qwen2.5-72B-Instruct --out exp/x/chat

--hyp may also be the folder of recognize --prompts all: its scoring prompt is scored, and a table shows how figures move with the wording.
A judge's key is read from the environment variable OPENAI_API_KEY; its verdicts are kept, so that scoring again asks nothing twice.

exit status:
  0 done, 1 references or hypotheses cannot be read or do not fit, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from wenet_osum import tasks
from wenet_osum.bin._facts import decoding, facts
from wenet_osum.bin._labels import disagreements, label_sets
from wenet_osum.bin._references import Reference, read_references, sound
from wenet_osum.records import Score, Utterance
from wenet_osum.score import bars, compare_task, comparison, counted, prompts, report, score_task
from wenet_osum.score.hypotheses import find_file, read_hypotheses
from wenet_osum.score.judge import RUBRIC, Judge
from wenet_osum.tasks import Task, label_map

PAGE_BYTES = 8_000_000  # audio in the page, all players together


class Trial(NamedTuple):
    """One task on one list."""

    task: Task
    ref: str
    hyp: str  # answers; with --prompts those of the scoring prompt
    labels: label_map.LabelMap | None = None
    asked: list[prompts.Wording] = []  # noqa: RUF012  # every prompt that was decoded


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
    parser.add_argument("--labels", metavar="YAML", help="label sets {field: [label, …]}; else those beside the answers")
    parser.add_argument("--label_map", action="append", default=[], metavar="NAME", help="how a test set spells labels (name or yaml); one a task")
    parser.add_argument("--bar", action="append", default=[], metavar="TASK/METRIC[/SUBSET]>=N", help="a figure to reach, e.g. 'asr/wer/en<=8'")
    parser.add_argument("--compare", action="append", default=[], metavar="PATH", help="hypotheses of a second system, one a task: paired test")
    parser.add_argument("--judge", nargs=2, metavar=("URL", "MODEL"), help="judge replies through an OpenAI-compatible endpoint")
    parser.add_argument("--judge_rubric", metavar="FILE", help="what the judge is told instead of the built-in rubric")
    parser.add_argument("--judge_cache", metavar="FILE", help="verdicts so far (OUT/judge.jsonl)")
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
    trials, goals, judge = plan(args), bars.parse_bars(args.bar), _judge(args)
    train = [r.utterance for r in read_references(args.train_list)] if args.train_list else []
    _say_label_sets(args, trials)
    lists = {ref: read_references(ref) for ref in dict.fromkeys(t.ref for t in trials)}
    scores, compared, asked, data = [], [], [], []
    for i, trial in enumerate(trials):
        references, left_out = _references(trial, lists[trial.ref])
        own = _score(trial, references, args, train, judge)
        scores += own
        row = {"task": trial.task.name, "ref": trial.ref, "hyp": trial.hyp, "utterances": len(references)}
        data.append(row | {"left_out_by_map": left_out, "left_out": counted.left_out(own)})
        if args.compare:
            compared += _compare(trial, args.compare[i], references, args, own, judge)
        if trial.asked:
            asked += prompts.sensitivity(trial.task, references, trial.asked, args.normalizer)
    for sentence in bars.unmatched(scores, goals):
        print(f"score: {sentence}", file=sys.stderr)
    meta = _meta(args, command, lists, trials, judge, scores)
    tree = {"data": data, "comparison": compared, "prompts": asked}
    files = _write(args, scores, meta, goals, tree, trials, lists)
    print(report.markdown_table(scores, goals), end="")
    print("".join(f"{line}\n" for line in comparison.lines(compared)) + prompts.markdown(asked), end="")
    print(f"written: {', '.join(map(str, files))}")
    return 0


def _write(
    args: argparse.Namespace,
    scores: list[Score],
    meta: dict[str, str],
    goals: dict,
    tree: dict,
    trials: list[Trial],
    lists: dict[str, list[Reference]],
) -> list[Path]:
    """score.json, score.md and the page; returns their paths."""
    out = Path(args.out)
    files = [out / "score.json", out / "score.md"]
    report.write_json(scores, files[0], {**meta, **tree})
    beside = [counted.markdown(scores), comparison.markdown(tree["comparison"]), prompts.markdown(tree["prompts"])]
    report.write_markdown(scores, files[1], meta, goals, beside)
    if args.report:
        files.append(out / "report.html")
        audio = {} if args.no_audio else sounds(scores, trials, lists)
        wordings = {t.task.name: t.asked for t in trials if t.asked}
        sections = {comparison.TITLE: comparison.section(tree["comparison"]), prompts.TITLE: prompts.section(tree["prompts"], wordings)}
        report.write_report(scores, files[2], meta=meta, bars=goals, exp=args.exp, audio=audio, sections=sections)
    return files


def _meta(
    args: argparse.Namespace, command: str, lists: dict[str, list[Reference]], trials: list[Trial], judge: Judge | None, scores: list[Score]
) -> dict[str, str]:
    """The head of the report."""
    maps = {t.labels.name: t.labels.source for t in trials if t.labels}
    meta = {"title": args.title, **facts(command, lists.values()), "normalizer": args.normalizer}
    meta |= {"label map": "; ".join(f"{name} ({source})" for name, source in maps.items())}
    meta |= {"decoding": decoding(find_file(t.hyp, t.task) for t in trials)}
    said = [s.detail["judge"] for s in scores if "judge" in s.detail]
    if judge and said:
        answered = ", ".join(dict.fromkeys(name for one in said for name in one["answered_by"]))
        meta["judge"] = f"{judge.model} at {judge.shown}, answered by {answered or 'nobody'}, rubric sha256:{said[0]['rubric_sha256']}"
        print(f"score: judge: {judge.asked} replies asked about now, others known from {judge.cache}", file=sys.stderr)
    return meta


def _judge(args: argparse.Namespace) -> Judge | None:
    if not args.judge:
        return None
    rubric = Path(args.judge_rubric).read_text(encoding="utf-8") if args.judge_rubric else RUBRIC
    return Judge(*args.judge, cache=args.judge_cache or Path(args.out) / "judge.jsonl", rubric=rubric, seed=args.seed)


def _references(trial: Trial, found: list[Reference]) -> tuple[list[Utterance], dict[str, int]]:
    """The references with our labels, and how many have a label the map leaves out."""
    if not trial.labels:
        return [r.utterance for r in found], {}
    left_out: Counter = Counter()
    mapped = [trial.labels.mapped(r.utterance, left_out) for r in found]
    dropped = {name: times for name, times in sorted(left_out.items()) if times}
    if dropped:
        said = ", ".join(f"{name} {times}" for name, times in dropped.items())
        print(f"score: {trial.task.name}: left out by label map {trial.labels.name}: {said}", file=sys.stderr)
    return mapped, dropped


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
    if len(args.label_map) not in (0, 1, len(rows)):
        raise ValueError(f"--label_map: give one for all, or one a task: {len(rows)} tasks, {len(args.label_map)} maps")
    maps = args.label_map or [None]
    maps = maps * len(rows) if len(maps) == 1 else maps
    return [_trial(*row, one, labels) for row, one in zip(rows, maps, strict=True)]


def _trial(
    name: str, ref: str, hyp: str, map_name: str | None, labels: dict[str, list[str]] | None
) -> Trial:
    """Make a trial; unless label sets are given, those beside its answers hold."""
    asked = prompts.wordings(hyp)
    found = str(asked[0].hyp) if asked else hyp
    labels = labels or label_sets(found, tasks.parse(name))
    mapped = label_map.load(map_name, labels) if map_name else None
    return Trial(tasks.parse(name, labels), ref, found, mapped, asked)


def _score(trial: Trial, references: list[Utterance], args: argparse.Namespace, train: list[Utterance], judge: Judge | None) -> list[Score]:
    hypotheses, odd = read_hypotheses(trial.hyp, trial.task)
    for sentence in odd:
        print(f"score: {sentence}", file=sys.stderr)
    scores = score_task(trial.task, references, hypotheses, args.normalizer, resamples=args.resamples, seed=args.seed, train=train, judge=judge)
    detail = scores[0].detail
    for name, what in (("missing", "references have no answer, counted as wrong"), ("extra", "answers have no reference, left out")):
        if detail.get(name):
            print(f"score: {trial.task.name}: {detail[name]} {what}", file=sys.stderr)
    _say_left_out(trial.task, scores, len(references))
    return scores


def _say_left_out(task: Task, scores: list[Score], whole: int) -> None:
    """Say which fields rest on a part of the references only, or on none."""
    attributes = {field.name: field.attribute for field in task.fields}
    for name, times in counted.left_out(scores).items():
        said = f"{times} of {whole} references have no {attributes[name]}, left out of its figures"
        print(f"score: {task.name}: {said}", file=sys.stderr)
    for name in scores[0].detail.get("not_in_references", []):
        said = f"no reference has {attributes[name]}, {name} is not scored"
        print(f"score: {task.name}: {said}", file=sys.stderr)


def _say_label_sets(args: argparse.Namespace, trials: list[Trial]) -> None:
    """Say where answers were chosen from different label sets, unless --labels decides."""
    answers = [(trial.hyp, label_sets(trial.hyp, trial.task)) for trial in trials]
    beside = zip(args.compare, trials, strict=False)
    answers += [(path, label_sets(path, trial.task)) for path, trial in beside]
    for sentence in [] if args.labels else disagreements(answers):
        print(f"score: {sentence}", file=sys.stderr)


def _compare(
    trial: Trial, second: str, references: list[Utterance], args: argparse.Namespace, own: list[Score], judge: Judge | None
) -> list[dict[str, Any]]:
    answers, odd = read_hypotheses(second, trial.task)
    for sentence in odd:
        print(f"score: {sentence}", file=sys.stderr)
    first = read_hypotheses(trial.hyp, trial.task)[0]
    how = {"resamples": args.resamples, "seed": args.seed, "judge": judge}
    found = compare_task(trial.task, references, first, answers, args.normalizer, **how)
    scored = {(s.detail["field"], s.metric, s.subset): s for s in own}
    rows, paths = [], (trial.hyp, second)
    for name, d in found.items():
        value, about = scored[name].value, scored[name].about
        both = (value, value - d.difference)
        rows.append(comparison.row(trial.task.name, name, both, d, paths, about.lower_is_better))
    return rows


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
