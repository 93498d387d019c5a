"""The settings by which samples are made (sample.py), and their sound (steps.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from wenet_osum.config import AugmentConfig, FilterConfig
from wenet_osum.dataset.context import ContextDraws
from wenet_osum.dataset.states import StateStore
from wenet_osum.records import Utterance


class Targets(Protocol):
    """What further losses have to know of an utterance; None: nothing is to be learned from it.

    A ``filler`` has targets whatever is learned.
    """

    def __call__(
        self, utterance: Utterance, filler: bool = False
    ) -> dict[str, torch.Tensor] | None: ...


@dataclass(frozen=True)
class SampleConfig:
    """Settings for making samples.

    Without ``augment`` nothing is drawn and prompts are the scoring ones: dev sets and decoding.
    """

    mels: int = 80
    filter: FilterConfig = field(default_factory=FilterConfig)
    augment: AugmentConfig | None = None
    seed: int = 0
    epoch: int = 0
    # tokens of prompt and answer that a decoder can take; None: any number
    reach: int | None = None
    # False: decoding; no target is needed and the filter does not apply
    answers: bool = True
    # samples carry audio and masks; the device makes the features of them (device_features.py)
    on_device: bool = False
    # of further losses (models/objective.py); None: there are none
    targets: Targets | None = None
    # where states of the encoder are read in the place of features
    states: StateStore | None = None
    # language of the one prompt that dev and decoding use, whatever the utterance's: it must not
    # tell the model
    prompt_lang: str = "zh"
    # draws what prompts of training tell; None: nothing, and in decoding what the utterance says
    context: ContextDraws | None = None
