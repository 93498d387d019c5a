"""The log-mel features of Whisper, computed on the CPU for one utterance.

A frame is 25 ms under a Hann window, every 10 ms; its power spectrum is summed by mel filters, and
the logarithm is limited to 8 decades below the utterance's loudest value. Radford et al., 2022
(arXiv 2212.04356), with true lengths in the place of 30 s. For batches on a device see
device_features.py.

torch and librosa are imported where they are used, so that lists are packed without loading them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from wenet_osum.records import SAMPLE_RATE

if TYPE_CHECKING:
    import torch
    from torch import Tensor

N_FFT, HOP = 400, 160  # samples: 25 ms window, 10 ms hop
# Shorter audio is padded with zeros up to this, or the reflection at the edges fails.
MIN_PADDED = N_FFT // 2 + 1
# Mel bins computed together: fewer make products of zeros rarer, and matrix products slower.
BAND = 16


def log_mel(audio: np.ndarray, mels: int = 80) -> Tensor:
    """Compute features: (samples,) at 16 kHz to (frames, mels) float32.

    There is a frame every 10 ms, samples // 160 in all. Audio under 201 samples is padded with
    zeros to 201, so there is at least one. Digital silence is -1.5.
    """
    import torch

    wave = torch.from_numpy(reflected(audio))
    spectrum = torch.stft(
        wave,
        N_FFT,
        HOP,
        window=mel_window(),
        center=False,
        return_complex=True,
    )

    # Power is the sum of two squares, the real and the imaginary part's. They stay side by side,
    # (frames, 402), and the sum happens inside the product with filters that hold each row twice.
    frames = spectrum.T[:-1]
    parts = torch.view_as_real(frames).reshape(-1, N_FFT + 2)
    parts.square_()
    logs = torch.empty(len(parts), mels)
    for rows, columns, filters in _filter_bands(mels):
        torch.mm(parts[:, columns], filters, out=logs[:, rows])

    # Whisper's scale: about -1.5 to 1.5, nothing more than 8 decades below the loudest.
    logs.clamp_(min=1e-10).log10_()
    floor = logs.max() - 8.0
    return logs.clamp_(min=floor).add_(4.0).mul_(0.25)


def reflected(audio: np.ndarray) -> np.ndarray:
    """Continue both ends by reflection, so that frames are centered: (samples + 400,) float32.

    Audio under 201 samples is padded with zeros to 201 before.
    """
    edge = N_FFT // 2
    size = max(len(audio), MIN_PADDED)
    wave = np.zeros(size + N_FFT, dtype=np.float32)
    wave[edge : edge + len(audio)] = audio

    # The sample at the end itself is not repeated.
    last = edge + size
    wave[:edge] = wave[2 * edge : edge : -1]
    wave[last:] = wave[last - 2 : last - 2 - edge : -1]
    return wave


@lru_cache(maxsize=4)
def mel_window(device: torch.device | str = "cpu") -> Tensor:
    """Return the window of a frame, (400,)."""
    import torch

    return torch.hann_window(N_FFT, device=device)


@lru_cache(maxsize=4)
def doubled_filters(mels: int, device: torch.device | str = "cpu") -> Tensor:
    """Return Slaney's mel filters, every row twice: (402, mels)."""
    import librosa
    import torch

    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=mels)  # (mels, 201)
    weights = torch.from_numpy(filters).float()
    doubled = weights.repeat_interleave(2, dim=1)
    return doubled.T.contiguous().to(device)


@lru_cache(maxsize=4)
def _filter_bands(mels: int) -> list[tuple[slice, slice, Tensor]]:
    """Cut the doubled filters into bands of neighbors, which saves three products of four.

    Returns of each band its mel bins, the columns where they are not zero, and those weights.
    """
    whole = doubled_filters(mels)
    bands = []
    for first in range(0, mels, BAND):
        bins = slice(first, first + BAND)
        used = whole[:, bins].any(dim=1).nonzero()
        begin, last = int(used[0]), int(used[-1])
        columns = slice(begin, last + 1)
        weights = whole[columns, bins].contiguous()
        bands.append((bins, columns, weights))
    return bands
