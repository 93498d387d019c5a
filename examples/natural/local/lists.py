#!/usr/bin/env python3
"""The fixed lists that comparisons go by, out of prepared manifests.

    python local/lists.py --manifest corpora/speechocean762/data/test/manifest.jsonl \\
        --keys conf/test300.txt --out data/test300.list
    python local/lists.py --manifest corpora/speechocean762/data/test/manifest.jsonl --age adult \\
        --out data/adults.list
    python local/lists.py --manifest corpora/speechocean762/data/test/manifest.jsonl --draw 300 \\
        --out conf/test300.txt

--keys keeps the utterances of a file of keys; --age those of an age group; --draw writes such a
file: speakers in the order
of a hash of their names give one utterance each, in the order of a hash of its key, round after
round. No seed is in it:
the same corpus gives the same list everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
from itertools import zip_longest
from pathlib import Path

from wenet_osum import tasks
from wenet_osum.corpus import command
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.records import Utterance


def hashed(name: str) -> str:
    """A number that depends on the name alone, as text to sort by."""
    return hashlib.sha256(name.encode()).hexdigest()


def draw(utterances: list[Utterance], count: int) -> list[str]:
    """Draw keys, the speakers evenly, by the order of hashes; they are sorted."""
    of_speaker: dict[str, list[str]] = {}
    for utterance in utterances:
        of_speaker.setdefault(utterance.speaker or utterance.key, []).append(utterance.key)
    queues = [sorted(of_speaker[name], key=hashed) for name in sorted(of_speaker, key=hashed)]
    rounds = [key for turn in zip_longest(*queues) for key in turn if key is not None]
    return sorted(rounds[:count])


def keep_keys(utterances: list[Utterance], path: Path) -> list[Utterance]:
    """Keep the utterances whose keys a file names; says how many of them there are."""
    wanted = set(path.read_text(encoding="utf-8").split())
    kept = [u for u in utterances if u.key in wanted]
    if len(kept) < len(wanted):
        print(f"{path.name}: subset: {len(kept)} of {len(wanted)}")
    return kept


def keep_age(utterances: list[Utterance], group: str) -> list[Utterance]:
    """Keep the utterances of an age group."""
    (age,) = tasks.parse("sap").label_fields
    return [u for u in utterances if age.value(u) == group]


def make(options: argparse.Namespace) -> None:
    """Write one list; one that would be empty is named and not written. Raises ValueError for a bad
    manifest.
    """
    utterances = list(read_manifest(options.manifest))
    if options.draw:
        keys = draw(utterances, options.draw)
        options.out.write_text("".join(f"{key}\n" for key in keys), encoding="utf-8")
        print(f"{options.out}: {len(keys)} keys")
        return
    kept = keep_keys(utterances, options.keys) if options.keys else utterances
    kept = keep_age(kept, options.age) if options.age else kept
    if not kept:
        print(f"{options.out} is left out: none of {len(utterances)} utterances is asked for")
        return
    write_manifest(options.out, kept)
    speakers = len({u.speaker for u in kept})
    print(f"{options.out}: {len(kept)} of {len(utterances)} utterances, {speakers} speakers")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--keys", type=Path, help="file of keys, one a line")
    parser.add_argument("--age", help="age group, e.g. adult")
    parser.add_argument(
        "--draw",
        type=int,
        metavar="N",
        help="write N keys instead of utterances",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(make, arguments())
