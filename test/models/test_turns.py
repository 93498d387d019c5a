"""Conversations in the model: several recordings and turns in a row, the loss on answers alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from wenet_osum.dataset.batch import collate
from wenet_osum.models.layout import Question
from wenet_osum.models.objective import Objective, UtteranceLosses
from wenet_osum.records import Sample

SUFFIX = [7, 9, 11]


def turn(seed, frames, prompt, answer, turns=()):
    """A turn of random features and tokens; without answer nobody answered it."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, 8, generator=draw) if frames else torch.empty(0, 0)
    prompt_ids = torch.randint(3, 64, (prompt,), generator=draw).tolist()
    answer_ids = torch.randint(3, 64, (answer,), generator=draw).tolist()
    weights = torch.rand(answer, generator=draw).add(0.5).tolist()
    suffix = SUFFIX if answer else []
    return Sample(f"k{seed}", "", features, prompt_ids, answer_ids, weights, [False] * answer, [False] * answer, suffix_ids=suffix, turns=[*turns])


@pytest.fixture
def samples():
    """Two recordings in one question; a recording and a question in writing; one turn alone."""
    two = turn(1, 61, 3, 5, [turn(2, 33, 4, 0)])
    written = turn(3, 0, 3, 4, [turn(4, 50, 2, 3)])
    three = turn(6, 40, 1, 2, [turn(7, 30, 2, 2), turn(8, 0, 2, 1)])
    return [two, written, turn(5, 44, 2, 3), three]


def by_hand(model, sample):
    """The nll of a sample's answers from embeddings put one after another, and their weights."""
    embed = model.get_input_embeddings()
    start, end = model.speech_boundary.weight
    parts, targets, weights = [], [], []
    at = 0
    for one in (*sample.turns, sample):
        pieces = [embed(torch.tensor(one.prompt_ids, dtype=torch.long))]
        if len(one.features):
            speech, _ = model.padded_speech(one.features[None], torch.tensor([len(one.features)]))
            pieces += [start[None], speech[0], end[None]]
        pieces.append(embed(torch.tensor(one.suffix_ids, dtype=torch.long)))
        at += sum(map(len, pieces))
        for token in one.answer_ids:
            targets.append((at - 1, token))
            pieces.append(embed(torch.tensor([token])))
            at += 1
        parts += pieces
        weights += one.answer_weights
    logits = model.llm(inputs_embeds=torch.cat(parts)[None], use_cache=False).logits[0]
    places, tokens = zip(*targets, strict=True)
    nll = functional.cross_entropy(logits[[*places]], torch.tensor(tokens), reduction="none")
    return nll, torch.tensor(weights)


def test_a_batch_is_what_embeddings_put_together_by_hand_are(model, samples):
    output = model(collate(samples))
    pairs = [by_hand(model, sample) for sample in samples]
    nll, weights = (torch.cat(column) for column in zip(*pairs, strict=True))
    torch.testing.assert_close(output.nll, nll.detach(), atol=2e-5, rtol=0)
    torch.testing.assert_close(output.loss, (nll * weights).sum())
    torch.testing.assert_close(output.weight, weights.sum())
    # Recordings that are heard: as many as there are, whatever is said in writing.
    assert len(output.speech_lengths) == 6


def test_each_alone_is_the_same(model, samples):
    together = model(collate(samples)).nll
    alone = torch.cat([model(collate([sample])).nll for sample in samples])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)


def test_the_first_of_two_recordings_is_heard(model, samples):
    before = model(collate(samples)).nll
    first = samples[0].turns[0]
    other = dataclasses.replace(first, features=first.features.flip(0))
    without = dataclasses.replace(first, features=torch.empty(0, 0))
    for changed in (other, without):
        after = model(collate([dataclasses.replace(samples[0], turns=[changed]), *samples[1:]])).nll
        assert (before[:5] - after[:5]).abs().max() > 1e-2
        torch.testing.assert_close(before[5:], after[5:], atol=1e-5, rtol=0)


def test_padded_gives_what_packed_gives(model, samples):
    """The last answers, behind prompts padded on the left that hold the earlier ones."""
    nothing = {"answer_ids": [], "answer_weights": [], "answer_labels": [], "answer_transcripts": []}
    asked = [dataclasses.replace(sample, **nothing) for sample in samples]
    question = Question.of(collate(asked))
    prompt, mask = model.prompts_with(*model.padded_speech(question.features, question.feature_lengths), question)
    lasts = [torch.tensor(sample.answer_ids) for sample in samples]
    answers = torch.nn.utils.rnn.pad_sequence(lasts, batch_first=True)
    valid = torch.arange(answers.shape[1]) < torch.tensor([len(last) for last in lasts])[:, None]
    embeddings = torch.cat([prompt, model.get_input_embeddings()(answers)], 1)
    mask = torch.cat([mask, valid.long()], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model.llm(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False).logits
    logits = logits[:, prompt.shape[1] - 1 : -1]
    padded = functional.cross_entropy(logits[valid], answers[valid], reduction="none")
    packed = model(collate(samples)).nll
    earlier = [sum(len(one.answer_ids) for one in sample.turns) for sample in samples]
    sizes = [size for before, last in zip(earlier, lasts, strict=True) for size in (before, len(last))]
    own = torch.cat([*packed.split(sizes)][1::2])
    torch.testing.assert_close(padded.detach(), own, atol=2e-5, rtol=0)


def test_accumulation_changes_neither_loss_nor_gradient(model, samples):
    """One micro-batch of eight is eight of one."""
    eight = [*samples, *(dataclasses.replace(sample, prompt_ids=sample.prompt_ids[1:] + [5]) for sample in samples)]
    found = []
    for batches in ([collate(eight)], [collate([one]) for one in eight]):
        model.zero_grad()
        outputs = [model(batch) for batch in batches]
        weight = sum(output.weight for output in outputs)
        loss = sum(output.loss for output in outputs) / weight
        loss.backward()
        found.append((loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (loss, gradients), (other_loss, others) = found
    torch.testing.assert_close(loss, other_loss)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], atol=1e-5, rtol=1e-4, msg=name)


class Loudness:
    """A further loss: the sum of each recording's states."""

    needs_logits = False

    def __call__(self, speech, targets):
        pairs = zip(speech.states, speech.lengths.tolist(), strict=True)
        return UtteranceLosses(torch.stack([states[:length].sum() for states, length in pairs]))


@pytest.mark.parametrize("ce_weight", [1.0, 0.0])
def test_further_losses_are_those_of_every_recording(model, samples, ce_weight):
    model.objective = Objective(ce_weight, [(1.0, Loudness())])
    silent = dataclasses.replace(samples[0], answer_weights=[0.0] * 5)
    with torch.no_grad():
        both = model(collate([silent, *samples[1:]]))
        rest = model(collate(samples[1:]))
    # A conversation without a weighted answer counts nothing, its earlier recordings neither.
    torch.testing.assert_close(both.loss, rest.loss, atol=1e-3, rtol=1e-5)
    assert len(both.nll) == 5 + len(rest.nll)
