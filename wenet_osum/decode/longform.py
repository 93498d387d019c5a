"""Audio over 30 s: cut at pauses into pieces of at most 28 s, and the pieces' answers joined to one.

A piece ends in the middle of the longest pause of its second half. Without a pause it ends at 28 s,
the next one begins 1 s earlier, and what both heard of that second stands once. A model that was trained on shorter
utterances hears shorter pieces (``longest_s``). Recordings are read in blocks, so hours of audio
take no more memory than a minute.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wenet_osum.dataset.audio import EXACT, check_file_rate, resample, unreadable
from wenet_osum.dataset.drop import Drop
from wenet_osum.records import SAMPLE_RATE, Hypothesis, Utterance, Word
from wenet_osum.tasks.base import CJK, Task, join_words

WHOLE_S = 30.0  # audio up to this length stays in one piece
LONGEST_S = 28.0  # a piece of longer audio
LEAST_S = 1.0  # of ``longest_s``: pauses are looked for in 0.2 s
SHORTEST_REST_S = 1.0  # what at least is left for the last piece, or a quarter of a short piece
OVERLAP_S = 1.0  # where there is no pause, likewise
BLOCK_S = 5.0  # read at once
STEP_S = 0.01  # grid of the loudness curve
SMOOTH_STEPS = 20  # a pause is quiet for 0.2 s …
PAUSE_RATIO = 0.01  # … by 20 dB against the loud parts (95th percentile) around it, …
NOISE_STEPS = 5  # … or as quiet as the noise floor: the 2nd percentile of 0.05 s stretches …
NOISE_PERCENTILE = 2.0
NOISE_RATIO = 1.6  # … with a margin of 2 dB, for noise is not even, …
CONTRAST = 0.25  # … where that is 6 dB below the loud parts: else nobody speaks or noise covers all
SILENCE = 1e-8  # mean square below which everything is a pause (−80 dB of full scale)
ALIGNED_WORDS = 8  # words (characters) at either side of a border that may have been said twice: about 1 s
SAME_TIME_S = 0.25  # a word heard twice starts at the same time; one said twice does not
NO_PAUSE = "joined_without_pause"  # flag: some border has no pause; words around it were aligned
REPLIES = "reply_in_pieces"  # flag: each piece has a reply of its own
FLAGS = (NO_PAUSE, REPLIES)  # those of joined answers alone
TOKEN = re.compile(rf"{CJK.pattern}|(?:(?!{CJK.pattern})\S)+")


@dataclass
class Piece:
    """A stretch of a recording."""

    start: float  # s in the recording
    end: float  # s in the recording
    audio: np.ndarray  # (samples,) mono
    overlap: float = 0.0  # s at its beginning that the piece before also has


def whole_s(longest_s: float = LONGEST_S) -> float:
    """Seconds up to which audio stays in one piece when longer audio has pieces of ``longest_s``. Raises ValueError outside 1 to 28 s."""
    if not LEAST_S <= longest_s <= LONGEST_S:
        raise ValueError(f"pieces of {longest_s} s: longest_s must be {LEAST_S:g} to {LONGEST_S:g}, for the encoder hears up to {WHOLE_S:g} s")
    return longest_s * WHOLE_S / LONGEST_S


def read_pieces(source: str | Path | bytes, start: float | None = None, end: float | None = None, longest_s: float = LONGEST_S) -> Iterator[Piece]:
    """The pieces of a recording, or of its segment from ``start`` to ``end`` (s), at 16 kHz. Raises Drop when it cannot be read."""
    import soundfile

    name = f"{len(source)} bytes" if isinstance(source, bytes) else source
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise Drop("audio: file not found", str(source))
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
            check_file_rate(file.samplerate)
            rate, first = file.samplerate, round((start or 0.0) * file.samplerate)
            last = file.frames if end is None else min(file.frames, round(end * rate))
            if first >= last:
                raise Drop("audio: empty", f"{name} has no samples from {start or 0.0} s on")
            file.seek(first)
            for piece in split(_blocks(file, last - first), rate, longest_s):
                piece.audio = resample(piece.audio, rate)
                yield piece
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        raise unreadable(str(name), error) from None


def _blocks(file, samples: int) -> Iterator[np.ndarray]:
    """Mono blocks of 5 s until ``samples`` are read, or a format that may be cut short ends."""
    while samples > 0:
        block = file.read(min(samples, round(BLOCK_S * file.samplerate)), dtype="float32", always_2d=True).mean(axis=1)
        if not len(block) and file.format not in EXACT:
            return
        if not len(block):
            raise Drop("audio: cut short", f"{samples} samples that the header promises cannot be decoded")
        if not np.isfinite(block).all():
            raise Drop("audio: NaN or infinity", "every sample must be a finite number")
        samples -= len(block)
        yield block


def split(blocks: Iterable[np.ndarray], rate: int = SAMPLE_RATE, longest_s: float = LONGEST_S) -> Iterator[Piece]:
    """Cut a stream of blocks (samples,) at ``rate`` Hz into pieces. Up to ``whole_s`` (30 s) stay whole; else each piece has at most ``longest_s``."""
    blocks, whole = iter(blocks), round(whole_s(longest_s) * rate)
    least, shared = (round(min(seconds, longest_s / 4) * rate) for seconds in (SHORTEST_REST_S, OVERLAP_S))
    held, at, overlap, ended = np.zeros(0, np.float32), 0, 0, False  # held begins at sample ``at`` of the recording
    while True:
        parts, size = [held], len(held)
        while not ended and size <= whole + rate:
            block = next(blocks, None)
            ended = block is None
            parts += [] if ended else [block]
            size += 0 if ended else len(block)
        held = np.concatenate(parts)
        most = whole if at == 0 else round(longest_s * rate)
        if ended and len(held) <= most:
            if len(held):
                yield Piece(at / rate, (at + len(held)) / rate, held, overlap / rate)
            return
        cut, paused = find_cut(held, rate, len(held) - least, longest_s)
        yield Piece(at / rate, (at + cut) / rate, held[:cut], overlap / rate)
        overlap = 0 if paused else shared
        held, at = held[cut - overlap :], at + cut - overlap


def find_cut(
    audio: np.ndarray, rate: int, latest: int, longest_s: float = LONGEST_S
) -> tuple[int, bool]:
    """Choose where a piece of ``audio`` (samples,) ends.

    Returns a sample in the second half of ``longest_s`` and not after ``latest``, and whether there
    is a pause: the middle of the longest one, else the last sample that is allowed.
    """
    step = round(STEP_S * rate)
    steps = len(audio) // step
    power = np.square(audio[: steps * step].astype(np.float64)).reshape(steps, step).mean(axis=1)
    quiet = moving_mean(power, SMOOTH_STEPS) <= pause_level(power)

    # Only the second half is asked. Element i of ``quiet`` is about the 0.2 s around step i + 10.
    half = SMOOTH_STEPS // 2
    high = min(round(longest_s * rate), latest)
    first, last = round(longest_s / 2 / STEP_S) - half, high // step - half
    begin, end = longest_run(quiet[first : last + 1])
    if begin == end:
        return high, False

    # The middle is the farthest from both words, whose edges noise may hide.
    return (first + (begin + end - 1) // 2 + half) * step, True


def pause_level(power: np.ndarray) -> float:
    """Return the mean square at or below which 0.2 s are a pause; ``power`` (steps,) is per 10 ms.

    The loud parts alone do not tell: with steady noise no pause is 20 dB below them. A gap between
    two syllables is not taken for one, as it lasts less than 0.2 s and the floor is measured in
    stretches short enough to fit into it.
    """
    loud = float(np.percentile(power, 95))
    floor = float(np.percentile(moving_mean(power, NOISE_STEPS), NOISE_PERCENTILE))
    return max(SILENCE, PAUSE_RATIO * loud, min(NOISE_RATIO * floor, CONTRAST * loud))


def moving_mean(values: np.ndarray, size: int) -> np.ndarray:
    """Return the means of all stretches of ``size`` values: (values,) → (values - size + 1,)."""
    sums = np.concatenate([[0.0], values.cumsum()])
    return np.maximum(sums[size:] - sums[:-size], 0) / size


def longest_run(true: np.ndarray) -> tuple[int, int]:
    """Return (begin, end) of the longest run of True in (n,), or (0, 0) without one."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], true.astype(np.int8), [0]])))
    if not len(edges):
        return 0, 0
    begins, ends = edges[::2], edges[1::2]
    longest = int((ends - begins).argmax())
    return int(begins[longest]), int(ends[longest])


