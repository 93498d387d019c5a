"""Log-mel features made where the model runs, of a whole batch at once: data workers then only read, decode and augment.

Letters: B utterances, N samples of the longest, T frames of the longest, M mel bins. The numbers are those of ``audio.log_mel`` up to rounding.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from wenet_osum.dataset.audio import HOP, N_FFT, doubled_filters, mel_window, reflected
from wenet_osum.dataset.augment import apply_masks
from wenet_osum.records import Batch


def for_device(audio: np.ndarray) -> tuple[Tensor, int]:
    """What a device needs of (samples,) audio: (samples + 400,) float32 with reflected ends, and its number of frames.

    Reflection is the worker's, for in a padded batch only the longest utterance ends where the tensor does.
    """
    wave = torch.from_numpy(reflected(audio))
    return wave, (len(wave) - N_FFT) // HOP


def log_mels(audio: Tensor, frames: Tensor, mels: int) -> Tensor:
    """(B, N + 400) audio with reflected ends and (B,) frames → (B, T, M) float32, zeros after each length."""
    longest = int(frames.max())
    spectrum = torch.stft(audio, N_FFT, HOP, window=mel_window(audio.device), center=False, return_complex=True)
    parts = torch.view_as_real(spectrum.transpose(1, 2)[:, :longest]).flatten(2)  # (B, T, 402)
    logs = (parts.square() @ doubled_filters(mels, audio.device)).clamp_(min=1e-10).log10_()
    padded = (torch.arange(longest) >= frames.cpu()[:, None]).to(audio.device, non_blocking=True)[..., None]
    peaks = logs.masked_fill(padded, -torch.inf).amax((1, 2), keepdim=True)
    return torch.maximum(logs, peaks - 8.0).add_(4.0).mul_(0.25).masked_fill_(padded, 0.0)


def with_features(batch: Batch, mels: int) -> Batch:
    """The batch with the features of its audio, masked as its workers have drawn; a batch without audio has its features already."""
    if batch.audio is None:
        return batch
    features = log_mels(batch.audio, batch.feature_lengths, mels)
    for row, (length, masks) in enumerate(zip(batch.feature_lengths.tolist(), batch.masks, strict=True)):
        if masks:
            features[row, :length] = apply_masks(features[row, :length], masks)
    return dataclasses.replace(batch, features=features, audio=None)
