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

RECORDING_FIELDS = ("aid", "path", "duration", "segments")
SEGMENT_FIELDS = ("sid", "begin_time", "end_time", "text", "subsets")
DISJOINT = ["recording"]  # what train, dev and the test sets must not share; speakers are not known
HOURS = {
    "S": 100,
    "M": 1000,
    "L": 10_005,
    "DEV": 20,
    "TEST_NET": 23,
    "TEST_MEETING": 15,
}  # as published; S lies in M, and M in L
SUBSETS = ["S", "M", "L"]  # of train
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
        """Yield (split, utterance) in the order of the file. Raises ValueError for an entry that
        lacks a field.
        """
        audios = entries(self.data_dir / "WenetSpeech.json", "audios")
        for number, audio in enumerate(audios):
            if fault := _fault(audio):
                raise ValueError(f"WenetSpeech.json: audios[{number}]: {fault}; download it again")
            yield from self.recording(audio)

    def recording(self, audio: dict) -> Iterator[tuple[str, Utterance]]:
        """Yield (split, utterance) of the usable segments of one recording."""
        wanted = []
        for segment in audio["segments"]:
            if split := self.split_of(segment):
                wanted.append((segment, split))
            else:
                self.others += 1
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
            utterance = _utterance(segment, audio, path)
            self.seconds[split] += utterance.end - utterance.start
            yield split, utterance

    def split_of(self, segment: dict) -> str | None:
        """Return the first split that was asked for among a segment's subsets, or None."""
        for name in segment["subsets"]:
            if name in self.splits:
                return self.splits[name]
        return None


def _utterance(segment: dict, audio: dict, path: Path) -> Utterance:
    """Make an utterance of a segment; it ends with its recording at the latest."""
    begin = float(segment["begin_time"])
    end = min(float(segment["end_time"]), float(audio["duration"]))
    return Utterance(
        segment["sid"],
        str(path),
        segment["text"].strip(),
        lang="zh",
        start=begin,
        end=end,
        duration=round(end - begin, 4),
    )


def _fault(audio: object) -> str:
    """Tell what an entry of WenetSpeech.json lacks; an empty text when nothing."""
    if not isinstance(audio, dict):
        return f"a recording needs {', '.join(RECORDING_FIELDS)}"
    if lacking := _lacking(audio, RECORDING_FIELDS):
        return f"a recording needs {lacking}"
    for segment in audio["segments"]:
        if lacking := _lacking(segment, SEGMENT_FIELDS):
            return f"a segment of {audio['aid']} needs {lacking}"
    return ""


def _lacking(entry: dict, fields: tuple[str, ...]) -> str:
    """List the fields that an entry does not have."""
    return ", ".join(name for name in fields if name not in entry)


def _unusable(path: Path) -> str:
    """Tell why a recording cannot be used; an empty text when it can."""
    try:
        if path.stat().st_size:
            return ""
        return "empty file"
    except OSError:
        return "file not found"


def _doubt(segment: dict, audio: dict) -> str:
    """Tell why a segment is left out; an empty text when it is not."""
    if not segment["text"].strip():
        return "segment without a transcript"
    if not 0 <= segment["begin_time"] < segment["end_time"]:
        return "segment that ends before it begins"
    if segment["end_time"] > audio["duration"] + SLACK_S:
        return "segment beyond the end of its recording"
    return ""


def with_text(rows: Iterator[tuple[str, Utterance]], path: Path) -> Iterator[tuple[str, Utterance]]:
    """Pass the rows on, and write the first transcripts of train to ``path`` on the way."""
    lines = 0
    with replaced(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        for split, utterance in rows:
            if split == "train" and lines < TEXT_LINES:
                out.write(f"{utterance.txt}\n")
                lines += 1
            yield split, utterance


def prepare(options: argparse.Namespace) -> None:
    """Write manifests, text and ``left_out.txt``. Raises ValueError for a faulty corpus and unknown
    subset.
    """
    if options.subset not in SUBSETS:
        reason = lookup.unknown("subset", options.subset, SUBSETS)
        raise ValueError(f"--subset: {reason}")
    reader = Reader(options)
    out = options.out
    paths = {name: out / name / "manifest.jsonl" for name in reader.splits.values()}
    counts = write_manifests(paths, with_text(reader.rows(), out / "text/train.txt"))
    write_left_out(reader, out / "left_out.txt")
    print_sizes(reader, counts, options.strict_counts)
    print_left_out(reader, out)
    for line in check_disjoint(reader.used, DISJOINT):
        print(f"note: {line}")


def write_left_out(reader: Reader, path: Path) -> None:
    """Write a line for each recording that cannot be used: its path, a tab, the reason."""
    lines = []
    for recording, reason in reader.recordings.pairs:
        line = f"{recording}\t{reason}\n"
        lines.append(line)
    write_text(path, "".join(lines))


def print_sizes(reader: Reader, counts: dict[str, int], strict: bool) -> None:
    """Print utterances, recordings and hours of each split, and whether the hours are as published.
    Raises ValueError when they are not and ``strict`` is set.
    """
    for subset, name in reader.splits.items():
        hours = reader.seconds[name] / 3600
        recordings = len(reader.used[name])
        print(
            f"{name} ({subset}): {counts[name]} utterances of {recordings} recordings, "
            f"{hours:.3f} h"
        )
        # A split with speech counts as an hour at least.
        whole = max(round(hours), min(counts[name], 1))
        print(check_count(f"wenetspeech {subset} hours", whole, HOURS[subset], strict))
    print(f"{reader.others} segments belong to none of {', '.join(reader.splits)}")


def print_left_out(reader: Reader, out: Path) -> None:
    """Print how many segments and recordings were left out, and why."""
    if not reader.left_out:
        return
    print(f"left out, segments:\n{table(reader.left_out)}")
    total = reader.recordings.total()
    if total:
        examples = ", ".join(path for path, _ in reader.recordings.pairs[:3])
        print(f"left out, recordings: {total}, e.g. {examples}; all: {out}/left_out.txt")
    else:
        print("left out, recordings: 0")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.parser(
        __doc__,
        "the official folder, with WenetSpeech.json and audio/ in it",
        "stop unless the hours are the published ones",
    )
    parser.add_argument("--subset", default="L", help="what is trained on: S, M or L")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
