#!/usr/bin/env python3
"""Put vocal events (laugh, cough, cry, …) from an event corpus into the speech of a manifest.

    python tools/add_events.py --events data/esc/train.jsonl --wav_dir data/ved/wav \\
        data/speech/train.jsonl data/ved/train.jsonl

--events is a manifest whose rows have `event`. An event comes at a pause or an end; level, position
and recording are drawn from --seed and the utterance's key. Word times stay true, both recordings
stand in `extra.recordings` (so a leak between splits shows), the event's place in `extra.event_s`.
Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.events import POSITIONS, EventConfig, by_label, label_of  # noqa: E402
from wenet_osum.corpus.split_folders import MANIFEST, split_pairs  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.rewrite import AddEvent, rewrite  # noqa: E402
from wenet_osum.dataset.scan import located  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402
from wenet_osum.tasks.ved import EVENT  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """Make the command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument(
        "--events",
        required=True,
        help="manifest of event recordings, or a folder with one per split",
    )
    args.add_argument(
        "--labels", nargs="+", help="only these events (default: all in the manifest)"
    )
    args.add_argument("--wav_dir", required=True, help="folder for the new recordings")
    args.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="share of utterances that get an event (1.0); the others are written as they are",
    )
    args.add_argument(
        "--positions",
        nargs="+",
        default=list(POSITIONS),
        help=f"of {', '.join(POSITIONS)}; default all",
    )
    args.add_argument(
        "--level_db",
        type=float,
        nargs=2,
        default=(-6.0, 3.0),
        metavar=("LOW", "HIGH"),
        help="event over speech, dB (-6 3)",
    )
    args.add_argument(
        "--longest_s",
        type=float,
        default=3.0,
        help="longer events are cut to their loudest stretch (3)",
    )
    args.add_argument(
        "--in_text",
        action="store_true",
        help="write the event into the transcript, [cry], so that CTC learns to keep it",
    )
    args.add_argument("--seed", type=int, default=777)
    args.add_argument("--jobs", type=int, default=1, help="processes (1)")
    args.add_argument(
        "manifest", help="of speech, or a folder with one per split: train/manifest.jsonl, …"
    )
    args.add_argument(
        "out",
        help="manifest, or a folder; that of the events keeps those as events.jsonl",
    )
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    try:
        whole = [_add(args, *pair) for pair in split_pairs(args.manifest, args.out)]
    except (ValueError, OSError) as error:
        print(f"add_events.py: {error}", file=sys.stderr)
        return 1
    return 0 if all(whole) else 1


def _add(args: argparse.Namespace, manifest: Path, out: Path) -> bool:
    """Write one manifest of speech with events; tells whether anything was written."""
    conf = EventConfig(
        tuple(args.positions),
        tuple(args.level_db),
        longest_s=args.longest_s,
        in_text=args.in_text,
    )
    found = _of_split(args, out)
    if found is None:
        print(f"{out}: left out, there are no events for it in {args.events}")
        return True
    events, wav_dir = found
    change = AddEvent(_recordings(events, args.labels), str(events), conf, args.share)
    dropped = Dropped()
    # The names of both recordings stay behind, in a manifest that may lie elsewhere.
    rows = located(read_manifest(manifest, dropped), manifest)
    made = rewrite(
        rows,
        change,
        str(wav_dir),
        dropped,
        args.seed,
        args.jobs,
        str(manifest),
    )
    counts = Counter()
    written = write_manifest(out, _counted(made, counts))
    shares = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
    print(f"{out}: {written} utterances, {dropped.total()} left out; events: {shares}")
    if dropped:
        print(table(dropped))
    return bool(written)


def _recordings(events: Path, labels: list[str] | None) -> dict[str, list[Utterance]]:
    """Read the recordings of events by label; raises ValueError when there are none."""
    wanted = []
    names = [EVENT.labels.find(label) or label for label in labels or ()]
    for row in located(read_manifest(events), events):
        if not labels or label_of(row) in names:
            wanted.append(row)
    recordings = by_label(wanted)
    if not recordings:
        asked = f" of {labels}" if labels else ""
        raise ValueError(
            f"{events}: no row has an event{asked}; tools/check_data_list.py shows what it holds"
        )
    return recordings


def _counted(utterances: Iterable[Utterance], counts: Counter) -> Iterator[Utterance]:
    """Count the events of utterances that pass by."""
    for utterance in utterances:
        counts[label_of(utterance) or "none"] += 1
        yield utterance


def _of_split(args: argparse.Namespace, out: Path) -> tuple[Path, Path] | None:
    """Return the events and the folder of recordings for the manifest ``out``.

    Of folders, those of its split; None where there are no events for it.
    """
    if not Path(args.events).is_dir():
        return Path(args.events), Path(args.wav_dir)
    split = out.parent.name
    events = Path(args.events) / split / MANIFEST
    if not events.exists() and not events.with_name("events.jsonl").exists():
        return None
    # The manifest of events would be written over: it keeps a name of its own. What an earlier run
    # wrote in its place holds no events alone.
    if events == out:
        kept = events.with_name("events.jsonl")
        if kept.exists() and not _holds_events(events):
            events = kept
        else:
            events = events.rename(kept)
    return events, Path(args.wav_dir) / split


def _holds_events(manifest: Path) -> bool:
    """Tell whether a manifest is one of events, not of speech that this tool put them into."""
    if not manifest.exists():
        return False
    return not any("event_s" in (row.extra or {}) for row in read_manifest(manifest))


if __name__ == "__main__":
    sys.exit(main())
