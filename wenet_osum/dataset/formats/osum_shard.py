"""Tar shards in the layout of the published OSUM.

The composed target is in ``.txt``, labels are in members of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from wenet_osum.dataset.formats import shard
from wenet_osum.records import Utterance

LAYOUT = "osum"
read = shard.read


def write(path: str, utterances: Iterable[Utterance], lost: Counter) -> int:
    """Write a data.list at ``path`` and its shards beside it.

    Utterances without a task are left out: their target cannot be composed.
    """
    return shard.write_layout(
        path,
        utterances,
        lost,
        LAYOUT,
    )
