"""The options of ``score``."""

from __future__ import annotations

import argparse

from wenet_osum.bin._arguments import add_plugins
from wenet_osum.score import resampling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all options: what is scored, how, and what is written."""
    _add_test_sets(parser)
    _add_scoring(parser)
    _add_bootstrap(parser)
    _add_judge(parser)
    _add_files(parser)


def _add_test_sets(parser: argparse.ArgumentParser) -> None:
    """Add the options that name references and answers."""
    add_plugins(parser)
    _add_several(
        parser,
        "--ref",
        metavar="LIST",
        help="manifest or data.list of shards; one for all or one per task",
    )
    _add_several(
        parser,
        "--hyp",
        metavar="PATH",
        help="folder of recognize, JSON lines, or 'key text' lines; one per task",
    )
    _add_several(
        parser,
        "--task",
        help="task name or tags; repeat --task and --hyp together",
    )
    _add_several(
        parser,
        "--set",
        metavar="TASK=REF,HYP",
        help="the same three in one word; may be repeated",
    )
    _add_several(
        parser,
        "--compare",
        metavar="PATH",
        help="hypotheses of a second system, one per task: paired test",
    )


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide what a figure is, and what it has to reach."""
    add = parser.add_argument
    add(
        "--normalizer",
        default="none",
        help="none, basic, whisper_en, wenet_zh, zh_numbers, split_symbols, several in a row "
        "(zh_numbers+basic), or by language: en:whisper_en,zh:wenet_zh",
    )
    add(
        "--train_list",
        metavar="LIST",
        help="training utterances for the text-only baseline (manifest or data.list)",
    )
    add(
        "--labels",
        metavar="YAML",
        help="label sets {field: [label, …]}; else those beside the answers",
    )
    _add_several(
        parser,
        "--label_map",
        metavar="NAME",
        help="how a test set spells labels (name or yaml); one per task",
    )
    add(
        "--hotwords",
        default="",
        metavar="WORD,…|FILE",
        help="hotwords of the references that name none, as recognize was given them",
    )
    _add_several(
        parser,
        "--bar",
        metavar="TASK/METRIC[/SUBSET]>=N",
        help="a figure to reach, e.g. 'asr/wer/en<=8'",
    )
    add(
        "--require_bars",
        action="store_true",
        help="exit status 3 when a figure misses its --bar, so that a recipe stops",
    )


def _add_bootstrap(parser: argparse.ArgumentParser) -> None:
    """Add the options of intervals and paired tests."""
    add = parser.add_argument
    add(
        "--resample",
        choices=resampling.UNITS,
        default="utterance",
        help="what the bootstrap draws: single utterances, or speakers with all of theirs",
    )
    add("--resamples", type=int, default=1000, help="bootstrap draws")
    add("--seed", type=int, default=777, help="seed of the bootstrap")


def _add_judge(parser: argparse.ArgumentParser) -> None:
    """Add the options of the judge of replies."""
    add = parser.add_argument
    add(
        "--judge",
        nargs=2,
        metavar=("URL", "MODEL"),
        help="judge replies through an OpenAI-compatible endpoint",
    )
    add(
        "--judge_rubric",
        metavar="FILE",
        help="what the judge is told instead of the built-in rubric",
    )
    add("--judge_cache", metavar="FILE", help="verdicts so far (OUT/judge.jsonl)")


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is written: files, and the HTML page."""
    add = parser.add_argument
    add(
        "--out",
        required=True,
        metavar="DIR",
        help="folder for score.json, score.md and report.html",
    )
    add("--report", action="store_true", help="also write the HTML page")
    add("--title", default="Scores", help="heading of the page")
    add(
        "--exp",
        nargs="*",
        default=[],
        metavar="DIR",
        help="training folders whose log.jsonl is drawn in the page",
    )
    add("--no_audio", action="store_true", help="no audio players in the page")


def _add_several(
    parser: argparse.ArgumentParser, name: str, help: str, metavar: str | None = None
) -> None:
    """Add an option that may be given several times."""
    parser.add_argument(name, action="append", default=[], metavar=metavar, help=help)
