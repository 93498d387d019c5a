"""Log-mel features made where the model runs, of a whole batch at once.

Data workers then only read, decode and augment. The numbers are those of ``log_mel.py`` up to
rounding. Letters: B utterances, N samples of the longest, T frames of the longest, M mel bins.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from wenet_osum.dataset.augment import apply_masks
from wenet_osum.dataset.log_mel import HOP, N_FFT, doubled_filters, mel_window, reflected
from wenet_osum.devices import to_device
from wenet_osum.records import Batch


def for_device(audio: np.ndarray) -> tuple[Tensor, int]:
    """Return what a device needs of (samples,) audio, and its number of frames.

    It is (samples + 400,) float32 with reflected ends. Reflection is the worker's, for in a padded
    batch only the longest utterance ends where the tensor does.
    """
    wave = torch.from_numpy(reflected(audio))
    frames = (len(wave) - N_FFT) // HOP
    return wave, frames


def log_mels(audio: Tensor, frames: Tensor, mels: int) -> Tensor:
    """Compute features of audio (B, N + 400) with reflected ends: (B, T, M) float32.

    ``frames`` (B,) are those of each utterance; after them there are zeros.
    """
    longest = int(frames.max())
    device = audio.device
    spectrum = torch.stft(
        audio,
        N_FFT,
        HOP,
        window=mel_window(device),
        center=False,
        return_complex=True,
    )

    # Real and imaginary parts side by side, (B, T, 402): the product sums their squares.
    in_time = spectrum.transpose(1, 2)[:, :longest]
    parts = torch.view_as_real(in_time).flatten(2)
    power = parts.square() @ doubled_filters(mels, device)
    logs = power.clamp_(min=1e-10).log10_()

    # Each utterance has its own loudest value, that of its own frames.
    padded = to_device(_padding(frames, longest), device)
    spoken = logs.masked_fill(padded, -torch.inf)
    peaks = spoken.amax((1, 2), keepdim=True)
    logs = torch.maximum(logs, peaks - 8.0)
    return logs.add_(4.0).mul_(0.25).masked_fill_(padded, 0.0)


def _padding(frames: Tensor, longest: int) -> Tensor:
    """Return which frames lie behind the end of their utterance, (B, T, 1), on the CPU."""
    places = torch.arange(longest)
    ends = frames.cpu()[:, None]
    padded = places >= ends
    return padded[..., None]


def with_features(batch: Batch, mels: int) -> Batch:
    """Return the batch with the features of its audio, masked as its workers have drawn.

    A batch without audio has its features already.
    """
    if batch.audio is None:
        return batch
    features = log_mels(batch.audio, batch.feature_lengths, mels)
    lengths = batch.feature_lengths.tolist()
    for row, length, masks in zip(features, lengths, batch.masks, strict=True):
        if masks:
            row[:length] = apply_masks(row[:length], masks)
    return dataclasses.replace(batch, features=features, audio=None)
