"""The files of ``score``: score.json, score.md and the page, with their head and their audio."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wenet_osum.bin._metadata import decoding, facts
from wenet_osum.bin._references import Reference, audio_of
from wenet_osum.bin._test_sets import TestSet
from wenet_osum.records import Score
from wenet_osum.report import comparison_table, count_table, prompt_table, score_page, score_table
from wenet_osum.report.task_section import PLAYERS
from wenet_osum.score import resampling, score_json
from wenet_osum.score.hypotheses import find_file
from wenet_osum.score.judge import Judge

# Bytes of audio in the page, all players together.
PAGE_BYTES = 8_000_000
# References by the path of their list.
Lists = dict[str, list[Reference]]


@dataclass
class Results:
    """The findings of ``score``."""

    # One per metric and subset.
    scores: list[Score]
    # Size of each test set, and what was left out of it.
    data: list[dict[str, Any]]
    # Differences to a second system.
    compared: list[dict[str, Any]]
    # How figures move with the wording of the prompt.
    prompts: list[dict[str, Any]]


def head(
    args: argparse.Namespace,
    command: str,
    lists: Lists,
    test_sets: list[TestSet],
    results: Results,
    judge: Judge | None,
) -> dict[str, str]:
    """Return the head of the report: how the figures came about."""
    maps = {}
    for test_set in test_sets:
        if test_set.labels:
            maps[test_set.labels.name] = test_set.labels.source
    answers = (find_file(test_set.hyp, test_set.task) for test_set in test_sets)
    meta = {
        "title": args.title,
        **facts(command, lists.values()),
        "normalizer": args.normalizer,
        "intervals": resampling.described([args.resample]),
        "label map": "; ".join(f"{name} ({source})" for name, source in maps.items()),
        "decoding": decoding(answers),
    }
    if judge:
        verdicts = judged(results.scores)
        if verdicts:
            meta["judge"] = _judge_line(judge, verdicts)
    return meta


def judged(scores: list[Score]) -> list[dict[str, Any]]:
    """Return what a judge said, of the scores that hold it."""
    return [score.detail["judge"] for score in scores if "judge" in score.detail]


def _judge_line(judge: Judge, verdicts: list[dict[str, Any]]) -> str:
    """Say who judged, by which rubric."""
    names = {}
    for verdict in verdicts:
        names |= dict.fromkeys(verdict["answered_by"])
    answered = ", ".join(names) or "nobody"
    rubric = verdicts[0]["rubric_sha256"]
    return f"{judge.model} at {judge.shown}, answered by {answered}, rubric sha256:{rubric}"


def write(
    args: argparse.Namespace,
    results: Results,
    meta: dict[str, str],
    goals: dict,
    test_sets: list[TestSet],
    lists: Lists,
) -> list[Path]:
    """Write score.json, score.md and, where it is asked for, the page; returns their paths."""
    out = Path(args.out)
    tree = {
        "data": results.data,
        "comparison": results.compared,
        "prompts": results.prompts,
    }
    as_json = out / "score.json"
    score_json.write(results.scores, as_json, {**meta, **tree})

    as_markdown = out / "score.md"
    beside = [
        count_table.markdown(results.scores),
        comparison_table.markdown(results.compared),
        prompt_table.markdown(results.prompts),
    ]
    score_table.write_markdown(results.scores, as_markdown, meta, goals, beside)
    if not args.report:
        return [as_json, as_markdown]

    page = out / "report.html"
    score_page.write_page(
        results.scores,
        page,
        meta=meta,
        targets=goals,
        exp=args.exp,
        audio={} if args.no_audio else sounds(results.scores, test_sets, lists),
        sections=_sections(results, test_sets),
    )
    return [as_json, as_markdown, page]


def _sections(results: Results, test_sets: list[TestSet]) -> dict[str, str]:
    """Return the further parts of the page, as HTML by title."""
    wordings = {}
    for test_set in test_sets:
        if test_set.asked:
            wordings[test_set.task.name] = test_set.asked
    return {
        comparison_table.TITLE: comparison_table.section(results.compared),
        prompt_table.TITLE: prompt_table.section(results.prompts, wordings),
    }


def sounds(
    scores: list[Score], test_sets: list[TestSet], lists: Lists
) -> dict[tuple[str, str], tuple[bytes, str]]:
    """Return the audio of the first worst utterances, as far as it is at hand and small.

    By task and key: the bytes of the file and their MIME type.
    """
    references = {}
    for test_set in test_sets:
        for reference in lists[test_set.ref]:
            references[test_set.task.name, reference.utterance.key] = reference

    found: dict[tuple[str, str], tuple[bytes, str]] = {}
    room = PAGE_BYTES
    for score in scores:
        worst = score.detail.get("worst", [])
        for row in worst[:PLAYERS]:
            name = (score.task, row["key"])
            if name in found:
                continue
            audio = audio_of(references[name], room)
            if audio:
                found[name] = audio
                room -= len(audio[0])
    return found
