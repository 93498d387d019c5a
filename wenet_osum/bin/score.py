"""Score hypotheses against references: a table on stdout, and files for people and programs.

Writes score.json, score.md and, with --report, one HTML page.

examples:
  wenet_osum score --ref data/test.list --hyp exp/x/decode/ser --task ser --out exp/x/score
  wenet_osum score --set ser=data/ser.list,exp/x/decode/ser \\
    --set asr=data/asr.list,exp/x/decode/asr --normalizer basic \\
    --out exp/x/score --report
  wenet_osum score --ref data/test.list --hyp exp/x/decode/ser --compare exp/y/decode/ser \\
    --task ser --out exp/x_y
  wenet_osum score --set asr=data/test.list,exp/a/decode --resample speaker --out exp/a/score
  wenet_osum score --set asr=data/dev.list,exp/a/decode --bar 'asr/wer<=60' --require_bars \\
    --out exp/a/score
  wenet_osum score --ref ravdess.jsonl --label_map ravdess --hyp exp/x/decode/ravdess \\
    --task '<EMOTION>' --out exp/x/ravdess
  wenet_osum score --ref chat.jsonl --hyp exp/x/decode/sttc --task sttc \\
    --judge http://localhost:8000/v1 Qwen2.5-72B-Instruct --out exp/x/chat

--hyp may also be the folder of recognize --prompts all: its scoring prompt is scored, and a table
shows how figures move with the wording. A judge's key is read from the environment variable
OPENAI_API_KEY; its verdicts are kept, so that scoring again asks nothing twice.

exit status:
  0 done, 1 references or hypotheses cannot be read or do not fit, 2 a fault of the arguments,
  3 with --require_bars: a figure misses its --bar
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wenet_osum import lookup
from wenet_osum.bin import _score_files
from wenet_osum.bin._arguments import new_parser
from wenet_osum.bin._labels import disagreements, label_sets
from wenet_osum.bin._references import Reference, read_references
from wenet_osum.bin._score_arguments import add_arguments
from wenet_osum.bin._score_files import Results
from wenet_osum.bin._test_sets import TestSet, plan
from wenet_osum.context import context_of, with_context, words_given
from wenet_osum.records import Hypothesis, Score, Utterance
from wenet_osum.report import comparison_table, prompt_table, score_table
from wenet_osum.report.curves import LOG
from wenet_osum.score import (
    compare_task,
    comparison,
    counts,
    prompt_sensitivity,
    score_task,
    targets,
)
from wenet_osum.score.hypotheses import read_hypotheses
from wenet_osum.score.judge import RUBRIC, Judge
from wenet_osum.tasks import Task

# Below so many, percentiles of a cluster bootstrap lie too close (Cameron, Gelbach and Miller,
# 2008, 10.1162/rest.90.3.414).
FEW_SPEAKERS = 10
# Exit status when a bar that was required is missed.
MISSED = 3


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("score", __doc__)
    add_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Score, and print faults as plain sentences. Returns the exit status."""
    args = parse(argv)
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["score", *words])
    try:
        lookup.add_plugins(args.plugins)
        return run(args, command)
    except (ValueError, OSError) as error:
        _say(error)
        return 1


