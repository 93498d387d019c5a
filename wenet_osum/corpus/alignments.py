"""Read the alignment files of a folder, in any format of ``word_times/``, as one table.

The table is recording → words.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

from wenet_osum import lookup
from wenet_osum.records import Word

FORMATS = "wenet_osum.corpus.word_times"


def read_alignments(path: str | Path, name: str, faults: Counter) -> dict[str, list[Word]]:
    """Read a file, or all of a folder, in format ``name``.

    A file of one recording goes by its own name without the suffix. Files that cannot be read, and
    names that stand twice, are counted in ``faults``; such a name has no words. Raises ValueError
    for an unknown format, and when there is no file.
    """
    module = lookup.load(FORMATS, name)
    found: dict[str, list[Word]] = {}
    twice: set[str] = set()
    for file in _files(Path(path), module):
        try:
            tables = module.read(file.read_bytes())
        except ValueError as error:
            # The first fault is told in full, so that the user sees what is wrong with the format.
            reason = "alignment file cannot be read"
            if not faults:
                reason = f"{reason}, e.g. {file.name}: {error}"
            faults[reason] += 1
            continue

        for recording, words in tables.items():
            key = file.stem if recording is None else recording
            if key in found:
                twice.add(key)
            found[key] = words

    # Nobody knows which of two alignments of one name is meant.
    if twice:
        faults["alignments with a name that stands twice"] += len(twice)
    for key in twice:
        del found[key]
    return found


def _files(path: Path, module: ModuleType) -> list[Path]:
    """List the alignment files at ``path``. Raises ValueError when there are none."""
    files = [path]
    if path.is_dir():
        files = []
        for file in path.rglob("*"):
            if file.suffix.lower() in module.SUFFIXES:
                files.append(file)
        files.sort()

    if not files or not files[0].exists():
        suffixes = " or ".join(module.SUFFIXES)
        advice = "give the aligner's output, a file or a folder"
        raise ValueError(f"{path}: no {suffixes} file; {advice}")
    return files
