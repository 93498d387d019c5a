#!/usr/bin/env python3
"""WenetSpeech → manifests of train, dev, test_net and test_meeting: segments of long Opus
recordings with their transcripts.

``WenetSpeech.json``, over a gigabyte, is read a recording at a time and the lines are written as
they come, so memory does not grow with the corpus. Writes ``{split}/manifest.jsonl``,
``text/train.txt`` (the first 100,000 lines) and ``left_out.txt`` (recordings that cannot be used,
and why).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from wenet_osum import lookup
from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.json_stream import entries
from wenet_osum.corpus.split import check_disjoint
from wenet_osum.dataset.drop import Dropped, note, table
from wenet_osum.dataset.manifest import write_manifests
from wenet_osum.files import replaced, write_text
from wenet_osum.records import Utterance

DISJOINT = ["recording"]  # what train, dev and the test sets must not share; speakers are not known
HOURS = {
    "S": 100,
    "M": 1000,
    "L": 10_005,
    "DEV": 20,
    "TEST_NET": 23,
    "TEST_MEETING": 15,
}  # as published; S lies in M, and M in L
HELD_OUT = {"DEV": "dev", "TEST_NET": "test_net", "TEST_MEETING": "test_meeting"}
SLACK_S = 0.05  # so far a segment may end behind its recording
TEXT_LINES = 100_000  # of text/train.txt


class Reader:
    """Walks through the recordings and keeps count."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.data_dir = options.data_dir
        self.splits = {options.subset: "train"} | HELD_OUT
        self.seconds: Counter = Counter()  # by split
        self.left_out: Counter = Counter()  # segments of these splits, by reason
        self.recordings = Dropped()  # recordings that cannot be used, by reason
        self.used: dict[str, list[Utterance]] = {
            name: [] for name in self.splits.values()
        }  # the recordings of each split, a line each
        self.others = 0  # segments of no split that was asked for

    def rows(self) -> Iterator[tuple[str, Utterance]]:
        """(split, utterance) in the order of the file."""
        for number, audio in enumerate(entries(self.data_dir / "WenetSpeech.json", "audios")):
            if fault := _fault(audio):
                raise ValueError(f"WenetSpeech.json: audios[{number}]: {fault}; download it again")
            yield from self.recording(audio)

    def recording(self, audio: dict) -> Iterator[tuple[str, Utterance]]:
        wanted = [
            (segment, split) for segment in audio["segments"] if (split := self.split_of(segment))
        ]
        self.others += len(audio["segments"]) - len(wanted)
        if not wanted:
            return
        path = self.data_dir / audio["path"]
        if reason := _unusable(path):
            note(self.recordings, audio["path"], reason)
            self.left_out[f"recording: {reason}"] += len(wanted)
            return
        for split in {split for _, split in wanted}:
            self.used[split].append(Utterance(audio["aid"], str(path)))
        for segment, split in wanted:
            if reason := _doubt(segment, audio):
                self.left_out[reason] += 1
                continue
            begin = float(segment["begin_time"])
            end = min(float(segment["end_time"]), float(audio["duration"]))
            self.seconds[split] += end - begin
            yield (
                split,
                Utterance(
                    segment["sid"],
                    str(path),
                    segment["text"].strip(),
                    lang="zh",
                    start=begin,
                    end=end,
                    duration=round(end - begin, 4),
                ),
            )

    def split_of(self, segment: dict) -> str | None:
        return next((self.splits[name] for name in segment["subsets"] if name in self.splits), None)


def _fault(audio: object) -> str:
    """What an entry lacks."""
    if not isinstance(audio, dict) or (
        lacking := [name for name in ("aid", "path", "duration", "segments") if name not in audio]
    ):
        return f"a recording needs {', '.join(lacking) if isinstance(audio, dict) else 'aid, path, duration and segments'}"
    for segment in audio["segments"]:
        if lacking := [
            name
            for name in ("sid", "begin_time", "end_time", "text", "subsets")
            if name not in segment
        ]:
            return f"a segment of {audio['aid']} needs {', '.join(lacking)}"
    return ""


def _unusable(path: Path) -> str:
    try:
        if path.stat().st_size:
            return ""
        return "empty file"
    except OSError:
        return "file not found"


def _doubt(segment: dict, audio: dict) -> str:
    """Why a segment is left out."""
    if not segment["text"].strip():
        return "segment without a transcript"
    if not 0 <= segment["begin_time"] < segment["end_time"]:
        return "segment that ends before it begins"
    if segment["end_time"] > audio["duration"] + SLACK_S:
        return "segment beyond the end of its recording"
    return ""


def with_text(rows: Iterator[tuple[str, Utterance]], path: Path) -> Iterator[tuple[str, Utterance]]:
    """The rows, and on the way the first lines of train in a file."""
    lines = 0
    with replaced(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        for split, utterance in rows:
            if split == "train" and lines < TEXT_LINES:
                out.write(f"{utterance.txt}\n")
                lines += 1
            yield split, utterance


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the official json to the lists. Raises ValueError for whatever is wrong with
    them.
    """
    if options.subset not in ("S", "M", "L"):
        raise ValueError(f"--subset: {lookup.unknown('subset', options.subset, ['S', 'M', 'L'])}")
    reader = Reader(options)
    out = options.out
    paths = {name: out / name / "manifest.jsonl" for name in reader.splits.values()}
    counts = write_manifests(paths, with_text(reader.rows(), out / "text/train.txt"))
    lines = [f"{path}\t{reason}\n" for path, reason in reader.recordings.pairs]
    write_text(out / "left_out.txt", "".join(lines))
    for subset, name in reader.splits.items():
        hours = reader.seconds[name] / 3600
        print(
            f"{name} ({subset}): {counts[name]} utterances of {len(reader.used[name])} recordings, "
            f"{hours:.3f} h"
        )
        print(
            check_count(
                f"wenetspeech {subset} hours",
                max(round(hours), min(counts[name], 1)),
                HOURS[subset],
                options.strict_counts,
            )
        )
    print(f"{reader.others} segments belong to none of {', '.join(reader.splits)}")
    if reader.left_out:
        examples = ", ".join(path for path, _ in reader.recordings.pairs[:3])
        print(f"left out, segments:\n{table(reader.left_out)}")
        print(
            "left out, recordings: "
            f"{reader.recordings.total()}{f', e.g. {examples}; all: {out}/left_out.txt' if examples else ''}"
        )
    for line in check_disjoint(reader.used, DISJOINT):
        print(f"note: {line}")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(
        __doc__,
        "the official folder, with WenetSpeech.json and audio/ in it",
        "stop unless the hours are the published ones",
    )
    parser.add_argument("--subset", default="L", help="what is trained on: S, M or L")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
