"""Audio over 30 s: cut at pauses into pieces of at most 28 s, and the pieces' answers joined to one.

A piece ends at the quietest point of its second half. Where even that is no pause it ends at 28 s, the next one begins 1 s
earlier, and the words both have are aligned. A model that was trained on shorter utterances hears shorter pieces (``longest_s``). Recordings are read in blocks, so hours of audio take no more memory than a minute.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wenet_osum.dataset.audio import resample
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
PAUSE_RATIO = 0.01  # … by 20 dB against the loud parts (95th percentile) around it
SILENCE = 1e-8  # mean square below which everything is a pause (−80 dB of full scale)
ALIGNED_WORDS = 8  # words (characters) at either side of a border that may have been said twice: about 1 s
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
            rate, first = file.samplerate, round((start or 0.0) * file.samplerate)
            last = file.frames if end is None else min(file.frames, round(end * rate))
            if first >= last:
                raise Drop("audio: empty", f"{name} has no samples from {start or 0.0} s on")
            file.seek(first)
            for piece in split(_blocks(file, last - first), rate, longest_s):
                piece.audio = resample(piece.audio, rate)
                yield piece
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        raise Drop("audio: unreadable", f"{name}: {error}") from None


def _blocks(file, samples: int) -> Iterator[np.ndarray]:
    """Mono blocks of 5 s until ``samples`` are read."""
    while samples > 0:
        block = file.read(min(samples, round(BLOCK_S * file.samplerate)), dtype="float32", always_2d=True).mean(axis=1)
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
        cut, paused = quietest(held, rate, len(held) - least, longest_s)
        yield Piece(at / rate, (at + cut) / rate, held[:cut], overlap / rate)
        overlap = 0 if paused else shared
        held, at = held[cut - overlap :], at + cut - overlap


def quietest(audio: np.ndarray, rate: int, latest: int, longest_s: float = LONGEST_S) -> tuple[int, bool]:
    """Where to cut, as a sample in the second half of ``longest_s`` (and not after ``latest``), and whether there is a pause there."""
    step = round(STEP_S * rate)
    steps = len(audio) // step
    power = np.square(audio[: steps * step].astype(np.float64)).reshape(steps, step).mean(axis=1)
    sums = np.concatenate([[0.0], power.cumsum()])
    smooth = np.maximum(sums[SMOOTH_STEPS:] - sums[:-SMOOTH_STEPS], 0) / SMOOTH_STEPS  # of steps i … i + 19
    high = min(round(longest_s * rate), latest)
    first, last = round(longest_s / 2 / STEP_S) - SMOOTH_STEPS // 2, high // step - SMOOTH_STEPS // 2
    window = smooth[first : last + 1]
    lowest = float(window.min())
    loud = float(np.percentile(power, 95))
    if lowest > max(PAUSE_RATIO * loud, SILENCE):
        return high, False
    begin = end = int(window.argmin())
    while end + 1 < len(window) and window[end + 1] <= lowest * 1.001 + SILENCE / 1000:  # the middle of an even silence
        end += 1
    return (first + (begin + end) // 2 + SMOOTH_STEPS // 2) * step, True


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
    joined.pieces = [_piece_row(*pair) for pair in pairs]
    joined.text = _written(joined, task) or " ".join(a.text for a in answers)
    return joined


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
    """Join two transcripts that may share words at the border: the longest run found on both sides stands once."""
    ends, starts = list(TOKEN.finditer(left))[-ALIGNED_WORDS:], list(TOKEN.finditer(right))[:ALIGNED_WORDS]
    match = _common_run([m[0] for m in ends], [m[0] for m in starts])
    if not match.size:
        return join_words([left, right]).strip()
    return join_words([left[: ends[match.a + match.size - 1].end()], right[starts[match.b + match.size - 1].end() :].strip()]).strip()


def join_times(left: list[Word], right: list[Word], piece: Piece) -> list[Word]:
    """Join words with times: the longest run both have in the overlap stands once; without one, the middle of the overlap divides."""
    if not piece.overlap or not left:
        return left + right
    border = piece.start + piece.overlap
    first = next((i for i, w in enumerate(left) if w.end > piece.start), len(left))
    last = next((i for i, w in enumerate(right) if w.start >= border), len(right))
    match = _common_run([w.text for w in left[first:]], [w.text for w in right[:last]])
    if match.size:
        return left[: first + match.a + match.size] + right[match.b + match.size :]
    middle = piece.start + piece.overlap / 2
    return [w for w in left if (w.start + w.end) / 2 < middle] + [w for w in right if (w.start + w.end) / 2 >= middle]


def _common_run(left: list[str], right: list[str]) -> difflib.Match:
    bare = [[re.sub(r"\W", "", t).lower() or t for t in side] for side in (left, right)]
    return difflib.SequenceMatcher(None, *bare, autojunk=False).find_longest_match()


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