def run(args: argparse.Namespace, command: str) -> int:
    """Score every test set and write the files; returns the exit status.

    Raises ValueError for whatever the user has to mend.
    """
    # Whatever can be faulty is read before anything is scored.
    if args.resamples < 1:
        raise ValueError(f"--resamples must be at least 1, got {args.resamples}")
    for folder in args.exp:
        if not (Path(folder) / LOG).is_file():
            _say(f"--exp {folder}: no {LOG} in it, so no curves of it in the page")
    test_sets = plan(args)
    goals = targets.parse_targets(args.bar)
    judge = _judge(args)
    train = _utterances(args.train_list)
    args.hotwords = words_given(args.hotwords)
    _say_label_sets(args, test_sets)
    paths = dict.fromkeys(test_set.ref for test_set in test_sets)
    lists = {path: read_references(path) for path in paths}

    scorer = Scorer(args, train, judge)
    results = scorer.score_all(test_sets, lists)
    for sentence in targets.unmatched(results.scores, goals):
        _say(sentence)

    meta = _score_files.head(args, command, lists, test_sets, results, judge)
    if judge and "judge" in meta:
        _say(f"judge: {judge.asked} replies asked about now, others known from {judge.cache}")
    files = _score_files.write(args, results, meta, goals, test_sets, lists)

    print(score_table.markdown_table(results.scores, goals), end="")
    print(f"intervals: {meta['intervals']}")
    for line in comparison_table.lines(results.compared):
        print(line)
    print(prompt_table.markdown(results.prompts), end="")
    written = ", ".join(map(str, files))
    print(f"written: {written}")
    return _bars_status(results.scores, goals) if args.require_bars else 0


@dataclass
class Scorer:
    """Scores test sets as the arguments say."""

    args: argparse.Namespace
    # Utterances for the text-only baseline.
    train: list[Utterance]
    judge: Judge | None

    def score_all(self, test_sets: list[TestSet], lists: dict[str, list[Reference]]) -> Results:
        """Score the test sets one after the other; prints what was left out or odd."""
        args = self.args
        results = Results([], [], [], [])
        for number, test_set in enumerate(test_sets):
            references, left_out_by_map = _references(test_set, lists[test_set.ref])
            references = [_named(utterance, args.hotwords) for utterance in references]
            hypotheses = _read(test_set.hyp, test_set.task)
            scores = self.score(test_set, references, hypotheses)
            results.scores += scores
            row = {
                "task": test_set.task.name,
                "ref": test_set.ref,
                "hyp": test_set.hyp,
                "utterances": len(references),
                "left_out_by_map": left_out_by_map,
                "left_out": counts.left_out(scores),
            }
            results.data.append(row)

            if args.compare:
                second = args.compare[number]
                rows = self.compare(test_set, second, references, hypotheses, scores)
                results.compared += rows
            if test_set.asked:
                results.prompts += prompt_sensitivity.sensitivity(
                    test_set.task,
                    references,
                    test_set.asked,
                    args.normalizer,
                )
        return results

    def score(
        self,
        test_set: TestSet,
        references: list[Utterance],
        hypotheses: dict[str, Hypothesis],
    ) -> list[Score]:
        """Score one test set."""
        task = test_set.task
        scores = score_task(
            task,
            references,
            hypotheses,
            self.args.normalizer,
            train=self.train,
            **self._how(),
        )
        missing = counts.of_task(scores, "missing")
        if missing:
            _say(f"{task.name}: {missing} references have no answer, counted as wrong")
        extra = counts.of_task(scores, "extra")
        if extra:
            _say(f"{task.name}: {extra} answers have no reference, left out")
        _say_left_out(task, scores, len(references))
        if self.args.resample == "speaker":
            _say_speakers(task, references)
        return scores

    def compare(
        self,
        test_set: TestSet,
        second: str,
        references: list[Utterance],
        hypotheses: dict[str, Hypothesis],
        scores: list[Score],
    ) -> list[dict[str, Any]]:
        """Compare the answers of one test set with those of a second system: a row per metric."""
        differences = compare_task(
            test_set.task,
            references,
            hypotheses,
            _read(second, test_set.task),
            self.args.normalizer,
            **self._how(),
        )
        scored = {}
        for score in scores:
            scored[score.detail["field"], score.metric, score.subset] = score
        rows = []
        for name, difference in differences.items():
            score = scored[name]
            row = comparison.row(
                test_set.task.name,
                name,
                (score.value, score.value - difference.difference),
                difference,
                (test_set.hyp, second),
                score.about.lower_is_better,
                self.args.resample,
            )
            rows.append(row)
        return rows

    def _how(self) -> dict[str, Any]:
        """Return what scoring and comparing take alike."""
        return {
            "resample": self.args.resample,
            "resamples": self.args.resamples,
            "seed": self.args.seed,
            "judge": self.judge,
        }