def join(pieces: list[Piece], answers: list[Hypothesis], task: Task, key: str) -> Hypothesis:
    """One answer for the whole: times shifted, text joined, labels by the duration-weighted mean of their probabilities."""
    joined = Hypothesis(key, task.tags, "", duration=round(max(p.end for p in pieces), 3))
    pairs = list(zip(pieces, answers, strict=True))
    for piece, answer in pairs:
        _add_text(joined, piece, answer)
        joined.flags += [flag for flag in answer.flags if flag not in joined.flags]
        joined.reply = answer.reply if joined.reply is None else join_words([joined.reply, answer.reply or ""]).strip()
    for field in task.label_fields:
        _add_label(joined, field.name, pairs)
    for name in {name for answer in answers for name in answer.unread} - set(joined.labels):
        joined.unread[name] = "; ".join(f"{p.start:.2f} s: {a.unread[name]}" for p, a in pairs if name in a.unread)
    joined.flags += _own_flags(joined, pieces)
    joined.pieces = [_piece_row(*pair) for pair in pairs]
    joined.text = _written(joined, task) or " ".join(a.text for a in answers)
    return joined


def _own_flags(joined: Hypothesis, pieces: list[Piece]) -> list[str]:
    """Return what the reader of the joined answer should know of the joining."""
    flags = [NO_PAUSE] if any(piece.overlap for piece in pieces) else []
    return flags + ([REPLIES] if joined.reply else [])


