#!/usr/bin/env python3
"""RAVDESS speech → manifests of train, dev and test with transcript, emotion and gender; no actor
is in two of them.

Reads ``Actor_NN/modality-channel-emotion-intensity-statement-repetition-actor.wav``. The 24 actors
lie in six folds of two women and two men, of which ``--fold`` is the test set; ``--actors`` names
the actors of each split instead.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from wenet_osum.corpus import command
from wenet_osum.corpus.counts import check_count
from wenet_osum.corpus.split import values
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Dropped, note
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.records import Utterance
from wenet_osum.tasks import label_map

DISJOINT = [
    "speaker",
    "recording",
]  # what train, dev and test must not share; the two sentences are in all of them
CLIPS, ACTORS, FOLDS = 1440, 24, 6
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
AUDIO_ONLY, SPEECH = "03", "01"  # modality, vocal channel
CALM = "02"  # its code; the label map reads it as neutral


def read_clips(data_dir: Path, dropped: Dropped, eight: bool = False) -> list[Utterance]:
    """With ``eight``, calm is an emotion of its own. All audio-only speech clips; video, song and
    files named otherwise are counted. Raises ValueError when there is no clip.
    """
    emotions, found = label_map.load("ravdess"), []
    for path in sorted(data_dir.glob("Actor_*/*.wav")):
        match = NAME.fullmatch(path.stem)
        reason = (
            "file name of another form"
            if match is None
            else ""
            if match[1] == AUDIO_ONLY and match[2] == SPEECH
            else "song or video"
        )
        if reason or match[5] not in STATEMENTS:
            note(dropped, path.stem, reason or f"statement {match[5]}")
            continue
        try:
            seconds = round(read_duration(path), 4)
        except ValueError as fault:
            note(dropped, path.stem, getattr(fault, "reason", str(fault)))
            continue
        codes = {"intensity": match[4], "repetition": match[6], "corpus_emotion": match[3]}
        gender = "male" if int(match[7]) % 2 else "female"
        emotion = "calm" if eight and match[3] == CALM else emotions.label("emotion", match[3])
        labels = {"emotion": emotion, "gender": gender}
        known = {
            "lang": "en",
            "speaker": f"actor{match[7]}",
            "labels": labels,
            "duration": seconds,
            "extra": codes,
        }
        found.append(Utterance(path.stem, str(path), STATEMENTS[match[5]], **known))
    if not found:
        raise ValueError(
            f"no clip in {data_dir}/Actor_*/; run stage -1, or point --data_dir at the official "
            "archive unpacked"
        )
    return found


def split_by_fold(fold: int) -> dict[int, str]:
    """Say which split each actor is in when a fold is the test set and the next one dev.

    Actors go by pairs, a man and a woman, round the folds: 1 and 2, 13 and 14 are fold 0.
    Raises ValueError for a fold there is not.
    """
    if not 0 <= fold < FOLDS:
        raise ValueError(f"--fold {fold}: there are folds 0 to {FOLDS - 1}")
    parts = {fold: "test", (fold + 1) % FOLDS: "dev"}
    return {actor: parts.get((actor - 1) // 2 % FOLDS, "train") for actor in range(1, ACTORS + 1)}


def split_by_name(named: list[str]) -> dict[int, str]:
    """Read ``train=1-12 dev=13-14 test=15-18`` as the split of each actor. Raises ValueError."""
    found: dict[int, str] = {}
    for part in named:
        match = re.fullmatch(r"(train|dev|test)=(\d+)-(\d+)", part)
        if not match:
            rule = "write train=FIRST-LAST dev=FIRST-LAST test=FIRST-LAST"
            raise ValueError(f"--actors {part}: {rule}, e.g. train=1-12")
        for actor in range(int(match[2]), int(match[3]) + 1):
            if actor in found:
                raise ValueError(f"--actors: actor {actor} is in {found[actor]} and in {match[1]}")
            found[actor] = match[1]
    return found


def actor_of(utterance: Utterance) -> int:
    """Tell the number of the actor."""
    return int(utterance.speaker.removeprefix("actor"))


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the clips to the lists. Raises ValueError for whatever is wrong with
    them.
    """
    dropped = Dropped()
    of_actor = split_by_name(options.actors) if options.actors else split_by_fold(options.fold)
    clips = read_clips(options.data_dir, dropped, options.emotions == 8)
    print(check_count("ravdess speech clips", len(clips), CLIPS, options.strict_counts))
    print(
        check_count("ravdess actors", len(values(clips, "speaker")), ACTORS, options.strict_counts)
    )
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for clip in clips:
        if actor_of(clip) in of_actor:
            splits[of_actor[actor_of(clip)]].append(clip)
        else:
            note(dropped, clip.key, "actor of no split")
    if empty := [name for name, rows in splits.items() if not rows]:
        way = "name others with --actors" if options.actors else "take another --fold"
        told = " ".join(options.actors or [f"fold {options.fold}"])
        raise ValueError(
            f"no actor of {told} is left for {', '.join(empty)}; {way}, or download the rest"
        )
    write_splits(options.out, splits, DISJOINT, dropped)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(
        __doc__,
        "the official archive unpacked, with Actor_01/ … in it",
        "stop unless the corpus is complete",
    )
    parser.add_argument(
        "--fold",
        type=int,
        default=0,
        help="fold of actors that is the test set, 0 to 5; the next one is dev",
    )
    parser.add_argument(
        "--actors",
        nargs="+",
        metavar="SPLIT=FIRST-LAST",
        help="actors of each split, instead of --fold; others are left out",
    )
    parser.add_argument(
        "--emotions",
        type=int,
        choices=(7, 8),
        default=7,
        help="8: calm stays apart from neutral; the run's labels must name it",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
