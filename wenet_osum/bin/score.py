"""Score hypotheses against references: a table on stdout, score.json, score.md and, with --report, one HTML page.

examples:
  wenet_osum score --ref data/test.list --hyp exp/x/decode/ser --task ser --out exp/x/score
  wenet_osum score --set ser=data/ser.list,exp/x/decode/ser --set asr=data/asr.list,exp/x/decode/asr --normalizer basic --out exp/x/score --report
  wenet_osum score --ref data/test.list --hyp exp/x/decode/ser --compare exp/y/decode/ser --task ser --out exp/x_y
  wenet_osum score --set asr=data/test.list,exp/a/decode --resample speaker --out exp/a/score
  wenet_osum score --set asr=data/dev.list,exp/a/decode --bar 'asr/wer<=60' --require_bars --out exp/a/score
  wenet_osum score --ref ravdess.jsonl --label_map ravdess --hyp exp/x/decode/ravdess --task '<EMOTION>' --out exp/x/ravdess
  wenet_osum score --ref chat.jsonl --hyp exp/x/decode/sttc --task sttc --judge http://localhost:8000/v1 Qwen2.5-72B-Instruct --out exp/x/chat

--hyp may also be the folder of recognize --prompts all: its scoring prompt is scored, and a table shows how figures move with the wording.
A judge's key is read from the environment variable OPENAI_API_KEY; its verdicts are kept, so that scoring again asks nothing twice.

exit status:
  0 done, 1 references or hypotheses cannot be read or do not fit, 2 a fault of the arguments,
  3 with --require_bars: a figure misses its --bar
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
from wenet_osum.bin._labels import disagreements, label_sets
from wenet_osum.bin._metadata import decoding, facts
from wenet_osum.bin._references import Reference, audio_of, read_references
from wenet_osum.records import Score, Utterance
from wenet_osum.score import (
    compare_task,
    comparison,
    count_table,
    prompt_sensitivity,
    report,
    resampling,
    score_task,
    targets,
)
from wenet_osum.score.hypotheses import find_file, read_hypotheses
from wenet_osum.score.judge import RUBRIC, Judge
from wenet_osum.score.task_section import PLAYERS
from wenet_osum.tasks import Task, label_map

# Below so many, percentiles of a cluster bootstrap lie too close (Cameron, Gelbach and Miller, 2008,
# 10.1162/rest.90.3.414).
FEW_SPEAKERS = 10
MISSED = 3  # exit status when a bar that was required is missed
PAGE_BYTES = 8_000_000  # audio in the page, all players together


class TestSet(NamedTuple):
    """One task on one list."""

    task: Task
    ref: str
    hyp: str  # answers; with --prompts those of the scoring prompt
    labels: label_map.LabelMap | None = None
    asked: list[prompt_sensitivity.Wording] = []  # noqa: RUF012  # every prompt that was decoded


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
    parser.add_argument("--require_bars", action="store_true", help="exit status 3 when a figure misses its --bar, so that a recipe stops")
    parser.add_argument("--compare", action="append", default=[], metavar="PATH", help="hypotheses of a second system, one a task: paired test")
    parser.add_argument("--judge", nargs=2, metavar=("URL", "MODEL"), help="judge replies through an OpenAI-compatible endpoint")
    parser.add_argument("--judge_rubric", metavar="FILE", help="what the judge is told instead of the built-in rubric")
    parser.add_argument("--judge_cache", metavar="FILE", help="verdicts so far (OUT/judge.jsonl)")
    parser.add_argument("--exp", nargs="*", default=[], metavar="DIR", help="training folders whose log.jsonl is drawn in the page")
    parser.add_argument("--resample", choices=resampling.UNITS, default="utterance", help="what the bootstrap draws: single utterances, or speakers with all of theirs")
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
    """Score every test set and write the files. Raises ValueError for whatever the user has to mend."""
    test_sets, goals, judge = plan(args), targets.parse_targets(args.bar), _judge(args)
    train = [r.utterance for r in read_references(args.train_list)] if args.train_list else []
    _say_label_sets(args, test_sets)
    lists = {ref: read_references(ref) for ref in dict.fromkeys(t.ref for t in test_sets)}
    scores, compared, asked, data = [], [], [], []
    for i, test_set in enumerate(test_sets):
        references, left_out = _references(test_set, lists[test_set.ref])
        own = _score(test_set, references, args, train, judge)
        scores += own
        row = {"task": test_set.task.name, "ref": test_set.ref, "hyp": test_set.hyp, "utterances": len(references)}
        data.append(row | {"left_out_by_map": left_out, "left_out": count_table.left_out(own)})
        if args.compare:
            compared += _compare(test_set, args.compare[i], references, args, own, judge)
        if test_set.asked:
            asked += prompt_sensitivity.sensitivity(test_set.task, references, test_set.asked, args.normalizer)
    for sentence in targets.unmatched(scores, goals):
        print(f"score: {sentence}", file=sys.stderr)
    meta = _meta(args, command, lists, test_sets, judge, scores)
    tree = {"data": data, "comparison": compared, "prompts": asked}
    files = _write(args, scores, meta, goals, tree, test_sets, lists)
    print(report.markdown_table(scores, goals), end="")
    print(f"intervals: {meta['intervals']}")
    print("".join(f"{line}\n" for line in comparison.lines(compared)) + prompt_sensitivity.markdown(asked), end="")
    print(f"written: {', '.join(map(str, files))}")
    return _bars_status(scores, goals) if args.require_bars else 0


def _bars_status(scores: list[Score], goals: dict) -> int:
    """Return the exit status of bars that have to be reached; one without a figure is not."""
    missed = targets.missed(scores, goals)
    for sentence in missed:
        print(f"score: {sentence}", file=sys.stderr)
    return MISSED if missed or targets.unmatched(scores, goals) else 0


def _write(
    args: argparse.Namespace,
    scores: list[Score],
    meta: dict[str, str],
    goals: dict,
    tree: dict,
    test_sets: list[TestSet],
    lists: dict[str, list[Reference]],
) -> list[Path]:
    """score.json, score.md and the page; returns their paths."""
    out = Path(args.out)
    files = [out / "score.json", out / "score.md"]
    report.write_json(scores, files[0], {**meta, **tree})
    beside = [count_table.markdown(scores), comparison.markdown(tree["comparison"]), prompt_sensitivity.markdown(tree["prompts"])]
    report.write_markdown(scores, files[1], meta, goals, beside)
    if args.report:
        files.append(out / "report.html")
        audio = {} if args.no_audio else sounds(scores, test_sets, lists)
        wordings = {t.task.name: t.asked for t in test_sets if t.asked}
        sections = {comparison.TITLE: comparison.section(tree["comparison"]), prompt_sensitivity.TITLE: prompt_sensitivity.section(tree["prompts"], wordings)}
        report.write_report(scores, files[2], meta=meta, targets=goals, exp=args.exp, audio=audio, sections=sections)
    return files


def _meta(
    args: argparse.Namespace, command: str, lists: dict[str, list[Reference]], test_sets: list[TestSet], judge: Judge | None, scores: list[Score]
) -> dict[str, str]:
    """The head of the report."""
    maps = {t.labels.name: t.labels.source for t in test_sets if t.labels}
    meta = {"title": args.title, **facts(command, lists.values()), "normalizer": args.normalizer}
    meta["intervals"] = resampling.described([args.resample])
    meta |= {"label map": "; ".join(f"{name} ({source})" for name, source in maps.items())}
    meta |= {"decoding": decoding(find_file(t.hyp, t.task) for t in test_sets)}
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


def _references(test_set: TestSet, found: list[Reference]) -> tuple[list[Utterance], dict[str, int]]:
    """The references with our labels, and how many have a label the map leaves out."""
    if not test_set.labels:
        return [r.utterance for r in found], {}
    left_out: Counter = Counter()
    mapped = [test_set.labels.mapped(r.utterance, left_out) for r in found]
    dropped = {name: times for name, times in sorted(left_out.items()) if times}
    if dropped:
        said = ", ".join(f"{name} {times}" for name, times in dropped.items())
        print(f"score: {test_set.task.name}: left out by label map {test_set.labels.name}: {said}", file=sys.stderr)
    return mapped, dropped


def plan(args: argparse.Namespace) -> list[TestSet]:
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
) -> TestSet:
    """Make a test set; unless label sets are given, those beside its answers hold."""
    asked = prompt_sensitivity.wordings(hyp)
    found = str(asked[0].hyp) if asked else hyp
    labels = labels or label_sets(found, tasks.parse(name))
    mapped = label_map.load(map_name, labels) if map_name else None
    return TestSet(tasks.parse(name, labels), ref, found, mapped, asked)


def _score(test_set: TestSet, references: list[Utterance], args: argparse.Namespace, train: list[Utterance], judge: Judge | None) -> list[Score]:
    hypotheses, odd = read_hypotheses(test_set.hyp, test_set.task)
    for sentence in odd:
        print(f"score: {sentence}", file=sys.stderr)
    how = {"resample": args.resample, "resamples": args.resamples, "seed": args.seed, "judge": judge}
    scores = score_task(test_set.task, references, hypotheses, args.normalizer, train=train, **how)
    detail = scores[0].detail
    for name, what in (("missing", "references have no answer, counted as wrong"), ("extra", "answers have no reference, left out")):
        if detail.get(name):
            print(f"score: {test_set.task.name}: {detail[name]} {what}", file=sys.stderr)
    _say_left_out(test_set.task, scores, len(references))
    if args.resample == "speaker":
        _say_speakers(test_set.task, references)
    return scores


def _say_left_out(task: Task, scores: list[Score], whole: int) -> None:
    """Say which fields rest on a part of the references only, or on none."""
    attributes = {field.name: field.attribute for field in task.fields}
    for name, times in count_table.left_out(scores).items():
        said = f"{times} of {whole} references have no {attributes[name]}, left out of its figures"
        print(f"score: {task.name}: {said}", file=sys.stderr)
    for name in scores[0].detail.get("not_in_references", []):
        said = f"no reference has {attributes[name]}, {name} is not scored"
        print(f"score: {task.name}: {said}", file=sys.stderr)


def _say_speakers(task: Task, references: list[Utterance]) -> None:
    """Say what was drawn: how many speakers, and utterances without one, each by itself."""
    speakers = {utterance.speaker for utterance in references if utterance.speaker}
    without = sum(not utterance.speaker for utterance in references)
    if without:
        said = f"{without} of {len(references)} references have no speaker, each is resampled by itself"
        print(f"score: {task.name}: {said}", file=sys.stderr)
    if 0 < len(speakers) < FEW_SPEAKERS:
        said = f"{len(speakers)} speakers are few: an interval that resamples them is too narrow"
        print(f"score: {task.name}: {said}", file=sys.stderr)


def _say_label_sets(args: argparse.Namespace, test_sets: list[TestSet]) -> None:
    """Say where answers were chosen from different label sets, unless --labels decides."""
    answers = [(test_set.hyp, label_sets(test_set.hyp, test_set.task)) for test_set in test_sets]
    beside = zip(args.compare, test_sets, strict=False)
    answers += [(path, label_sets(path, test_set.task)) for path, test_set in beside]
    for sentence in [] if args.labels else disagreements(answers):
        print(f"score: {sentence}", file=sys.stderr)


def _compare(
    test_set: TestSet, second: str, references: list[Utterance], args: argparse.Namespace, own: list[Score], judge: Judge | None
) -> list[dict[str, Any]]:
    answers, odd = read_hypotheses(second, test_set.task)
    for sentence in odd:
        print(f"score: {sentence}", file=sys.stderr)
    first = read_hypotheses(test_set.hyp, test_set.task)[0]
    how = {"resample": args.resample, "resamples": args.resamples, "seed": args.seed, "judge": judge}
    found = compare_task(test_set.task, references, first, answers, args.normalizer, **how)
    scored = {(s.detail["field"], s.metric, s.subset): s for s in own}
    rows, paths = [], (test_set.hyp, second)
    for name, d in found.items():
        value, about = scored[name].value, scored[name].about
        both = (value, value - d.difference)
        row = comparison.row(test_set.task.name, name, both, d, paths, about.lower_is_better, args.resample)
        rows.append(row)
    return rows


def sounds(scores: list[Score], test_sets: list[TestSet], lists: dict[str, list[Reference]]) -> dict[tuple[str, str], tuple[bytes, str]]:
    """Audio of the first worst utterances, as far as it is at hand and small."""
    references_of = {t.task.name: {r.utterance.key: r for r in lists[t.ref]} for t in test_sets}
    found: dict[tuple[str, str], tuple[bytes, str]] = {}
    room = PAGE_BYTES
    for score in scores:
        for row in score.detail.get("worst", [])[: PLAYERS]:
            name = (score.task, row["key"])
            audio = audio_of(references_of[score.task][row["key"]], room) if name not in found else None
            if audio:
                found[name] = audio
                room -= len(audio[0])
    return found


if __name__ == "__main__":
    sys.exit(main())