def _piece_row(piece: Piece, answer: Hypothesis) -> dict:
    row = {k: v for k, v in answer.to_dict().items() if k in ("text", "labels", "probs", "flags")}
    return {"start": round(piece.start, 3), "end": round(piece.end, 3)} | row


def _add_text(joined: Hypothesis, piece: Piece, answer: Hypothesis) -> None:
    if answer.words is not None:
        shifted = [Word(w.text, round(w.start + piece.start, 3), round(w.end + piece.start, 3)) for w in answer.words]
        joined.words = join_times(joined.words or [], shifted, piece)
        joined.transcript = join_words([w.text for w in joined.words])
    elif answer.transcript is not None:
        join_two = join_overlapping if piece.overlap else lambda a, b: join_words([a, b]).strip()
        joined.transcript = join_two(joined.transcript or "", answer.transcript)


def join_overlapping(left: str, right: str) -> str:
    """Join two transcripts that may share words at the border; those shared stand once.

    Nothing else is taken away but a word at the border that was cut there (``find_shared``).
    """
    ends = list(TOKEN.finditer(left))[-ALIGNED_WORDS:]
    starts = list(TOKEN.finditer(right))[:ALIGNED_WORDS]
    shared = find_shared([m[0] for m in ends], [m[0] for m in starts])
    if shared is None:
        return join_words([left, right]).strip()
    kept = left[: ends[len(ends) - 1 - shared.after].end()]
    rest = right[starts[shared.before + shared.size - 1].end() :].strip()
    return join_words([kept, rest]).strip()


def join_times(left: list[Word], right: list[Word], piece: Piece) -> list[Word]:
    """Join words with times: the run both have in the overlap at the same time stands once.

    Without such a run the middle of the overlap divides.
    """
    if not piece.overlap or not left:
        return left + right
    border = piece.start + piece.overlap
    first = next((i for i, w in enumerate(left) if w.end > piece.start), len(left))
    last = next((i for i, w in enumerate(right) if w.start >= border), len(right))
    ends, starts = left[first:][-ALIGNED_WORDS:], right[:last][:ALIGNED_WORDS]
    shared = find_shared([w.text for w in ends], [w.text for w in starts])
    if shared and _at_the_same_time(ends, starts, shared):
        return left[: len(left) - shared.after] + right[shared.before + shared.size :]
    middle = piece.start + piece.overlap / 2
    before = [w for w in left if (w.start + w.end) / 2 < middle]
    after = [w for w in right if (w.start + w.end) / 2 >= middle]
    return before + after


