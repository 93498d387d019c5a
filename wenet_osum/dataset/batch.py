"""Samples → Batch: features padded to the longest, texts end to end with their lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from wenet_osum.records import Batch, Sample


def collate(samples: list[Sample], dropped: Mapping[str, int] | None = None, filler: Sample | None = None) -> Batch:
    """A micro-batch of ``samples`` in their order; ``dropped`` counts those that could not be read, by reason.

    Without any sample, ``filler`` stands in with zero weights, so that a rank never falls out of step.
    """
    is_filler = not samples
    if is_filler:
        assert filler is not None, "a micro-batch without samples needs a filler"
        samples = [dataclasses.replace(filler, answer_weights=[0.0] * len(filler.answer_ids))]
    features, feature_lengths = _pad([s.features for s in samples])
    states_after = samples[0].states_after
    if states_after is not None:
        feature_lengths = torch.tensor([s.state_length for s in samples], dtype=torch.int64)
    prompt_ids, prompt_lengths = _join([s.prompt_ids for s in samples])
    answer_ids, answer_lengths = _join([s.answer_ids for s in samples])
    suffix = samples[0].suffix_ids
    assert all(s.suffix_ids == suffix for s in samples), "samples of a batch are of one template"
    return Batch(
        keys=[s.key for s in samples],
        tasks=[s.task for s in samples],
        features=features,
        feature_lengths=feature_lengths,
        prompt_ids=prompt_ids,
        prompt_lengths=prompt_lengths,
        answer_ids=answer_ids,
        answer_lengths=answer_lengths,
        answer_weights=torch.tensor([w for s in samples for w in s.answer_weights], dtype=torch.float32),
        answer_labels=torch.tensor([label for s in samples for label in s.answer_labels], dtype=torch.bool),
        suffix_ids=torch.tensor(suffix, dtype=torch.int64) if suffix else None,
        targets=join_targets([s.targets for s in samples]),
        utterances=[s.utterance for s in samples if s.utterance is not None],
        audio_s=[s.audio_s for s in samples],
        audio=None if samples[0].audio is None else torch.nn.utils.rnn.pad_sequence([s.audio for s in samples], batch_first=True),
        masks=[s.masks for s in samples],
        states_after=states_after,
        dropped=dict(dropped or {}),
        filler=is_filler,
    )


def join_targets(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Lay the targets of a batch end to end: name → tensor, and name_lengths → (B,) int64, how long each was."""
    joined = {}
    for name in rows[0]:
        joined[name] = torch.cat([row[name] for row in rows])
        joined[f"{name}_lengths"] = torch.tensor([len(row[name]) for row in rows], dtype=torch.int64)
    return joined


def _pad(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """B times (frames, M) → (B, T, M) with zeros behind each, (B,) lengths."""
    lengths = torch.tensor([len(f) for f in features], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(features, batch_first=True), lengths


def _join(rows: Iterable[list[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids → all of them end to end, and (B,) lengths."""
    rows = list(rows)
    return torch.tensor([i for row in rows for i in row], dtype=torch.int64), torch.tensor([len(row) for row in rows], dtype=torch.int64)
