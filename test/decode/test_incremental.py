"""Decoding while sound comes in, with recognizers that follow a script: what was said stays, and all words come."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wenet_osum.decode import incremental
from wenet_osum.decode.agreement import agreed, kept_to, without_last_word
from wenet_osum.decode.incremental import StreamDecoder, StreamOptions, refusal
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.quiet import Quiet
from wenet_osum.records import Hypothesis
from wenet_osum.tasks import parse

RATE = 1600  # the loudness of sound does not depend on it, and tests are fast
GAP_S = 0.06


@pytest.fixture(autouse=True)
def without_filters(monkeypatch):
    """Nobody listens to the sound: its length alone counts."""
    monkeypatch.setattr(incremental, "resample", lambda samples, rate: np.repeat(samples, 16000 // rate))


def script(count: int, seed: int, pauses: bool = True) -> list[tuple[str, float, float]]:
    """(word, start, end) of words that differ, with a pause of over 0.8 s now and then."""
    rng = np.random.default_rng(seed)
    at, words = 0.3, []
    for number in range(count):
        length = rng.uniform(0.15, 0.5)
        words.append((f"w{number}", at, at + length))
        at += length + GAP_S
        if pauses and rng.random() < 0.1:
            at += 1.3
    return words


def sound(words, rest_s: float = 0.4) -> np.ndarray:
    """Noise where a word is, next to nothing elsewhere."""
    seconds = words[-1][2] + rest_s
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 1e-5, round(seconds * RATE)).astype(np.float32)
    for _, start, end in words:
        span = slice(round(start * RATE), round(end * RATE))
        samples[span] += rng.normal(0, 0.1, span.stop - span.start)
    return samples


class Scripted:
    """A recognizer that knows the words, and hears those that lie in the window as a whole."""

    def __init__(self, words, flicker: int | None = None, obeys: bool = True) -> None:
        self.words, self.obeys = words, obeys
        self.draw = None if flicker is None else np.random.default_rng(flicker)
        self.hearing: StreamDecoder | None = None
        self.calls: list[tuple[float, str]] = []

    def __call__(self, samples: np.ndarray, said: str) -> Hypothesis:
        start = self.hearing.begin / RATE
        end = start + len(samples) / 16000
        self.calls.append((end, said))
        heard = [word for word, first, last in self.words if first >= start - 1e-6 and last <= end + 1e-6]
        if self.draw is not None and heard:
            # The last words change from one hypothesis to the next, and some are not there.
            for place in range(1, min(3, len(heard)) + 1):
                if self.draw.random() < 0.4:
                    heard[-place] = f"x{self.draw.integers(3)}"
            heard = heard[: len(heard) - self.draw.integers(2)]
        text = " ".join(heard)
        if self.obeys:
            text = kept_to(said, text)
        return Hypothesis("k", "<TRANSCRIBE>", text, transcript=text, labels={}, duration=len(samples) / 16000)


def run(words, chunk_s: float | list[float], recognizer: Scripted | None = None, longest_s: float = 28.0, samples=None, **when):
    """Events of a stream, which is checked as it goes on."""
    recognizer = recognizer or Scripted(words)
    hearing = StreamDecoder(recognizer, parse("asr"), StreamOptions(**when), RATE, longest_s)
    recognizer.hearing = hearing
    samples = sound(words) if samples is None else samples
    events, at = [], 0
    sizes = chunk_s if isinstance(chunk_s, list) else [chunk_s] * math.ceil(len(samples) / RATE / chunk_s)
    for seconds in sizes:
        size = round(seconds * RATE)
        events += hearing.feed(samples[at : at + size])
        at += size
    return events + [*hearing.feed(samples[at:]), *hearing.finish()]


def said(events) -> str:
    return "".join(event.committed for event in events)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("chunk_s", [0.2, 0.5, 1.0, 7.0])
def test_all_words_arrive_within_steps(seed, chunk_s):
    """A word that is heard in a hypothesis is said by the next: two steps, each a chunk late at most."""
    words = script(60, seed)
    events = run(words, chunk_s, step_s=0.6)
    assert said(events) == " ".join(word for word, _, _ in words)
    spoken = {word: end for word, _, end in words}
    # Where a pause ends a window, the end of the stream is not waited for either.
    longest = max(event.heard_s - spoken[word] for event in events for word in event.committed.split())
    assert longest <= 2 * (0.6 + chunk_s) + 0.05


@pytest.mark.parametrize("seed", range(25))
def test_nothing_is_ever_taken_back(seed):
    """Whatever flickers: the text only grows, and answers have what was said."""
    rng = np.random.default_rng(seed)
    words = script(90, seed, pauses=bool(seed % 3))
    recognizer = Scripted(words, flicker=seed, obeys=bool(seed % 2))
    chunks = rng.uniform(0.05, 2.0, 60).tolist()
    events = run(words, chunks, recognizer, longest_s=float(rng.choice([5.0, 28.0])), step_s=float(rng.uniform(0.3, 2)))
    text, utterance = "", ""
    for event in events:
        text += event.committed
        utterance += event.committed
        if event.answer is not None:
            assert event.answer.transcript == utterance.strip() and event.start < event.end <= event.heard_s + 1e-9
            utterance = ""
    assert not utterance and text == said(events)
    assert [event.heard_s for event in events] == sorted(event.heard_s for event in events)
    # Every hypothesis was made to begin with the text that was said of its window.
    assert any(prefix for _, prefix in recognizer.calls)


def test_held_words_stand_behind_what_was_said():
    words = script(12, 3, pauses=False)
    everything = " ".join(word for word, _, _ in words)
    text = ""
    shown = []
    for event in run(words, 0.5, step_s=0.5):
        text += event.committed
        shown.append(event.held)
        assert everything.startswith(text + event.held)
    assert text == everything and sum(bool(held) for held in shown) > 3 and not shown[-1]


@pytest.mark.parametrize("pauses", [True, False])
@pytest.mark.parametrize("longest_s", [4.0, 28.0])
def test_one_chunk_is_answered_as_a_file(pauses, longest_s):
    """The same pieces, heard once each, and the same text."""
    from wenet_osum.decode import longform

    words = script(150, 5, pauses)
    samples = sound(words, rest_s=0.1)
    recognizer = Scripted(words)
    events = run(words, len(samples) / RATE, recognizer, longest_s, samples)
    blocks = [samples[i : i + 5 * RATE] for i in range(0, len(samples), 5 * RATE)]
    pieces = [*longform.split(blocks, RATE, longest_s)]
    assert [end for end, _ in recognizer.calls] == pytest.approx([piece.end for piece in pieces])
    assert not any(prefix for _, prefix in recognizer.calls)
    answers = []
    for piece in pieces:
        heard = [word for word, first, last in words if first >= piece.start - 1e-6 and last <= piece.end + 1e-6]
        answers.append(Hypothesis("k", "<TRANSCRIBE>", "", transcript=" ".join(heard)))
    whole = longform.join(pieces, answers, parse("asr"), "k") if len(pieces) > 1 else answers[0]
    assert events[-1].answer.transcript == said(events) == whole.transcript


def test_a_pause_ends_an_utterance_and_the_next_begins_anew():
    words = [("a", 0.2, 0.6), ("b", 0.65, 1.0), ("c", 3.0, 3.5)]
    events = run(words, 0.2, step_s=0.4, pause_s=0.8)
    answers = [event for event in events if event.answer is not None]
    assert [event.answer.transcript for event in answers] == ["a b", "c"] and said(events) == "a b c"
    first, last = answers
    assert first.start == 0.0 and 1.7 <= first.end <= 2.1 and first.heard_s == first.end
    assert 2.0 < last.start < 3.0 and last.end == pytest.approx(3.9)


def test_silence_is_not_decoded_and_a_silent_file_is():
    words = [("a", 0.2, 0.6)]
    samples = np.concatenate([sound(words, 0.2), np.zeros(20 * RATE, np.float32)])
    recognizer = Scripted(words)
    run(words, 0.5, recognizer, samples=samples)
    assert max(end for end, _ in recognizer.calls) < 3
    silent = Scripted([])
    events = run([], 2.0, silent, samples=np.zeros(2 * RATE, np.float32))
    assert len(silent.calls) == 1 and events[0].answer.transcript == ""


def test_without_a_pause_windows_overlap_and_share_their_words_once():
    words = script(120, 8, pauses=False)
    words = [(word, start, end + GAP_S) for word, start, end in words]  # no gap at all
    recognizer = Scripted(words)
    events = run(words, 0.4, recognizer, longest_s=6.0, step_s=0.8)
    assert said(events) == " ".join(word for word, _, _ in words)
    assert len([event for event in events if event.answer]) == 1 and len(events[-1].answer.pieces) > 5


def test_what_fails_ends_the_stream():
    def broken(samples, prefix):
        raise RuntimeError("no more memory")

    words = script(5, 1, pauses=False)
    hearing = StreamDecoder(broken, parse("asr"), StreamOptions(), RATE)
    with pytest.raises(RuntimeError, match="no more memory"):
        [*hearing.feed(sound(words))]


def test_words_that_agree_are_settled():
    assert agreed("the cat sat", "the cat sits down") == "the cat"
    assert agreed("你好吗", "你好啊") == "你好" and agreed("", "a") == "" and agreed("a b", "a b") == "a b"
    assert agreed("one two", "one two", border=lambda beginning, text: beginning == "one") == "one"
    assert agreed("one two", "one two", border=lambda beginning, text: False) == ""
    assert agreed("one \ufffd", "one \ufffd") == "one" and agreed("a\ufffd b", "a\ufffd b") == "a\ufffd b"
    assert kept_to("the cat", "the cat sat") == "the cat sat" and kept_to("the cat", "a hat sat") == "the cat sat"
    assert kept_to("the cat", "the") == "the cat" and kept_to("", "a") == "a"
    assert without_last_word("the cat") == "the" and without_last_word("cat") == without_last_word("") == ""


def test_quiet_is_told_by_what_came_before():
    loud = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    soft = np.random.default_rng(1).normal(0, 1e-3, RATE).astype(np.float32)
    quiet = Quiet(RATE)
    assert quiet.look(loud) == (False, 0.0) and not quiet.look(soft)[0]
    silent, paused_s = quiet.look(np.concatenate([loud, soft]))
    assert not silent and paused_s == pytest.approx(1.0, abs=0.03)
    quiet.remember(loud)
    assert quiet.look(soft) == (True, pytest.approx(1.0)) and quiet.look(soft[:100])[0] and quiet.look(loud[:0])[0]


REFUSED = [
    ("srwt", {}, "a transcript without times"),
    ("<EMOTION><TRANSCRIBE>", {}, "must begin with a transcript"),
    ("sttc", {}, "leave the reply out"),
    ("asr", {"mode": "ctc_greedy_search"}, "leave mode, trust_ctc and prefix_text out"),
    ("asr", {"prefix_text": "a"}, "leave mode, trust_ctc and prefix_text out"),
]


@pytest.mark.parametrize("task, options, told", REFUSED)
def test_what_cannot_be_streamed_is_refused(task, options, told):
    assert told in refusal(parse(task), DecodeOptions(**options))
    assert refusal(parse("ser"), DecodeOptions()) is None


@pytest.mark.parametrize("wrong", [{"step_s": 0}, {"pause_s": 0.1}, {"step_s": math.nan}])
def test_times_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{[*wrong][0]} .* must be"):
        StreamOptions(**wrong)


def test_silence_before_the_sound_of_a_file_is_no_piece_left_out():
    """A file is answered as without a stream, which has its silence too."""
    words = [(word, start + 12.0, end + 12.0) for word, start, end in script(5, 0, pauses=False)]
    samples = sound(words)
    heard = []

    def decode_window(window: np.ndarray, said: str) -> Hypothesis:
        heard.append(len(window) / 16000)
        return Hypothesis("k", "<TRANSCRIBE>", "so", transcript="so", labels={}, duration=heard[-1])

    decoder = StreamDecoder(decode_window, parse("asr"), StreamOptions(math.inf, math.inf), RATE)
    for first in range(0, len(samples), 5 * RATE):
        assert not list(decoder.feed(samples[first : first + 5 * RATE]))
    assert [event.start for event in decoder.finish()] == [0.0]
    assert heard == [pytest.approx(len(samples) / RATE, abs=0.01)]


class Cutting(Scripted):
    """Hears another word that begins alike where the end of the window cuts a word."""

    def __call__(self, samples, said):
        answer = super().__call__(samples, said)
        end = self.calls[-1][0]
        cut = [f"{word[0]}x" for word, first, last in self.words if first < end - 1e-6 and last > end + 1e-6]
        answer.transcript = answer.text = " ".join([*answer.transcript.split(), *cut])
        return answer


def test_a_word_that_the_border_of_two_windows_cuts_is_said_as_the_second_hears_it():
    words = [(f"w{n}", 0.1 + 0.25 * n, 0.35 + 0.25 * n) for n in range(120)]
    events = run(words, 0.4, Cutting(words), longest_s=6.0, step_s=0.8)
    assert said(events) == " ".join(word for word, _, _ in words)


def test_an_utterance_after_one_of_several_windows_begins_without_an_overlap():
    words = [(f"w{n}", 0.1 + 0.25 * n, 0.35 + 0.25 * n) for n in range(27)] + [("end", 8.3, 8.5)]
    events = run(words, 0.4, samples=sound(words, 0.1), longest_s=6.0, step_s=0.8)
    answers = [event.answer.transcript for event in events if event.answer is not None]
    assert answers == [" ".join(f"w{n}" for n in range(27)), "end"]


def test_noise_behind_loud_words_is_no_utterance():
    """It is silence by what was said before, though that has left the window."""
    words = script(12, 3, pauses=False)
    noise = np.random.default_rng(2).normal(0, 1e-3, 20 * RATE).astype(np.float32)
    recognizer = Scripted(words)
    events = run(words, 0.5, recognizer, samples=np.concatenate([sound(words, 0.2), noise]))
    assert len([event for event in events if event.answer is not None]) == 1
    assert max(end for end, _ in recognizer.calls) < words[-1][2] + 2


def test_an_utterance_without_words_leaves_the_space_between_its_neighbors():
    words = [("a", 0.2, 0.6), ("", 2.5, 2.8), ("b", 5.0, 5.4)]
    events = run(words, 0.2, step_s=0.4)
    assert len([event for event in events if event.answer is not None]) == 3 and said(events) == "a b"


def test_next_to_nothing_is_silence():
    faint = np.random.default_rng(0).normal(0, 1e-5, RATE).astype(np.float32)
    assert Quiet(RATE).look(faint) == (True, pytest.approx(1.0))