class Shared(NamedTuple):
    """A run of words that both sides of a border heard."""

    size: int  # words
    after: int  # words after it on the left side: 0, or the one that was cut
    before: int  # words before it on the right side, likewise


def find_shared(left: list[str], right: list[str]) -> Shared | None:
    """Find the run that ends ``left`` and begins ``right``; None when they share nothing.

    The border may cut a word. The side that has only part of it may hear any word there, so one
    word may stand between the run and the border. Two strangers often have a word in common, and
    a run must be the longer, the more would be thrown away for it: ``_least_size``.
    """
    left, right = _bare(left), _bare(right)
    found = []
    for after, before in ((0, 0), (1, 0), (0, 1), (1, 1)):
        size = _run_at(left[: max(0, len(left) - after)], right[before:])
        shared = Shared(size, after, before)
        if size and size >= _least_size(left, right, shared):
            found.append(shared)
    # Of equals the first is taken, which throws away least.
    return max(found, key=lambda run: run.size - run.after - run.before, default=None)


def _bare(words: list[str]) -> list[str]:
    """Return the words without case and punctuation, which depend on what follows them."""
    return [re.sub(r"\W", "", word).lower() or word for word in words]


def _run_at(left: list[str], right: list[str]) -> int:
    """Return how many of the last words of ``left`` are the first of ``right``, at most."""
    sizes = range(min(len(left), len(right)), 0, -1)
    return next((size for size in sizes if left[-size:] == right[:size]), 0)


def _least_size(left: list[str], right: list[str], shared: Shared) -> int:
    """Return how many words a run needs to be believed.

    1 when nothing is thrown away. 2 when what is thrown away resembles the word the other side
    heard in its place, as "ma" does "mat". Else 3: two words in a row fit by chance once in a
    thousand borders, three hardly ever.
    """
    alike = []
    if shared.after:
        whole = right[shared.before + shared.size :][:1]
        alike.append(bool(whole) and whole[0][0] == left[-1][0])
    if shared.before:
        whole = left[: len(left) - shared.after - shared.size][-1:]
        alike.append(bool(whole) and whole[0][-1] == right[0][-1])
    if not alike:
        return 1
    return 2 if all(alike) else 3


def _at_the_same_time(left: list[Word], right: list[Word], shared: Shared) -> bool:
    """Whether both sides heard the run's first word at the same time."""
    one = left[len(left) - shared.after - shared.size]
    other = right[shared.before]
    return abs(one.start - other.start) <= SAME_TIME_S


def _add_label(joined: Hypothesis, name: str, pairs: list[tuple[Piece, Hypothesis]]) -> None:
    """The mean over pieces; in free decoding, where there are no probabilities, each read label counts with its duration."""
    known = [(p.end - p.start, a.probs.get(name) or {a.labels[name]: 1.0}) for p, a in pairs if name in a.probs or name in a.labels]
    if not known:
        return
    total = sum(seconds for seconds, _ in known)
    labels = dict.fromkeys(label for _, probs in known for label in probs)
    mean = {label: sum(s * probs.get(label, 0.0) for s, probs in known) / total for label in labels}
    joined.labels[name] = max(mean, key=mean.get)
    if any(name in a.probs for _, a in pairs):
        joined.probs[name] = mean


def _written(joined: Hypothesis, task: Task) -> str | None:
    """The whole answer in its written form, where every field is known; the pieces keep their raw texts."""
    known = {"txt": joined.transcript, "words": joined.words, "reply": joined.reply}
    known |= {f.attribute: joined.labels.get(f.name) for f in task.label_fields}
    whole = Utterance(joined.key, "joined").with_values(known)
    return task.write(whole) if task.present(whole) else None
