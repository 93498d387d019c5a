"""Long audio: where it is cut, and how the pieces' answers become one."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from wenet_osum.dataset.drop import Drop
from wenet_osum.decode.longform import Piece, join, read_pieces, split
from wenet_osum.decode.overlap import find_shared, join_overlapping, join_times
from wenet_osum.records import Hypothesis, Word
from wenet_osum.tasks import parse
from wenet_osum.tasks.base import join_words

RATE = 16000


@pytest.fixture(scope="module")
def bench(load_tool):
    """tools/bench/long_joins.py: recordings whose words are known."""
    return load_tool("bench/long_joins")


def noise(seconds, silences=(), rate=RATE):
    """White noise with stretches (start_s, end_s) of digital silence."""
    audio = np.random.default_rng(1).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    for start, end in silences:
        audio[round(start * rate) : round(end * rate)] = 0
    return audio


def blocks(audio, size=RATE * 5):
    return (audio[i : i + size] for i in range(0, len(audio), size))


@pytest.mark.parametrize("seconds", [0.1, 10.0, 28.5, 30.0])
def test_up_to_30_s_stay_whole(seconds):
    pieces = list(split(blocks(noise(seconds))))
    assert len(pieces) == 1 and (pieces[0].start, pieces[0].end, pieces[0].overlap) == (0.0, seconds, 0.0)
    assert len(pieces[0].audio) == round(seconds * RATE)


def test_cut_in_the_middle_of_pauses():
    audio = noise(70, [(20.0, 20.6), (41.0, 41.4), (60.0, 61.0)])
    pieces = list(split(blocks(audio)))
    assert [p.start for p in pieces] == pytest.approx([0, 20.3, 41.2, 60.5], abs=0.02)
    assert [p.end for p in pieces] == [*(p.start for p in pieces[1:]), 70.0]
    assert not any(p.overlap for p in pieces)
    assert np.array_equal(np.concatenate([p.audio for p in pieces]), audio)


def test_shorter_pieces_for_a_model_of_short_utterances():
    """Whole up to 30/28 of the longest piece; cut in pauses; without one, an overlap of a quarter."""
    audio = noise(10, [(2.0, 2.4), (4.8, 5.4), (7.0, 7.4)])
    assert [p.start for p in split(blocks(audio), longest_s=3.0)] == pytest.approx([0, 2.2, 5.05, 7.2], abs=0.02)  # at 5.2 s the window ends
    assert len([*split(blocks(noise(3.2)), longest_s=3.0)]) == 1 and len([*split(blocks(noise(3.3)), longest_s=3.0)]) == 2
    pieces = [*split(blocks(noise(8)), longest_s=3.0)]
    assert [(p.start, p.end, p.overlap) for p in pieces] == [(0, 3, 0), (2.25, 5.25, 0.75), (4.5, 7.25, 0.75), (6.5, 8, 0.75)]
    for wrong in (0.9, 28.1, -1):
        with pytest.raises(ValueError, match="longest_s must be 1 to 28"):
            next(split(blocks(audio), longest_s=wrong))


def test_without_a_pause_pieces_overlap_by_a_second():
    pieces = list(split(blocks(noise(60))))
    assert [(p.start, p.end, p.overlap) for p in pieces] == [(0, 28, 0), (27, 55, 1), (54, 60, 1)]


@pytest.mark.parametrize("seconds", [30.01, 31.0, 56.2, 57.0, 84.9, 300.0])
@pytest.mark.parametrize("silences", [(), [(t + 0.5, t + 0.9) for t in range(5, 300, 7)]])
def test_pieces_are_short_enough_and_miss_nothing(seconds, silences):
    audio = noise(seconds, silences)
    pieces = list(split(blocks(audio)))
    assert all(p.end - p.start <= 28.0 and len(p.audio) == round((p.end - p.start) * RATE) for p in pieces)
    assert pieces[0].start == 0 and pieces[-1].end == len(audio) / RATE
    assert all(b.start == pytest.approx(a.end - b.overlap) for a, b in zip(pieces, pieces[1:], strict=False))
    assert min(p.end - p.start for p in pieces) >= 1.0


def test_block_size_does_not_matter():
    audio = noise(100, [(20.0, 20.6), (41.0, 41.4), (77.0, 77.3)])
    cuts = [[(p.start, p.end) for p in split(blocks(audio, size))] for size in (1000, 80000, 10**7)]
    assert cuts[0] == cuts[1] == cuts[2]


def test_memory_is_bounded():
    held, most = 0, 0

    def counted():
        nonlocal held
        for _ in range(720):  # an hour
            held += 5
            yield np.full(RATE // 10 * 5, 0.1, np.float32)

    for piece in split(counted(), RATE // 10):
        most = max(most, held - piece.end)
    assert most < 40 and held == 3600


def test_files_are_resampled_and_segments_taken(tmp_path):
    path = tmp_path / "a.wav"
    audio = noise(40, [(20.0, 21.0)], 8000)
    soundfile.write(path, np.stack([audio, audio], 1), 8000)
    pieces = list(read_pieces(path))
    assert [p.end for p in pieces] == pytest.approx([20.5, 40.0], abs=0.02)
    assert [len(p.audio) for p in pieces] == [pytest.approx((p.end - p.start) * RATE, abs=2) for p in pieces]
    part = list(read_pieces(path.read_bytes(), 5.0, 6.5))
    assert [(p.start, p.end) for p in part] == [(0.0, 1.5)]


def test_bad_files_are_drops(tmp_path):
    with pytest.raises(Drop, match="not found"):
        list(read_pieces(tmp_path / "none.wav"))
    (tmp_path / "bad.wav").write_bytes(b"no audio at all")
    with pytest.raises(Drop, match="unreadable"):
        list(read_pieces(tmp_path / "bad.wav"))
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan, np.float32), RATE, subtype="FLOAT")
    with pytest.raises(Drop, match="NaN"):
        list(read_pieces(tmp_path / "nan.wav"))


def piece(start, end, overlap=0.0):
    return Piece(start, end, np.zeros(0, np.float32), overlap)


def test_words_said_twice_stand_once():
    assert join_overlapping("a cat sat on the ma", "on the mat and slept") == "a cat sat on the mat and slept"
    assert join_overlapping("A cat sat on,", "sat on. The mat") == "A cat sat on, The mat"
    assert join_overlapping("今天天气很好", "很好我们走") == "今天天气很好我们走"
    assert join_overlapping("one two", "three four") == "one two three four"
    assert join_overlapping("", "three four") == "three four"


def test_what_two_strangers_have_in_common_is_kept():
    left = "we met near the old station on a cold wet windy night"
    right = "and then a friend of mine bought the house next door"
    assert join_overlapping(left, right) == f"{left} {right}"
    left, right = "I saw a cat", "a dog and then a cat"
    assert join_overlapping(left, right) == f"{left} {right}"


def test_a_word_the_border_cut_is_taken_from_the_side_that_has_it_whole():
    heard = {
        ("I know that the wea", "that the weather is fine"): "I know that the weather is fine",
        ("perhaps I know that", "haps I know that it is"): "perhaps I know that it is",
        ("perhaps I know the wea", "haps I know the weather"): "perhaps I know the weather",
    }
    for (left, right), whole in heard.items():
        assert join_overlapping(left, right) == whole
    assert join_overlapping("他说今天天气很号", "今天天气很好我们走") == "他说今天天气很好我们走"


BORDERS = [*(("en", n) for n in range(4)), *(("zh", n) for n in range(5))]


@pytest.mark.parametrize(("lang", "shared"), BORDERS)
def test_words_shared_by_chance_or_by_overlap_are_told_apart(bench, lang, shared):
    """Both sides are heard without a fault: no word is lost, and none doubled."""
    draws = np.random.default_rng(shared)
    for _ in range(400):
        words = bench.draw_words(lang, 24, draws)
        left, right = join_words(words[:12]), join_words(words[12 - shared :])
        assert join_overlapping(left, right) == join_words(words), (left, right)


def test_no_border_takes_more_than_one_word_from_either_side(bench):
    """Whatever is heard around it: both sides are drawn apart from each other, from few words."""
    draws, known = np.random.default_rng(7), bench.vocabulary("en")[:4]
    found = 0
    for _ in range(400):
        left, right = ([known[i] for i in draws.integers(0, 4, 8)] for _ in range(2))
        shared = find_shared(left, right)
        expected = left + right
        if shared:
            found += 1
            assert shared.after <= 1 and shared.before <= 1
            kept = left[: 8 - shared.after]
            assert kept[-shared.size :] == right[shared.before :][: shared.size]
            expected = kept + right[shared.before + shared.size :]
        assert join_overlapping(" ".join(left), " ".join(right)) == " ".join(expected)
    assert 100 < found < 400


@pytest.mark.parametrize("longest_s", [28.0, 5.0])
@pytest.mark.parametrize("snr_db", [30, 20, 15, 10])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_perfect_recognizer_stays_perfect_in_noise(bench, lang, snr_db, longest_s):
    recording = bench.record(lang, 300.0, snr_db, np.random.default_rng(4), lectures=0.05)
    for timed in (False, True):
        outcome = bench.check(recording, timed, longest_s)
        assert outcome.errors == 0 and outcome.pauses and outcome.others and outcome.words > 500


@pytest.mark.parametrize("snr_db", [30, 20, 15, 10])
def test_pauses_are_found_in_steady_noise(bench, snr_db):
    recording = bench.record("en", 300.0, snr_db, np.random.default_rng(5), lectures=0.0)
    outcome = bench.check(recording)
    assert outcome.pauses > 10 and not outcome.others


def test_a_border_without_a_pause_is_flagged():
    task, answer = parse("asr"), Hypothesis("a", "", "x", transcript="x")
    overlapping, apart = [piece(0, 28), piece(27, 40, 1.0)], [piece(0, 28), piece(28, 40)]
    assert join(overlapping, [answer, answer], task, "a").flags == ["joined_without_pause"]
    assert join(apart, [answer, answer], task, "a").flags == []


def test_replies_to_the_pieces_are_flagged():
    task = parse("sttc")
    said = {"transcript": "is it late", "reply": "Yes."}
    answers = [Hypothesis("a", task.tags, "", **said) for _ in range(2)]
    whole = join([piece(0, 28), piece(28, 35)], answers, task, "a")
    assert whole.reply == "Yes. Yes." and whole.flags == ["reply_in_pieces"]


def test_a_word_said_twice_is_not_one_heard_twice():
    left, right = [Word("no", 26.8, 27.1)], [Word("no", 0.9, 1.2), Word("way", 1.3, 1.5)]
    shifted = [w._replace(start=w.start + 27, end=w.end + 27) for w in right]
    assert join_times(left, shifted, 27, 1.0) == left + shifted


def test_times_are_shifted_and_the_overlap_is_aligned():
    task = parse("srwt")
    one = Hypothesis("a", task.tags, "x", transcript="a b c", words=[Word("a", 0.5, 1), Word("b", 27.1, 27.4), Word("c", 27.5, 27.9)])
    two = Hypothesis("a", task.tags, "y", transcript="b c d", words=[Word("b", 0.11, 0.4), Word("c", 0.5, 0.95), Word("d", 1.2, 1.5)])
    whole = join([piece(0, 28), piece(27, 40, 1.0)], [one, two], task, "a")
    assert whole.words == [Word("a", 0.5, 1), Word("b", 27.1, 27.4), Word("c", 27.5, 27.9), Word("d", 28.2, 28.5)]
    assert whole.transcript == "a b c d" and whole.duration == 40 and task.read(whole.text).words == whole.words
    assert [row["start"] for row in whole.pieces] == [0, 27]


def test_an_overlap_without_common_words_is_divided_in_the_middle():
    left, right = [Word("a", 27.0, 27.3), Word("x", 27.6, 27.9)], [Word("b", 27.1, 27.3), Word("y", 27.6, 28.2)]
    assert join_times(left, right, 27, 1.0) == [left[0], right[1]]


def test_the_label_is_the_weighted_mean():
    task = parse("ser")
    one = Hypothesis("a", task.tags, "hi<sad>", transcript="hi", labels={"emotion": "sad"}, probs={"emotion": {"sad": 0.51, "happy": 0.49}})
    one.flags = ["tie"]
    two = Hypothesis("a", task.tags, "there<happy>", transcript="there", labels={"emotion": "happy"}, probs={"emotion": {"sad": 0.1, "happy": 0.9}})
    whole = join([piece(0, 28), piece(28, 35)], [one, two], task, "a")
    assert whole.probs["emotion"]["sad"] == pytest.approx((28 * 0.51 + 7 * 0.1) / 35)
    assert whole.transcript == "hi there" and whole.text == "hi there<happy>" and whole.flags == ["tie"]


def test_free_labels_vote_by_duration():
    task = parse("ser")
    answers = [Hypothesis("a", task.tags, "", transcript="", labels={"emotion": label}) for label in ("sad", "happy", "sad")]
    whole = join([piece(0, 10), piece(10, 35), piece(35, 45)], answers, task, "a")
    assert whole.labels == {"emotion": "happy"} and not whole.probs


def test_unread_fields_stay_unread():
    task = parse("ser")
    answers = [Hypothesis("a", task.tags, "x", transcript="x", unread={"emotion": "<glad>"}) for _ in range(2)]
    whole = join([piece(0, 28), piece(28, 35)], answers, task, "a")
    assert whole.unread == {"emotion": "0.00 s: <glad>; 28.00 s: <glad>"} and not whole.labels and whole.text == "x x"


def test_chinese_punctuation_at_a_border_is_no_word():
    assert join_overlapping("我们去公园。", "公园很大") == "我们去公园很大"
    assert join_overlapping("他说今天天气黑。", "今天天气很好") == "他说今天天气很好"
    assert join_overlapping("我们，今天", "我们今天去") == "我们，今天去"
    assert join_overlapping("你好。", "再见。") == "你好。再见。"


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0), (1, 0, 1)])
def test_a_piece_without_times_keeps_its_text(order):
    task = parse("srwt")
    timed = Hypothesis("a", task.tags, "<0.50>hello<1.00>", transcript="hello", words=[Word("hello", 0.5, 1.0)])
    untimed = Hypothesis("a", task.tags, "how are you", transcript="how are you", words=[])
    answers = [(timed, untimed)[kind] for kind in order]
    pieces = [piece(20 * i, 20 * i + 20) for i in range(len(order))]
    whole = join(pieces, answers, task, "a")
    assert whole.transcript == " ".join(answer.transcript for answer in answers)
    assert whole.words == [Word("hello", 20.0 * i + 0.5, 20.0 * i + 1.0) for i, kind in enumerate(order) if kind == 0]
    assert whole.text == " ".join(answer.text for answer in answers), "nothing of it is lost"


def test_an_mp3_whose_length_is_a_guess_is_read_to_its_end(tmp_path):
    """Its first frame has many bits, and does not count the others."""
    quiet = 0.01 * np.sin(np.arange(40 * RATE) / 20)
    samples = np.concatenate([np.random.default_rng(0).uniform(-0.9, 0.9, 2 * RATE), quiet])
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    data = out.getvalue()
    data = data[data.index(b"\xff\xf3", 10) :]
    path = tmp_path / "a.mp3"
    path.write_bytes(data)
    assert soundfile.info(path).duration < 30
    for source in (data, path):
        assert list(read_pieces(source))[-1].end == pytest.approx(42.0, abs=0.15)
        [part] = read_pieces(source, 35.0, 37.0)
        assert len(part.audio) == 2 * RATE and 0.005 < np.abs(part.audio).max() < 0.02
    with pytest.raises(Drop, match="no samples from 50"):
        list(read_pieces(data, 50.0))


def test_a_segment_that_ends_behind_the_file_is_what_there_is(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(3.0), RATE)
    [piece] = read_pieces(path, 1.0, 3.5)
    assert piece.end == 2.0


def test_what_could_not_be_read_is_told_of_every_piece():
    task = parse("ser")
    answers = [Hypothesis("a", task.tags, "x", transcript="x", unread={"emotion": f"<{said}>"}) for said in ("glad", "mild")]
    whole = join([piece(0, 28), piece(28, 35)], answers, task, "a")
    assert whole.unread["emotion"] == "0.00 s: <glad>; 28.00 s: <mild>"
