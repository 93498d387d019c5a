#!/usr/bin/env python3
"""Manifests whose rows tell their genre or corpus → manifests of train, dev and test with one of
the eight styles.

Reads every ``*.jsonl`` of a folder. Genre and corpus become a style by the map
wenet_osum/tasks/maps/style.yaml, or one of the user's own; what the map does not know, and what has
no style there, is counted.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from pathlib import Path

from wenet_osum.corpus import command
from wenet_osum.corpus.split import split_by
from wenet_osum.dataset.audio import read_duration
from wenet_osum.dataset.drop import Drop, Dropped, note
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.prepared import write_splits
from wenet_osum.dataset.scan import find
from wenet_osum.records import Utterance
from wenet_osum.tasks import label_map
from wenet_osum.tasks.ssr import STYLE

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def disjoint(by: str) -> list[str]:
    """Return what train, dev and test must not share."""
    return sorted({by, "recording"})


def genres_of(utterance: Utterance) -> list[str]:
    """Return the genres a row names in its field ``genre``, which holds one or a list."""
    given = utterance.extra.get("genre") or []
    if not isinstance(given, list):
        given = [given]
    return [str(genre) for genre in given]


def style_of(utterance: Utterance, corpus: str, styles: label_map.LabelMap) -> str:
    """Return the style of a row: its own label, or what the map says of its genres and corpus.
    Raises Drop when there is none, or when its genres disagree.
    """
    own = STYLE.value(utterance)
    if own is not None:
        return own

    genres = genres_of(utterance)
    found = {mapped_style(corpus, genre, styles) for genre in genres or [""]}
    if len(found) > 1:
        raise Drop(f"genres of several styles: {corpus}/{', '.join(genres)}")
    (style,) = found
    if style is None:
        raise Drop(f"no style of ours: {source_name(corpus, *genres[:1])}")
    return style


def mapped_style(corpus: str, genre: str, styles: label_map.LabelMap) -> str | None:
    """Look up corpus/genre, then the genre, then the corpus; None is "has no style of ours".
    ``genre`` is empty for a row without one. Raises Drop when the map knows none of them.
    """
    names = [f"{corpus}/{genre}", genre, corpus] if genre else [corpus]
    table = styles.fields["style"]
    for name in names:
        key = label_map.fold(name)
        if key in table:
            return table[key]
    raise Drop(f"not in the map: {source_name(corpus, genre)}")


def source_name(corpus: str, genre: str = "") -> str:
    """Name where a row comes from: the corpus, and its genre if it has one."""
    return f"{corpus}/{genre}" if genre else corpus


def read_rows(path: Path, styles: label_map.LabelMap, by: str, dropped: Dropped) -> list[Utterance]:
    """Return the usable rows of a manifest. A row without ``corpus`` belongs to the corpus its file
    is named after.

    Relative paths count from where the recipe works, or else from the manifest's folder.
    """
    found = []
    for utterance in read_manifest(path, dropped):
        corpus = str(utterance.extra.get("corpus") or path.stem)
        try:
            style = style_of(utterance, corpus, styles)
            if not utterance.txt:
                raise Drop("no transcript")
            if by == "speaker" and not utterance.speaker:
                raise Drop("no speaker; --by recording takes such rows, too")
            wav = absolute(utterance.wav, path)
            seconds = utterance.duration or round(read_duration(wav), 4)
        except Drop as drop:
            note(dropped, utterance.key, drop.reason)
            continue

        # Keys and speakers of several corpora must not meet.
        changes = {
            "key": f"{'_'.join(corpus.split())}-{utterance.key}",
            "wav": wav,
            "style": style,
            "speaker": None,
            "duration": seconds,
        }
        if utterance.speaker:
            changes["speaker"] = f"{corpus} {utterance.speaker}"
        extra = utterance.extra | {"corpus": corpus}
        changed = utterance.with_values(changes)
        found.append(dataclasses.replace(changed, extra=extra))
    return found


def absolute(wav: str, manifest: Path) -> str:
    """Return the absolute path of a recording of a manifest; an address stays as it is."""
    if "://" in wav:
        return wav
    path = Path(find(wav, str(manifest)))
    return str(path.resolve())


def confounded(rows: list[Utterance]) -> list[str]:
    """Return a line for each style, and a note on styles that come from one corpus alone: there
    the recording tells the style as well as the speaking does.
    """
    by_style: dict[str, Counter] = {}
    for utterance in rows:
        style = utterance.labels["style"]
        corpora = by_style.setdefault(style, Counter())
        corpora[utterance.extra["corpus"]] += 1

    lines, single = [], []
    for style, corpora in by_style.items():
        counts = [f"{corpus} {number}" for corpus, number in sorted(corpora.items())]
        lines.append(f"{style}: {', '.join(counts)}")
        if len(corpora) == 1:
            single.append(style)
    if single:
        lines.append(
            f"note: {', '.join(single)} come from one corpus each: a figure on them may be about "
            "microphones, not styles"
        )
    missing = [name for name in STYLE.labels.names if name not in by_style]
    if missing:
        lines.append(f"note: nothing is there of {', '.join(missing)}")
    return lines


def prepare(options: argparse.Namespace) -> None:
    """Write the manifests of the splits. Raises ValueError when a manifest or the map is faulty, or
    no row has a style.
    """
    dropped = Dropped()
    styles = label_map.load(options.map)
    if "style" not in styles.fields:
        raise ValueError(
            f"label map {options.map} has no table 'style'; it has {', '.join(styles.fields)}"
        )
    paths = sorted(options.data_dir.glob("*.jsonl"))
    if not paths:
        raise ValueError(
            f"no *.jsonl in {options.data_dir}; put manifests there whose rows have a field genre "
            "or corpus (README.md)"
        )
    rows = []
    for path in paths:
        found = read_rows(path, styles, options.by, dropped)
        print(f"{path.name}: {len(found)} utterances with a style")
        rows += found

    if not rows:
        reasons = ", ".join(reason for reason, _ in dropped.most_common(3))
        raise ValueError(f"no row of {len(paths)} manifests has a style: {reasons}")
    for line in confounded(rows):
        print(line)

    splits = split_by(rows, SHARES, options.by, balance=["style"], seed=options.seed)
    kept_apart = disjoint(options.by)
    write_splits(options.out, splits, kept_apart, dropped)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.parser(__doc__, "folder with manifests, *.jsonl")
    parser.add_argument(
        "--map",
        default="style",
        help="name of a label map, or the path of your own yaml with a table style",
    )
    parser.add_argument(
        "--by", choices=("speaker", "recording"), default="speaker", help="what no two splits share"
    )
    parser.add_argument("--seed", type=int, default=777, help="of the splits")
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(prepare, arguments())
