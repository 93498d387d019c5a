"""The rules of the options of the search: what each may be, and which go together."""

from __future__ import annotations

import math
from typing import Protocol

from wenet_osum.decode import joint
from wenet_osum.decode.modes import (
    ATTENTION,
    ATTENTION_RESCORING,
    CTC_GREEDY_SEARCH,
    CTC_PREFIX_BEAM_SEARCH,
)


class Options(Protocol):
    """The options that have rules; ``options.DecodeOptions`` has them."""

    mode: str
    num_beams: int
    length_penalty: float
    temperature: float
    repetition_penalty: float
    max_tokens: int | None
    rescore: dict[str, float]
    ctc_draft: bool
    trust_ctc: float
    static_cache: bool
    prefix_text: str | None

    @property
    def joint(self) -> dict[str, float]: ...


def check_numbers(options: Options) -> None:
    """Raise ValueError for a number that is no good by itself."""
    if options.num_beams < 1:
        raise ValueError(f"num_beams {options.num_beams} must be 1 (greedy) or more")
    if not 0 <= options.temperature < math.inf or options.repetition_penalty <= 0:
        raise ValueError(
            f"temperature {options.temperature} must be a finite number of 0 or more "
            f"and repetition_penalty {options.repetition_penalty} above 0"
        )
    if not options.trust_ctc >= 0:
        raise ValueError(f"trust_ctc {options.trust_ctc} must be 0 (never) or more nats")
    if not math.isfinite(options.length_penalty):
        raise ValueError(f"length_penalty {options.length_penalty} must be a finite number")
    if options.max_tokens is not None and options.max_tokens < 1:
        raise ValueError(f"max_tokens {options.max_tokens} must be 1 or more")


def check_together(options: Options) -> None:
    """Raise ValueError for options that do not go together."""
    joint.check_weights(options.rescore, options.temperature)
    if options.mode == ATTENTION:
        _check_attention(options)
    else:
        _check_ctc(options)


def _check_attention(options: Options) -> None:
    """Check the options of a search token by token."""
    several = options.num_beams > 1
    if options.temperature and several:
        raise ValueError(
            f"num_beams {options.num_beams} with temperature {options.temperature}: "
            "beams do not sample; choose one of them"
        )
    if options.ctc_draft and (several or options.temperature or options.joint):
        raise ValueError(
            "ctc_draft is for greedy search: leave num_beams, temperature and rescore out"
        )
    if options.static_cache and (several or options.ctc_draft):
        raise ValueError("static_cache is for greedy search: leave num_beams and ctc_draft out")
    if options.prefix_text and options.trust_ctc:
        raise ValueError(
            f"prefix_text {options.prefix_text!r} with trust_ctc {options.trust_ctc}: a transcript "
            "that CTC is trusted with begins as CTC heard it; leave one of them out"
        )
    if options.trust_ctc and not options.ctc_draft:
        raise ValueError(f"trust_ctc {options.trust_ctc} is for ctc_draft; set that too")


def _check_ctc(options: Options) -> None:
    """Check the options of the modes in which CTC finds the transcript."""
    mode = options.mode
    names = ["temperature", "ctc_draft", "trust_ctc", "static_cache", "prefix_text"]
    given = [name for name in names if getattr(options, name)]
    if options.joint and mode != ATTENTION_RESCORING:
        given.append("rescore")
    if given:
        listed = ", ".join(given)
        raise ValueError(f"mode {mode} has no use for {listed}; leave that out, or use {ATTENTION}")
    if mode == CTC_GREEDY_SEARCH and options.num_beams > 1:
        raise ValueError(
            f"mode {mode} has one best path, and no num_beams; use {CTC_PREFIX_BEAM_SEARCH}"
        )