def _bars_status(scores: list[Score], goals: dict) -> int:
    """Return the exit status of bars that have to be reached; one without a figure is not."""
    missed = targets.missed(scores, goals)
    for sentence in missed:
        _say(sentence)
    if missed or targets.unmatched(scores, goals):
        return MISSED
    return 0


def _judge(args: argparse.Namespace) -> Judge | None:
    """Return the judge the arguments ask for. Raises ValueError for a faulty address."""
    if not args.judge:
        return None
    url, model = args.judge
    rubric = RUBRIC
    if args.judge_rubric:
        rubric = Path(args.judge_rubric).read_text(encoding="utf-8")
    cache = args.judge_cache or Path(args.out) / "judge.jsonl"
    return Judge(url, model, cache=cache, rubric=rubric, seed=args.seed)


def _utterances(path: str | None) -> list[Utterance]:
    """Return the utterances of a list, none where none is given."""
    if not path:
        return []
    return [reference.utterance for reference in read_references(path)]


def _read(path: str, task: Task) -> dict[str, Hypothesis]:
    """Read answers by key; prints what is odd about them."""
    hypotheses, odd = read_hypotheses(path, task)
    for sentence in odd:
        _say(sentence)
    return hypotheses


def _references(
    test_set: TestSet, found: list[Reference]
) -> tuple[list[Utterance], dict[str, int]]:
    """Return the references with our labels, and how many have each label the map leaves out."""
    utterances = [reference.utterance for reference in found]
    if not test_set.labels:
        return utterances, {}
    left_out: Counter = Counter()
    mapped = [test_set.labels.mapped(utterance, left_out) for utterance in utterances]
    dropped = {name: times for name, times in sorted(left_out.items()) if times}
    if dropped:
        listed = ", ".join(f"{name} {times}" for name, times in dropped.items())
        name = test_set.labels.name
        _say(f"{test_set.task.name}: left out by label map {name}: {listed}")
    return mapped, dropped


def _named(utterance: Utterance, hotwords: list[str]) -> Utterance:
    """Give a reference hotwords where it names none."""
    own = context_of(utterance)
    words = own.hotwords or tuple(hotwords)
    return with_context(utterance, own._replace(hotwords=words))


def _say_label_sets(args: argparse.Namespace, test_sets: list[TestSet]) -> None:
    """Say where answers were chosen from different label sets, unless --labels decides."""
    if args.labels:
        return
    answers = [(test_set.hyp, test_set.task) for test_set in test_sets]
    for second, test_set in zip(args.compare, test_sets, strict=False):
        answers.append((second, test_set.task))
    sets = [(path, label_sets(path, task)) for path, task in answers]
    for sentence in disagreements(sets):
        _say(sentence)


def _say_left_out(task: Task, scores: list[Score], whole: int) -> None:
    """Say which fields rest on a part of the references only, or on none."""
    attributes = {field.name: field.attribute for field in task.fields}
    for name, times in counts.left_out(scores).items():
        lacking = f"{times} of {whole} references have no {attributes[name]}"
        _say(f"{task.name}: {lacking}, left out of its figures")
    for name in scores[0].detail.get("not_in_references", []):
        lacking = f"no reference has {attributes[name]}"
        _say(f"{task.name}: {lacking}, {name} is not scored")


def _say_speakers(task: Task, references: list[Utterance]) -> None:
    """Say what was drawn: how many speakers, and utterances without one, each by itself."""
    names = [utterance.speaker for utterance in references if utterance.speaker]
    without = len(references) - len(names)
    if without:
        lacking = f"{without} of {len(references)} references have no speaker"
        _say(f"{task.name}: {lacking}, each is resampled by itself")
    speakers = len(set(names))
    if 0 < speakers < FEW_SPEAKERS:
        few = f"{speakers} speakers are few"
        _say(f"{task.name}: {few}: an interval that resamples them is too narrow")


def _say(text: object) -> None:
    """Print a remark to stderr."""
    print(f"score: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
