#!/usr/bin/env python3
"""RAVDESS speech → manifests of train, dev and test with transcript, emotion and gender; no actor is in two of them.

Reads ``Actor_NN/modality-channel-emotion-intensity-statement-repetition-actor.wav``. The 24 actors lie in six folds of two women and two men.
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

DISJOINT = ["speaker", "recording"]  # what train, dev and test must not share; the two sentences are in all of them
CLIPS, ACTORS, FOLDS = 1440, 24, 6
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
AUDIO_ONLY, SPEECH = "03", "01"  # modality, vocal channel


def read_clips(data_dir: Path, dropped: Dropped) -> list[Utterance]:
    """All audio-only speech clips; video, song and files named otherwise are counted. Raises ValueError when there is no clip."""
    emotions, found = label_map.load("ravdess"), []
    for path in sorted(data_dir.glob("Actor_*/*.wav")):
        match = NAME.fullmatch(path.stem)
        reason = "file name of another form" if match is None else "" if match[1] == AUDIO_ONLY and match[2] == SPEECH else "song or video"
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
        labels = {"emotion": emotions.label("emotion", match[3]), "gender": gender}
        known = {"lang": "en", "speaker": f"actor{match[7]}", "labels": labels, "duration": seconds, "extra": codes}
        found.append(Utterance(path.stem, str(path), STATEMENTS[match[5]], **known))
    if not found:
        raise ValueError(f"no clip in {data_dir}/Actor_*/; run stage -1, or point --data_dir at the official archive unpacked")
    return found


def fold_of(utterance: Utterance) -> int:
    """Actors go by pairs, a man and a woman, round the folds: 1 and 2, 13 and 14 are fold 0."""
    return (int(utterance.speaker.removeprefix("actor")) - 1) // 2 % FOLDS


def prepare(options: argparse.Namespace) -> None:
    """Everything, from the clips to the lists. Raises ValueError for whatever is wrong with them."""
    dropped = Dropped()
    clips = read_clips(options.data_dir, dropped)
    print(check_count("ravdess speech clips", len(clips), CLIPS, options.strict_counts))
    print(check_count("ravdess actors", len(values(clips, "speaker")), ACTORS, options.strict_counts))
    if not 0 <= options.fold < FOLDS:
        raise ValueError(f"--fold {options.fold}: there are folds 0 to {FOLDS - 1}")
    parts = {options.fold: "test", (options.fold + 1) % FOLDS: "dev"}
    splits = {name: [u for u in clips if parts.get(fold_of(u), "train") == name] for name in ("train", "dev", "test")}
    if empty := [name for name, rows in splits.items() if not rows]:
        raise ValueError(f"no actor of fold {options.fold} is left for {', '.join(empty)}; take another --fold, or download the rest")
    write_splits(options.out, splits, DISJOINT, dropped)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command.parser(__doc__, "the official archive unpacked, with Actor_01/ … in it", "stop unless the corpus is complete")
    parser.add_argument("--fold", type=int, default=0, help="fold of actors that is the test set, 0 to 5; the next one is dev")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
