"""The steps that the sound of an utterance goes through, from its file to its features.

``STEPS`` at the end is the list that runs, in its order. Each step changes a ``Signal`` as a
``SampleConfig`` says; a further step is a function here and its name in the list. What is drawn
comes from the signal's own generator, so the order of the steps decides what is drawn.

The arithmetic of a step lies in audio.py, augment.py, effects/ and log_mel.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from wenet_osum.config import FilterConfig
from wenet_osum.dataset import audio, augment
from wenet_osum.dataset.device_features import for_device
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.records import SAMPLE_RATE, Utterance

TOLERANCE_S = 0.01  # by which the header's duration may differ from the true one


@dataclass
class Signal:
    """The sound of an utterance between two steps."""

    utterance: Utterance
    # of all that is drawn; None: nothing is
    rng: np.random.Generator | None = None
    # the audio file, where the sound begins as one
    data: bytes = b""
    # (samples,) float32 at 16 kHz, mono; None until it is decoded
    audio: np.ndarray | None = None
    source_s: float = 0.0  # duration as recorded, s
    speed: float = 1.0  # factor, by which word times are to be divided
    # (frames, mels) float32; (frames, 0) where the device makes them of ``wave``
    features: torch.Tensor | None = None
    wave: torch.Tensor | None = None
    masks: list[augment.Mask] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Return the duration of the audio."""
        return len(self.audio) / SAMPLE_RATE

    def fields(self) -> dict[str, Any]:
        """Return what a ``Sample`` keeps of the sound."""
        kept: dict[str, Any] = {"features": self.features}
        if self.wave is not None:
            kept["audio"] = self.wave
            kept["masks"] = self.masks
        return kept


Step = Callable[[Signal, SampleConfig], None]


def run(signal: Signal, conf: SampleConfig) -> Signal:
    """Take all steps. Raises Drop for a sound that cannot be used."""
    for step in STEPS:
        step(signal, conf)
    return signal


# -- file to audio ----------------------------------------------------------------------------


def decode(signal: Signal, conf: SampleConfig) -> None:
    """Decode the file to mono at 16 kHz, the utterance's segment of it. Raises Drop."""
    # what is transcribed may be in memory already
    if signal.audio is None:
        segment = signal.utterance
        signal.audio = audio.decode(signal.data, segment.start, segment.end)
    signal.source_s = signal.seconds


def check_duration(signal: Signal, conf: SampleConfig) -> None:
    """Check the decoded duration against the filter; decoding takes any duration."""
    if conf.answers:
        check_seconds(signal.source_s, conf.filter)


def check_seconds(seconds: float, limits: FilterConfig) -> None:
    """Raise Drop: the plan has judged the header's duration, and a header can be wrong."""
    shortest, longest = limits.min_s, limits.max_s
    told = f"{seconds:.3f} s"
    if seconds < shortest - TOLERANCE_S:
        raise Drop(f"audio: shorter than {shortest} s", f"{told}; filter.min_s")
    if seconds > longest + TOLERANCE_S:
        raise Drop(f"audio: longer than {longest} s", f"{told}; filter.max_s")


# -- audio to other audio: in the order a microphone meets it ---------------------------------


def speed_perturb(signal: Signal, conf: SampleConfig) -> None:
    """Play it faster or slower by one of ``augment.speeds``, pitch and all."""
    if conf.augment is None:
        return
    # none may stretch the audio beyond the longest that the plan has counted with
    longest = conf.filter.max_s
    fitting = []
    for speed in conf.augment.speeds:
        if signal.seconds / speed <= longest:
            fitting.append(speed)
    speeds = fitting or [1.0]
    signal.audio, signal.speed = augment.speed(signal.audio, speeds, signal.rng)


def reverberate(signal: Signal, conf: SampleConfig) -> None:
    """Put a share of the utterances into a room of the list ``augment.reverb``."""
    wanted = conf.augment
    if wanted is None or not wanted.reverb:
        return
    rng = signal.rng
    if rng.random() < wanted.reverb_prob:
        signal.audio = augment.reverberate(
            signal.audio,
            wanted.reverb,
            rng,
        )


def add_noise(signal: Signal, conf: SampleConfig) -> None:
    """Add a recording of the list ``augment.noise`` to a share of the utterances."""
    wanted = conf.augment
    if wanted is None or not wanted.noise:
        return
    rng = signal.rng
    if rng.random() < wanted.noise_prob:
        signal.audio = augment.add_noise(
            signal.audio,
            wanted.noise,
            wanted.noise_snr_db,
            rng,
        )


def apply_effects(signal: Signal, conf: SampleConfig) -> None:
    """Apply the effects of ``augment.effects``, files of ``dataset/effects``."""
    if conf.augment is None:
        return
    rows = conf.augment.effects
    signal.audio = augment.apply_effects(signal.audio, rows, signal.rng)


def change_gain(signal: Signal, conf: SampleConfig) -> None:
    """Change the level by ``augment.gain_db``."""
    if conf.augment is None:
        return
    range_db = conf.augment.gain_db
    signal.audio = augment.gain(signal.audio, range_db, signal.rng)


# -- audio to features ------------------------------------------------------------------------


def compute_log_mel(signal: Signal, conf: SampleConfig) -> None:
    """Make log-mel features; with ``features: device`` only what the device makes them of."""
    if not conf.on_device:
        signal.features = log_mel(signal.audio, conf.mels)
        return
    signal.wave, frames = for_device(signal.audio)
    signal.features = torch.empty(frames, 0)


def spec_augment(signal: Signal, conf: SampleConfig) -> None:
    """Mask stretches of time and bands of mel bins as ``augment.spec_augment`` says.

    Features that the device makes are masked there, by the masks drawn here.
    """
    wanted = conf.augment
    if wanted is None or not wanted.spec_augment:
        return
    signal.masks = augment.draw_masks(
        len(signal.features),
        conf.mels,
        wanted.spec_augment,
        signal.rng,
    )
    # a device has no features yet
    if signal.masks and not conf.on_device:
        signal.features = augment.apply_masks(signal.features, signal.masks)


STEPS: list[Step] = [
    decode,
    check_duration,
    speed_perturb,
    reverberate,
    add_noise,
    apply_effects,
    change_gain,
    compute_log_mel,
    spec_augment,
]
