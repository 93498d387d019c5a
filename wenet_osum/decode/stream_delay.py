"""How late words come when sound is heard while it comes in, and what that costs in WER.

The work of tools/stream_delay.py, which says how both are counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wenet_osum.dataset import audio
from wenet_osum.decode.incremental import StreamDecoder, StreamOptions
from wenet_osum.records import SAMPLE_RATE, Utterance, Word
from wenet_osum.score.align import align, count
from wenet_osum.score.normalize import language, prepare

Clock = Callable[[], float]


@dataclass
class Totals:
    """What all recordings add up to."""

    # s from the end of each word that was recognized to the moment it was said
    delays: list[float] = field(default_factory=list)
    # tokens of the references, those not recognized, and errors of both ways
    words: int = 0
    missed: int = 0
    stream_errors: int = 0
    whole_errors: int = 0
    # s of sound, and of work on the stream
    audio_s: float = 0.0
    busy_s: float = 0.0


@dataclass
class Said:
    """The text of a stream as far as it was said at a moment, s of the recording."""

    text: str
    at: float


def simulate(
    decoder: StreamDecoder, samples: np.ndarray, chunk_s: float, clock: Clock = time.perf_counter
) -> tuple[list[Said], float]:
    """Let 16 kHz ``samples`` (samples,) arrive in chunks; return what was said when, and the work
    in s.

    ``clock`` measures the work, s.
    """
    size = round(chunk_s * SAMPLE_RATE)
    said: list[Said] = []
    text = ""
    at = 0
    free_s = busy_s = 0.0
    while at < len(samples):
        # All that has arrived by the time the work before is done, at least one chunk.
        waiting = int(free_s * SAMPLE_RATE) // size
        end = min(len(samples), max(at + size, waiting * size))
        begun_s = max(free_s, end / SAMPLE_RATE)
        events = decoder.feed(samples[at:end])
        last = end == len(samples)
        worked_s = 0.0
        for event, worked_s in _timed(events, decoder if last else None, clock):
            text += event.committed
            if event.committed:
                said.append(Said(text, begun_s + worked_s))
        free_s = begun_s + worked_s
        busy_s += worked_s
        at = end
    return said, busy_s


def _timed(events: Iterator, ending: StreamDecoder | None, clock: Clock) -> Iterator[tuple]:
    """Yield events, and those of the stream's end, with the s of work since the first began."""
    begin = clock()
    for event in events:
        yield event, clock() - begin
    if ending is None:
        return
    for event in ending.finish():
        yield event, clock() - begin


def delays(
    words: list[Word], said: list[Said], lang: str, normalizer: str
) -> tuple[list[float], int]:
    """Return how late each word that was recognized was said, s, and how many were not.

    A word of several tokens is late by its last one.
    """
    tokens, ends = [], []
    for word in words:
        for token in prepare(word.text, lang, normalizer):
            tokens.append(token)
            ends.append(word.end)

    # When each token of the stream's text was there.
    heard: list[str] = []
    times: list[float] = []
    for step in said:
        heard = prepare(step.text, lang, normalizer)
        new = len(heard) - len(times)
        times += [step.at] * new

    found, missed = [], 0
    for i, j in align(tokens, heard):
        if i is None:
            continue
        if j is None or tokens[i] != heard[j]:
            missed += 1
        else:
            found.append(times[j] - ends[i])
    return found, missed


def measure(
    model, args: argparse.Namespace, pairs: Iterator[tuple[Utterance, np.ndarray]]
) -> Totals:
    """Decode recordings as streams and as files; add up what that gives."""
    from wenet_osum.decode.speech import border_of, decode_window_with

    asked = model.asked()
    options = StreamOptions(args.step_s, args.pause_s)
    totals = Totals()
    for utterance, samples in pairs:
        border = border_of(asked.template)
        longest_s = asked.longest_s
        decode_window = decode_window_with(asked)
        decoder = StreamDecoder(
            decode_window, asked.task, options, SAMPLE_RATE, longest_s, border
        )
        said, busy_s = simulate(decoder, samples, args.chunk_s)
        whole = model(samples).transcript or ""
        _add(totals, utterance, said, whole, args.normalizer)
        totals.audio_s += len(samples) / SAMPLE_RATE
        totals.busy_s += busy_s
    return totals


def _add(
    totals: Totals, utterance: Utterance, said: list[Said], whole: str, normalizer: str
) -> None:
    """Add the delays and errors of one recording."""
    reference = utterance.txt or ""
    lang = language(utterance.lang, reference)
    expected = prepare(reference, lang, normalizer)
    last = said[-1].text if said else ""
    streamed = prepare(last, lang, normalizer)
    found, missed = delays(utterance.words, said, lang, normalizer)
    totals.delays += found
    totals.missed += missed
    totals.words += len(expected)
    totals.stream_errors += count(expected, streamed).errors
    totals.whole_errors += count(expected, prepare(whole, lang, normalizer)).errors


def table(totals: Totals) -> dict[str, float | int | None]:
    """Return the figures: delays in s, rates in %."""
    late = np.array(totals.delays)
    words = max(1, totals.words)
    return {
        "words": totals.words,
        "words_timed": len(late),
        "words_missed": totals.missed,
        "delay_mean_s": float(late.mean()) if len(late) else None,
        "delay_p90_s": float(np.percentile(late, 90)) if len(late) else None,
        "stream_wer": 100 * totals.stream_errors / words,
        "whole_wer": 100 * totals.whole_errors / words,
        "audio_s": totals.audio_s,
        "work_per_audio_s": totals.busy_s / max(totals.audio_s, 1e-9),
    }


def recordings(path: str, most: int | None) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Yield the utterances of a list that have word times, with their sound at 16 kHz.

    Raises ValueError when there is none.
    """
    from wenet_osum.decode.jobs import read_list

    jobs, _ = read_list(path)
    given = without = 0
    for job in jobs:
        utterance, source = job.read()
        if not utterance.words or utterance.txt is None:
            without += 1
            continue
        if given == most:
            break
        given += 1
        yield utterance, _samples(utterance, source)
    if without:
        print(f"{without} utterances without word times were left out", file=sys.stderr)
    if not given:
        raise ValueError(f"{path}: no utterance has word times; tools/add_word_times.py adds them")


def _samples(utterance: Utterance, source: bytes | Path) -> np.ndarray:
    """Decode a recording; a long one is given as a path, with the segment in the utterance."""
    if isinstance(source, Path):
        return audio.decode(source.read_bytes(), utterance.start, utterance.end)
    return audio.decode(source)
