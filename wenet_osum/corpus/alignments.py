"""Read the alignment files of a folder, in any format of ``word_times/``, and give utterances the
word times in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from wenet_osum import lookup
from wenet_osum.corpus.match_words import Unmatched, match
from wenet_osum.records import Utterance, Word

FORMATS = "wenet_osum.corpus.word_times"
# A word may reach this far beyond the recording; it is cut off there.
SLACK_S = 0.05


class Alignments:
    """Words with times by the name of what they were aligned with: an utterance or a recording.

    A name may hold folders, as ``spk1/001``.
    """

    def __init__(self, words: dict[str, list[Word]]) -> None:
        self.words = words
        self.names: dict[str, list[str]] = {}  # last part of a name → the names that end in it
        for name in words:
            _, _, last = name.rpartition("/")
            self.names.setdefault(last, []).append(name)
        self.wavs: dict[str, str] = {}  # such a last part → the first recording called like it
        self.ambiguous: set[str] = set()  # those that several recordings are called like

    def note_recordings(self, utterances: Iterable[Utterance]) -> None:
        """Take in which recordings there are, to know where their names alone do not part them."""
        for utterance in utterances:
            *_, stem = _parts(utterance.wav)
            if stem in self.names and self.wavs.setdefault(stem, utterance.wav) != utterance.wav:
                self.ambiguous.add(stem)

    def find(self, utterance: Utterance) -> tuple[list[Word], bool]:
        """Return the words of an utterance, and whether they are those of its whole recording.

        They go by the utterance's key, by the last folders and the name of its recording, or by a
        name alone that one alignment and one recording have. Raises Unmatched.
        """
        key = utterance.key
        if key in self.words:
            return self.words[key], False

        parts = _parts(utterance.wav)
        for first in range(len(parts) - 1):
            name = "/".join(parts[first:])
            if name in self.words:
                return self.words[name], True

        # A name without its folder is that of a key, or of the recording.
        for last in (key, parts[-1]):
            names = self.names.get(last, [])
            if len(names) > 1 or last in self.ambiguous:
                raise Unmatched("several recordings of this name", last)
            if names:
                return self.words[names[0]], last != key
        raise Unmatched("no alignment of this name", key)


def _parts(wav: str) -> list[str]:
    """Return the folders of a recording and its name without the suffix."""
    *folders, file = wav.split("/")
    return [*folders, file.rsplit(".", 1)[0]]


def read_alignments(path: str | Path, name: str, faults: Counter) -> Alignments:
    """Read a file, or all of a folder, in format ``name``.

    A file of one recording goes by its path in the folder without the suffix. Files that cannot be
    read, and names that stand twice, are counted in ``faults``; such a name has no words. Raises
    ValueError for an unknown format, and when there is no file.
    """
    module = lookup.load(FORMATS, name)
    found: dict[str, list[Word]] = {}
    twice: set[str] = set()
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
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
            key = recording
            if recording is None:
                key = file.relative_to(folder).with_suffix("").as_posix()
            if key in found:
                twice.add(key)
            found[key] = words

    # Nobody knows which of two alignments of one name is meant.
    if twice:
        faults["alignments with a name that stands twice"] += len(twice)
    for key in twice:
        del found[key]
    return Alignments(found)


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


def add_words(utterance: Utterance, alignments: Alignments) -> tuple[list[Word], int]:
    """Return words for an utterance, with times in the segment's own time.

    Of the alignment of a whole recording its segment is taken. Also returns how many timed words
    say nothing of the transcript. Raises Unmatched when there is no alignment, or none that fits.
    """
    if not utterance.txt:
        raise Unmatched("no transcript")
    timed, of_recording = alignments.find(utterance)
    if of_recording:
        start = utterance.start or 0.0
        timed = _cut(timed, start, utterance.end)
    words, extra = match(utterance.txt, timed)
    return _within(words, utterance), extra


def _cut(timed: list[Word], start: float, end: float | None) -> list[Word]:
    """Return the words whose middle lies in a segment, in its own time."""
    last = float("inf") if end is None else end
    inside = []
    for word in timed:
        middle = (word.start + word.end) / 2
        if start <= middle < last:
            begins = max(word.start - start, 0.0)
            ends = word.end - start
            inside.append(Word(word.text, begins, ends))
    return inside


def _within(words: list[Word], utterance: Utterance) -> list[Word]:
    """Cut the words at the end of the recording, where that is known. Raises Unmatched."""
    length = utterance.duration
    if utterance.end is not None:
        start = utterance.start or 0.0
        length = utterance.end - start
    if length is None:
        return words

    last = words[-1]
    if last.end > length + SLACK_S or last.start >= length:
        detail = f"{last} of {length:.2f} s"
        raise Unmatched("times beyond the recording", detail)
    cut = []
    for word in words:
        end = min(word.end, length)
        cut.append(Word(word.text, word.start, end))
    return cut
