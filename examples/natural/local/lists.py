#!/usr/bin/env python3
"""The fixed lists that comparisons go by, out of prepared manifests.

    python local/lists.py --manifest corpora/speechocean762/data/test/manifest.jsonl \\
        --keys conf/test300.txt --out data/test300.list
    python local/lists.py --manifest corpora/speechocean762/data/test/manifest.jsonl --age adult \\
        --out data/adults.list
    python local/lists.py --manifest corpora/speechocean762/data/test/manifest.jsonl --draw 300 \\
        --out conf/test300.txt

--keys keeps the utterances of a file of keys, --age and --event those of a label, --unseen those
whose transcript no utterance of a training manifest has. --draw writes a file of keys: speakers in
the order of a hash of their names give one utterance each, in the order of a hash of its key, round
after round. No seed is in it: the same corpus gives the same list everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
from itertools import zip_longest
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.corpus import command
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.files import write_text
from wenet_osum.records import Utterance


def hashed(name: str) -> str:
    """Return a number that depends on the name alone, as text to sort by."""
    digest = hashlib.sha256(name.encode())
    return digest.hexdigest()


def draw(utterances: list[Utterance], count: int) -> list[str]:
    """Draw keys, the speakers evenly, by the order of hashes; they are sorted."""
    by_speaker: dict[str, list[str]] = {}
    for utterance in utterances:
        speaker = utterance.speaker or utterance.key
        keys = by_speaker.setdefault(speaker, [])
        keys.append(utterance.key)
    queues = []
    for speaker in sorted(by_speaker, key=hashed):
        queue = sorted(by_speaker[speaker], key=hashed)
        queues.append(queue)

    # A turn takes one utterance of each speaker who has any left.
    drawn = []
    for turn in zip_longest(*queues):
        drawn += [key for key in turn if key is not None]
    return sorted(drawn[:count])


def keep_keys(utterances: list[Utterance], path: Path) -> list[Utterance]:
    """Keep the utterances whose keys a file names; says how many of them there are."""
    text = path.read_text(encoding="utf-8")
    wanted = set(text.split())
    kept = [utterance for utterance in utterances if utterance.key in wanted]
    if len(kept) < len(wanted):
        print(f"{path.name}: subset: {len(kept)} of {len(wanted)}")
    return kept


def keep_label(utterances: list[Utterance], task: str, label: str) -> list[Utterance]:
    """Keep the utterances that have a label of a task, such as an age group of ``sap``."""
    (field,) = tasks.parse(task).label_fields
    return [utterance for utterance in utterances if field.value(utterance) == label]


def keep_unseen(utterances: list[Utterance], training: Path) -> list[Utterance]:
    """Keep the utterances whose transcript stands nowhere in a manifest of training."""
    seen = {utterance.txt for utterance in read_manifest(training)}
    return [utterance for utterance in utterances if utterance.txt not in seen]


def make(options: argparse.Namespace) -> None:
    """Write one list, or the keys of one. Raises ValueError for a bad manifest."""
    utterances = list(read_manifest(options.manifest))
    if options.draw:
        keys = draw(utterances, options.draw)
        lines = [f"{key}\n" for key in keys]
        write_text(options.out, "".join(lines))
        print(f"{options.out}: {len(keys)} keys")
        return

    kept = utterances
    if options.keys:
        kept = keep_keys(kept, options.keys)
    if options.age:
        kept = keep_label(kept, "sap", options.age)
    if options.event:
        kept = keep_label(kept, "ved", options.event)
    if options.unseen:
        kept = keep_unseen(kept, options.unseen)
    # A list that would be empty is named and not written.
    if not kept:
        print(f"{options.out} is left out: none of {len(utterances)} utterances is asked for")
        return
    write_manifest(options.out, kept)
    speakers = {utterance.speaker for utterance in kept}
    count = f"{len(kept)} of {len(utterances)}"
    print(f"{options.out}: {count} utterances, {len(speakers)} speakers")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--keys", type=Path, help="file of keys, one a line")
    parser.add_argument("--age", help="age group, e.g. adult")
    parser.add_argument("--event", help="vocal event, e.g. other")
    parser.add_argument(
        "--unseen",
        type=Path,
        metavar="MANIFEST",
        help="of training, whose sentences are left out",
    )
    parser.add_argument(
        "--draw",
        type=int,
        metavar="N",
        help="write N keys instead of utterances",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(make, arguments())
