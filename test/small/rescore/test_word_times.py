"""Times told by the adapter's frames: what each text of a time is worth, and when words start and end."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from wenet_osum.decode.clock import Clock, gains
from wenet_osum.models.sinusoids import stretch_waves

WIDTH, FRAME_S = 96, 0.08


@pytest.fixture(scope="module")
def logs():
    """Random log-probabilities of the times from 0.00 to 11.50 s."""
    torch.manual_seed(0)
    return torch.randn(1151).double().log_softmax(-1)


def share(logs, text):
    """P of all times that are written with ``text`` first."""
    return sum(math.exp(p) for i, p in enumerate(logs.tolist()) if f"{i / 100:.2f}>".startswith(text))


@pytest.mark.parametrize("before", ["", "1", "1.", "11.", "0.3", "11.4"])
def test_gains_are_those_of_all_times_that_begin_so(logs, before):
    texts = [f"{a}{b}" for a in ("", "0", "1", "9", ".", ".5", "37") for b in ("", ".2", "8>", ">", "0")]
    for text, gain in zip(texts, gains(logs, before, texts), strict=True):
        wanted = share(logs, before + text) / share(logs, before)
        assert gain == (pytest.approx(math.log(wanted), abs=1e-9) if wanted else -math.inf), text


@pytest.mark.parametrize("text", ["x", "01.23>", "12.00>", "1.234", "1.2>", "-1", "1.2.", ">"])
def test_what_is_no_time_of_the_utterance_is_never_written(logs, text):
    assert gains(logs, "", [text]) == [-math.inf]


def test_after_what_cannot_be_nothing_is_likely(logs):
    assert gains(logs, "77", ["1", ".5"]) == [-math.inf, -math.inf]


@pytest.fixture(scope="module")
def spoken():
    """Ten frames of a word from 0.30 to 0.71 s, frames around it that tell themselves, all with noise three times as loud as the tones."""
    torch.manual_seed(1)
    own = torch.arange(25.0)
    spans = torch.stack([own, own + 1], dim=-1)
    spans[4:9] = torch.tensor([0.30, 0.71]) / FRAME_S
    tones = functional.normalize(stretch_waves(spans, WIDTH), dim=-1)
    return Clock(tones + 0.8 * functional.normalize(torch.randn(25, WIDTH), dim=-1))


def test_a_frame_tells_when_its_word_starts_and_ends(spoken):
    for frame in range(4, 9):
        start, end = (float(spoken.times[spoken.logs(frame, end).argmax()]) for end in (False, True))
        assert (start, end) == (pytest.approx(0.30, abs=0.06), pytest.approx(0.71, abs=0.06)), frame


def test_all_frames_of_a_word_have_a_say(spoken):
    """One frame alone is less sure, and what the frames of silence say does not count."""
    alone = Clock(spoken.frames)
    alone.middles = torch.full_like(alone.middles, 9.0)
    assert spoken.logs(5, True).max() > alone.logs(5, True).max()
    changed = Clock(spoken.frames.clone())
    changed.frames[:3], changed.frames[10:] = 0.0, 0.0
    torch.testing.assert_close(changed.logs(5, True), spoken.logs(5, True), rtol=1e-5, atol=1e-5)


def test_times_lie_within_the_audio(spoken):
    assert spoken.times[0] == 0.0 and float(spoken.times[-1]) == pytest.approx(25 * FRAME_S)
    assert spoken.logs(24, True).shape == spoken.times.shape and float(spoken.logs(24, True).exp().sum()) == pytest.approx(1.0)
