"""Samples → Batch: features padded to the longest, texts end to end with their lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.records import Batch, Sample
from wenet_osum.turns import Turns


def collate(
    samples: list[Sample],
    dropped: Mapping[str, int] | None = None,
    filler: Sample | None = None,
) -> Batch:
    """Make a micro-batch of ``samples`` in their order.

    ``dropped`` counts those that could not be read, by reason. Without any sample, ``filler``
    stands in with zero weights, so that a rank never falls out of step.
    """
    is_filler = not samples
    if is_filler:
        assert filler is not None, "a micro-batch without samples needs a filler"
        weightless = [0.0] * len(filler.answer_ids)
        samples = [dataclasses.replace(filler, answer_weights=weightless)]

    # a conversation is a row of turns, each with what an utterance has
    turns = [turn for sample in samples for turn in (*sample.turns, sample)]

    spoken = [turn for turn in turns if len(turn.features)]

    # texts
    prompt_ids, prompt_lengths = _join(turn.prompt_ids for turn in turns)
    answer_ids, answer_lengths = _join(turn.answer_ids for turn in turns)
    weights, labels, transcripts = [], [], []
    for turn in turns:
        weights += turn.answer_weights
        labels += turn.answer_labels
        transcripts += turn.answer_transcripts
    suffix = samples[0].suffix_ids
    same = all(turn.suffix_ids in ([], suffix) for turn in turns)
    assert same, "samples of a batch are of one template"

    return Batch(
        keys=[sample.key for sample in samples],
        tasks=[sample.task for sample in samples],
        **_sound(spoken),
        prompt_ids=prompt_ids,
        prompt_lengths=prompt_lengths,
        answer_ids=answer_ids,
        answer_lengths=answer_lengths,
        answer_weights=torch.tensor(weights, dtype=torch.float32),
        answer_labels=torch.tensor(labels, dtype=torch.bool),
        answer_transcripts=torch.tensor(transcripts, dtype=torch.bool),
        suffix_ids=_integers(suffix) if suffix else None,
        utterances=[sample.utterance for sample in samples if sample.utterance is not None],
        audio_s=[sample.audio_s for sample in samples],
        turns=_turns(samples, turns),
        dropped=dict(dropped or {}),
        filler=is_filler,
    )


def _sound(spoken: list[Sample]) -> dict[str, Any]:
    """Return the fields of the sound of turns: of all features, or of all audio, or of all
    states."""
    features, lengths = _pad([turn.features for turn in spoken])
    states_after = spoken[0].states_after
    if states_after is not None:
        lengths = _integers(turn.state_length for turn in spoken)
    audio = None
    if spoken[0].audio is not None:
        audio, _ = _pad([turn.audio for turn in spoken])
    return {
        "features": features,
        "feature_lengths": lengths,
        "targets": join_targets([turn.targets for turn in spoken]),
        "audio": audio,
        "masks": [turn.masks for turn in spoken],
        "states_after": states_after,
    }


def _turns(samples: list[Sample], turns: list[Sample]) -> Turns | None:
    """Say how the turns of conversations lie; None where there is no conversation."""
    if len(turns) == len(samples):
        return None
    # A template without suffix needs no mark: there an empty one stands behind every turn.
    return Turns(
        counts=_integers(len(sample.turns) + 1 for sample in samples),
        spoken=torch.tensor([len(turn.features) > 0 for turn in turns]),
        closed=torch.tensor([len(turn.suffix_ids) > 0 for turn in turns]),
        tasks=[turn.task for turn in turns],
    )


def join_targets(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Lay the targets of a batch end to end.

    Returns name → tensor, and name_lengths → (B,) int64, how long each was.
    """
    joined = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        joined[name] = torch.cat(parts)
        joined[f"{name}_lengths"] = _integers(map(len, parts))
    return joined


def _integers(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64)


def _pad(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad B times (length, …) to (B, T, …) with zeros behind each; return the lengths (B,), too."""
    lengths = _integers(map(len, rows))
    return pad_sequence(rows, batch_first=True), lengths


def _join(rows: Iterable[list[int]]) -> tuple[Tensor, Tensor]:
    """Lay rows of ids end to end; return their lengths (B,), too."""
    ids, lengths = [], []
    for row in rows:
        ids += row
        lengths.append(len(row))
    return _integers(ids), _integers(lengths)
