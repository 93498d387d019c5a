"""Find the manifests of a prepared corpus, and where what is made of them goes."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "manifest.jsonl"


def split_pairs(source: str | Path, out: str | Path) -> list[tuple[Path, Path]]:
    """Pair each manifest of a folder with its place in the folder ``out``, split by split.

    A ``source`` that is a file is paired with ``out``. Raises ValueError for a folder without one.
    """
    source = Path(source)
    out = Path(out)
    if not source.is_dir():
        return [(source, out)]

    pairs = []
    for manifest in sorted(source.glob(f"*/{MANIFEST}")):
        inside = manifest.relative_to(source)
        target = out / inside
        pairs.append((manifest, target))
    if not pairs:
        raise ValueError(
            f"{source}: no SPLIT/{MANIFEST} in it; give a folder as stage 0 writes it"
        )
    return pairs
