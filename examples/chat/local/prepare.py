#!/usr/bin/env python3
"""Text questions with answers → spoken questions with replies: manifests of train, dev and test.

Reads ``*.jsonl`` and ``*.tsv``; files named train, dev and test keep their splits, all others are
split by question. A synthesizer speaks the questions: espeak-ng, or a program of the user's. No
voice and no question is in two splits.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.voices import CommandSpeaker, EspeakSpeaker, deal_voices, espeak_voices
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.manifest import tidy_label
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import Utterance

DISJOINT = ["speaker", "sentence", "recording"]  # what train, dev and test must not share
OFFICIAL = {"databricks-dolly-15k.jsonl": 15011}  # pairs of public sets, by file name
QUESTION, ANSWER, CONTEXT = (
    ("question", "instruction", "prompt", "query"),
    ("answer", "response", "reply", "output"),
    ("context", "input"),
)
SPLITS = ("train", "dev", "test")
CHUNK = 64  # questions one espeak-ng speaks: what it says depends a little on what it said before


class Pair(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str
    lang: str
    split: str


class Order(NamedTuple):
    """A pair and who asks it."""

    pair: Pair
    voice: str
    key: str
    path: Path


def read_rows(path: Path, dropped: Dropped) -> Iterator[dict]:
    """The rows of a file: JSON lines, or tab-separated with or without names of columns."""
    with open(path, encoding="utf-8-sig", newline="") as lines:
        if path.suffix == ".tsv":
            yield from _tsv(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
            return
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError:
                row = "no JSON"
            if isinstance(row, dict):
                yield row
            elif row is not None:
                note(dropped, f"{path.name} line {number}", "line is no JSON object")


def _tsv(rows: Iterator[list[str]]) -> Iterator[dict]:
    names = ["question", "answer"]
    for number, row in enumerate(rows):
        if number == 0 and set(map(str.lower, row)) & set(QUESTION):
            names = [name.lower() for name in row]
        elif row:
            yield dict(zip(names, row, strict=False))


def _first(row: dict, names: tuple[str, ...]) -> str:
    value = next((row[name] for name in names if row.get(name)), "")
    return " ".join(value.split()) if isinstance(value, str) else ""


def fault_of(question: str, answer: str, context: str, options: argparse.Namespace) -> str:
    """Why a pair cannot be used; "" when it can."""
    if not question or not answer:
        return f"no {'question' if not question else 'answer'}"
    if context:
        return "the question is about a text that would have to be read out"
    if len(question) > options.max_question:
        return f"question of over {options.max_question} characters"
    return (
        f"answer of over {options.max_answer} characters"
        if len(answer) > options.max_answer
        else ""
    )


def split_of(question: str, path: Path) -> str:
    """The split a file is named after; else eight of ten questions are train, the same question
    always the same split.
    """
    if path.stem in SPLITS:
        return path.stem
    place = int(hashlib.sha256("".join(question.casefold().split()).encode()).hexdigest(), 16) % 10
    return {8: "dev", 9: "test"}.get(place, "train")


def read_pairs(options: argparse.Namespace, dropped: Dropped) -> list[Pair]:
    """All usable pairs, each once. Raises ValueError when there is none."""
    paths = sorted(p for p in options.data_dir.glob("*") if p.suffix in (".jsonl", ".tsv"))
    pairs: dict[Pair, None] = {}
    for path in paths:
        total = 0
        for total, row in enumerate(read_rows(path, dropped), 1):  # noqa: B007
            question, answer = _first(row, QUESTION), _first(row, ANSWER)
            fault = fault_of(question, answer, _first(row, CONTEXT), options)
            pair = Pair(
                question,
                answer,
                tidy_label("lang", row.get("lang") or options.lang),
                split_of(question, path),
            )
            if fault or pair in pairs:
                note(dropped, f"{path.name} row {total}", fault or "pair stands twice")
            else:
                pairs[pair] = None
        print(
            check_count(
                f"chat {path.name} pairs",
                total,
                OFFICIAL.get(path.name, total),
                options.strict_counts,
            )
        )
    if not pairs:
        raise ValueError(
            f"no pair in {len(paths)} files of {options.data_dir}; rows need a question and an "
            "answer (README.md)"
        )
    return thin([*pairs], options.limit, options.seed)


def thin(pairs: list[Pair], limit: int, seed: int) -> list[Pair]:
    """At most ``limit`` pairs, drawn once; 0: all of them."""
    return pairs if not limit or len(pairs) <= limit else random.Random(seed).sample(pairs, limit)


def voices_of(options: argparse.Namespace, langs: set[str]) -> dict[str, dict[str, list[str]]]:
    """Language → split → voices."""
    if options.voices or options.speaker:
        return dict.fromkeys(langs, deal_voices(options.voices.split(), SPLITS))
    return {lang: deal_voices([*espeak_voices(lang)], SPLITS) for lang in langs}


def orders_of(pairs: list[Pair], options: argparse.Namespace) -> list[Order]:
    """Every pair with a voice of its split. A recording's name says text and voice, so that a
    second run finds what the first one made.
    """
    voices, draw = voices_of(options, {pair.lang for pair in pairs}), random.Random(options.seed)
    orders = []
    for pair in pairs:
        voice = draw.choice(voices[pair.lang][pair.split])
        what = repr((pair, voice, options.speaker))
        digest = hashlib.sha256(what.encode()).hexdigest()
        key = f"{pair.split}-{digest[:16]}"
        orders.append(Order(pair, voice, key, options.out / "wav" / pair.split / f"{key}.wav"))
    return orders


def speak_all(orders: list[Order], command: str) -> list[str]:
    """Make the recordings of a chunk; returns the fault of each, "" where there is none."""
    todo = [order for order in orders if not order.path.exists()]
    if not todo:
        return [""] * len(orders)
    if command:
        speaker = CommandSpeaker(command)
    else:
        voices = {}
        for lang in {order.pair.lang for order in todo}:
            voices |= espeak_voices(lang)
        speaker = EspeakSpeaker(voices)
    faults = dict.fromkeys(orders, "")
    for order in todo:
        order.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = order.path.with_name(f"{order.key}.part.wav")
        try:
            speaker.speak(order.pair.question, order.voice, unfinished)
            unfinished.replace(order.path)
        except ValueError as fault:
            unfinished.unlink(missing_ok=True)
            faults[order] = (
                f"speaker: {fault}" if command else "espeak-ng has no sound for the question"
            )
    speaker.close()
    return [faults[order] for order in orders]


def describe(order: Order) -> Utterance:
    """The recording as an utterance. Raises Drop when it cannot be read."""
    pair = order.pair
    labels = {"lang": pair.lang, "speaker": order.voice, "reply": pair.answer}
    return Utterance(
        order.key,
        str(order.path),
        pair.question,
        duration=round(read_duration(order.path), 4),
        extra={"corpus": "chat"},
        **labels,
    )


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the pairs to the lists. Raises ValueError for whatever is wrong with
    them.
    """
    dropped = Dropped()
    orders = orders_of(read_pairs(options, dropped), options)
    chunks = [orders[i : i + CHUNK] for i in range(0, len(orders), CHUNK)]
    say = partial(speak_all, command=options.speaker)
    if options.jobs == 1:
        made = [*map(say, chunks)]
    else:
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            made = pool.map(say, chunks, chunksize=1)
    splits: dict[str, list[Utterance]] = {name: [] for name in SPLITS}
    for order, fault in zip(orders, [fault for chunk in made for fault in chunk], strict=True):
        try:
            if fault:
                raise ValueError(fault)
            splits[order.pair.split].append(describe(order))
        except ValueError as drop:
            note(dropped, order.key, getattr(drop, "reason", str(drop)))
    write_splits(options.out, splits, DISJOINT, dropped)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(
        __doc__,
        "folder with *.jsonl and *.tsv of questions and answers",
        "stop unless a known public set is complete",
    )
    parser.add_argument(
        "--lang",
        default="en",
        help="language of rows that name none: en, zh, or one of espeak-ng's (en)",
    )
    parser.add_argument(
        "--speaker",
        default="",
        help='program that speaks, e.g. "piper --model {voice} --output_file {out}"; default: '
        "espeak-ng",
    )
    parser.add_argument(
        "--voices",
        default="",
        help="voices of --speaker, at least three; each belongs to one split",
    )
    parser.add_argument("--max_question", type=int, default=200, help="characters")
    parser.add_argument("--max_answer", type=int, default=400, help="characters")
    parser.add_argument(
        "--limit", type=int, default=0, help="pairs at most, drawn by --seed; 0: all"
    )
    parser.add_argument("--seed", type=int, default=777, help="of the voices")
    parser.add_argument("--jobs", type=int, default=1, help="processes that speak")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
