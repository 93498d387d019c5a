"""Decoding with a tiny random model: the batch does not matter, labels have true probabilities, nothing runs for ever."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from wenet_osum.decode import generate as generation
from wenet_osum.decode import greedy, prefix
from wenet_osum.decode.beam import Beam
from wenet_osum.decode.generate import generate
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.stops import LoopGuard, TimeGuard, limit
from wenet_osum.tasks import parse

TASKS = ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc", "<EMOTION><TRANSCRIBE>", "<AGE><GENDER>", "<TRANSCRIBE><ALIGN><AGE>"]


def same(one, other):
    assert (one.key, one.text, one.labels, one.flags, one.words) == (other.key, other.text, other.labels, other.flags, other.words)
    for name, probs in one.probs.items():
        assert probs == pytest.approx(other.probs[name], abs=1e-5)


@pytest.mark.parametrize("options", [DecodeOptions(), DecodeOptions(free=True), DecodeOptions(num_beams=3), DecodeOptions(temperature=1.0)])
def test_batch_does_not_matter(parts, clips, batch_of, options):
    model, template = parts
    options.max_tokens = 24
    tasks = [parse(name) for name in TASKS]
    features = clips([37, 160, 61, 300, 10, 123, 88, 45, 201, 64, 33])[: len(tasks)]
    together = generate(model, template, batch_of(template, features, tasks), tasks, options)
    order = list(reversed(range(len(tasks))))
    turned = generate(model, template, batch_of(template, features, tasks, order), [tasks[i] for i in order], options)
    assert [a.key for a in together] == [f"k{i}" for i in range(len(tasks))]
    assert len({a.text for a in together}) > len(tasks) // 2
    for i, answer in enumerate(together):
        alone = generate(model, template, batch_of(template, features, tasks, [i]), [tasks[i]], options)[0]
        same(answer, alone)
        same(answer, turned[len(tasks) - 1 - i])


@pytest.mark.parametrize("task", ["ser", "<AGE><GENDER>", "<EMOTION><TRANSCRIBE>", "<TRANSCRIBE><EMOTION><GENDER>", "<TRANSCRIBE><ALIGN><GENDER>"])
@pytest.mark.parametrize("target_tokenization", ["by_field", "whole"])
@pytest.mark.parametrize("beams", [1, 2])
def test_labels_come_from_their_sets(parts, clips, batch_of, task, target_tokenization, beams):
    model, template = parts
    template.target_tokenization = target_tokenization
    task = parse(task)
    answers = generate(model, template, batch_of(template, clips([40, 90]), [task] * 2), [task] * 2, DecodeOptions(max_tokens=12, num_beams=beams))
    template.target_tokenization = "by_field"
    for answer in answers:
        assert list(answer.probs) == [f.name for f in task.label_fields] and not set(answer.unread) & set(answer.probs)
        for field in task.label_fields:
            assert sum(answer.probs[field.name].values()) == pytest.approx(1.0)
            assert answer.labels[field.name] == max(answer.probs[field.name], key=answer.probs[field.name].get)
            assert f"<{answer.labels[field.name]}>" in answer.text


def test_label_probabilities_match_a_plain_forward(parts, clips, batch_of, monkeypatch):
    model, template = parts
    task = parse("<TRANSCRIBE> <EMOTION>")
    batch = batch_of(template, clips([77, 140]), [task] * 2)
    rows, finish = [], generation.hypothesis
    monkeypatch.setattr(generation, "hypothesis", lambda row, template: rows.append(row) or finish(row, template))
    answers = generate(model, template, batch, [task] * 2, DecodeOptions(max_tokens=7))
    labels = template.label_ids(task.fields[1])
    embeds, mask = model.prompt_embeddings(batch.features, batch.feature_lengths, batch.prompt_ids, batch.prompt_lengths)
    for row, answer, prompt, real in zip(rows, answers, embeds, mask.bool(), strict=True):
        prefix = row.answer_state.ids[:7]
        assert row.answer_state.ids[7:] == labels[answer.labels["emotion"]] and answer.flags == ["length_limit", "label_forced"]
        scores = []
        for ids in labels.values():
            full = torch.cat([prompt[real], model.get_input_embeddings()(torch.tensor(prefix + ids))])[None]
            with torch.no_grad():
                logits = model.llm(inputs_embeds=full).logits[0].log_softmax(-1)
            begin = int(real.sum()) + len(prefix)
            scores.append(sum(logits[begin + i - 1, token].item() for i, token in enumerate(ids)))
        expected = torch.tensor(scores).softmax(0).tolist()
        assert list(answer.probs["emotion"].values()) == pytest.approx(expected, abs=1e-5)


def test_answers_follow_transformers_generate(parts, clips, batch_of):
    model, template = parts
    task = parse("asr")
    batch = batch_of(template, clips([77, 140, 31]), [task] * 3)
    ours = generate(model, template, batch, [task] * 3, DecodeOptions(free=True, max_tokens=12))
    theirs = model.generate(
        batch.features, batch.feature_lengths, batch.prompt_ids, batch.prompt_lengths, max_new_tokens=12, do_sample=False,
        eos_token_id=template.end_id, pad_token_id=template.end_id,
    )  # fmt: skip
    assert [a.text for a in ours] == [template.decode(ids.tolist()) for ids in theirs]


def test_beams_find_what_exhaustive_search_finds(parts, clips, batch_of):
    model, template = parts
    task = parse("asr")
    batch = batch_of(template, clips([50]), [task])
    beams = generate(model, template, batch, [task], DecodeOptions(num_beams=4, max_tokens=10))[0]
    theirs = model.generate(
        batch.features, batch.feature_lengths, batch.prompt_ids, batch.prompt_lengths, max_new_tokens=10, num_beams=4, do_sample=False,
        eos_token_id=template.end_id, pad_token_id=template.end_id,
    )  # fmt: skip
    assert beams.text == template.decode(theirs[0].tolist())


def test_sampling_depends_on_the_seed(parts, clips, batch_of):
    model, template = parts
    task = parse("asr")
    batch = batch_of(template, clips([50]), [task])
    texts = {generate(model, template, batch, [task], DecodeOptions(temperature=1.0, seed=seed, max_tokens=10))[0].text for seed in (1, 2)}
    assert len(texts) == 2


@pytest.mark.parametrize("temperature", [1e-310, 1e-30, 9e-7])
def test_a_temperature_next_to_nothing_is_greedy(parts, clips, batch_of, temperature):
    model, template = parts
    task = parse("asr")
    batch = batch_of(template, clips([50]), [task])
    options = DecodeOptions(temperature=temperature, max_tokens=10)
    [greedy] = generate(model, template, batch, [task], DecodeOptions(max_tokens=10))
    assert generate(model, template, batch, [task], options)[0].text == greedy.text != ""
    assert not options.temperature and DecodeOptions(temperature=1e-6).temperature == 1e-6


def test_a_loop_ends_and_is_flagged(parts, clips, batch_of, monkeypatch):
    model, template = parts
    task = parse("ser")
    batch = batch_of(template, clips([3000]), [task])
    stuck = template.encode("a")[0]
    monkeypatch.setattr(greedy, "pick", lambda logits, live, waiting, options, counts: [stuck] * len(waiting))
    counts = Counter()
    answer = generate(model, template, batch, [task], DecodeOptions(), counts)[0]
    assert {"loop", "label_forced"} <= set(answer.flags) and answer.transcript == "a" * 32 and answer.labels
    assert counts["loop"] == 1


@pytest.mark.parametrize("beams", [1, 2])
def test_an_answer_ends_before_a_tag_that_was_not_asked_for(parts, clips, batch_of, monkeypatch, beams):
    """The model wants to say a label after the transcript, as in the other tasks it was taught."""
    model, template = parts
    wanted = template.encode("the cat<male>")

    def script(prefixes, inputs, positions):
        """Make the next token of every answer the one that is wanted."""
        read(prefixes, inputs, positions)
        places = prefixes.mask.shape[1]
        if "inputs_embeds" in inputs:
            prefixes.prompt = places
        following = min(places - prefixes.prompt, len(wanted) - 1)
        prefixes.logits = torch.full_like(prefixes.logits, -20.0)
        prefixes.logits[:, wanted[following]] = 20.0

    read = prefix.Prefixes._read
    monkeypatch.setattr(prefix.Prefixes, "_read", script)
    task, counts = parse("asr"), Counter()
    batch = batch_of(template, clips([50, 80]), [task] * 2)
    for answer in generate(model, template, batch, [task] * 2, DecodeOptions(num_beams=beams), counts):
        assert (answer.transcript, answer.text) == ("the cat", "the cat") and "tag_cut" in answer.flags
    assert counts["tag_cut"] == 2


def test_loop_guard_lets_short_repetitions_pass():
    guard = LoopGuard()
    assert not any(guard.add(token) for token in [5] * 8 + [1, 2, 3] * 3 + [7] * 31)
    guard = LoopGuard()
    unit = list(range(50))
    assert [guard.add(token) for token in unit * 4] == [False] * 199 + [True]


LOST = "<0.10>a<1.90><0.80>b<1.20>" * 3
FINE = "".join(f"<{time / 100:.2f}>b<{time / 100 + 0.01:.2f}>" for time in range(10, 180, 2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<0.10>a<0.30><0.30>b<2.90>", None),
        ("<0.10>a<0.30><3.20>b<3.30><0.30>c<0.40>", None),
        ("<0.10>a<0.30><3.20>b<3.30><3.30>c<3.40>", "<0.10>a<0.30><3.20>b<3.30><3.30>"),
        (LOST, "<0.10>a<1.90><0.80>b<1.20><0.10>a<1.90><0.80>"),
        (FINE + "<3.20>b<3.30><0.30>c<0.40>", None),
        ("<0.10>a<0.30>" + "\\<99>\\<98\\>" * 2, None),
        ("<0.10>a<0.30><12", None),
    ],
)
def test_times_that_the_recording_cannot_have_end_an_answer(parts, text, said):
    """It lasts 2 s: a time may be 1 s beyond its end, and 1 s before the one before. A slip is forgiven, and what is escaped is no time."""
    _, template = parts
    row = generation.make_row(template, "k", parse("srwt"), 2.0, DecodeOptions(max_tokens=5000))
    for token in template.encode(text):
        if not row.finished:
            row.take(token)
    assert template.decode(row.answer_state.ids) == (said or text)
    assert row.flags == (["times"] if said else []) and row.finished == bool(said)


def test_a_reply_has_no_times(parts):
    _, template = parts
    guard = TimeGuard(2.0, lambda token: template.decode([token]))
    tokens = template.encode("<0.10>a<0.30><\u5f00\u59cb\u56de\u7b54><99>" * 3)
    assert not any(guard.add(token) for token in tokens) and guard.over and guard.times == 2


def test_times_are_watched_where_words_have_some(parts):
    _, template = parts
    for task, watched in (("srwt", True), ("asr", False), ("<TRANSCRIBE><ALIGN><GENDER>", True)):
        row = generation.make_row(template, "k", parse(task), 2.0, DecodeOptions())
        assert bool(row.guard.times) == watched
    copied = generation.make_row(template, "k", parse("srwt"), 2.0, DecodeOptions()).guard
    other = copied.clone()
    for token in template.encode("<2.5>"):
        other.check(token)
    assert (copied.times.last_s, other.times.last_s) == (0.0, 2.5), "a clone goes on alone"


def test_limit_follows_the_audio():
    plain, timed, chat = (limit(parse(name).fields, 10.0) for name in ("asr", "srwt", "sttc"))
    assert (plain, timed, chat) == (332, 1132, 732)


def test_ties_are_counted(parts, clips, batch_of):
    model, template = parts
    task = parse("asr")
    with torch.no_grad():
        weight = model.llm.lm_head.weight
        kept = weight.clone()
        weight.zero_()
    counts = Counter()
    answer = generate(model, template, batch_of(template, clips([50]), [task]), [task], DecodeOptions(max_tokens=5), counts)[0]
    with torch.no_grad():
        weight.copy_(kept)
    assert "tie" in answer.flags and counts["ties"] == counts["steps"] > 0


@pytest.mark.parametrize("bad", [{"num_beams": 0}, {"temperature": -1.0}, {"temperature": math.nan}, {"temperature": math.inf}, {"num_beams": 2, "temperature": 1.0}, {"max_tokens": 0}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad)))):
        DecodeOptions(**bad)


class EveryUnit:
    """The rule of LoopGuard as it is told: for every length, how many tokens equal those before."""

    def __init__(self):
        self.ids = []

    def add(self, token):
        self.ids.append(token)
        return any(self.in_a_row(unit) + unit >= max(32, 4 * unit) for unit in range(1, 65))

    def in_a_row(self, unit):
        ids, same = self.ids, 0
        while same + unit < len(ids) and ids[-1 - same] == ids[-1 - same - unit]:
            same += 1
        return same


@pytest.mark.parametrize("seed", range(6))
def test_loops_are_noticed_by_the_rule(seed):
    """Random text, with units of any length repeated in it, and clones on the way."""
    draws = np.random.default_rng(seed)
    guard, rule, looped = LoopGuard(), EveryUnit(), 0
    for _ in range(60):
        unit = draws.integers(0, draws.integers(1, 40), draws.integers(1, 70)).tolist()
        for token in unit * int(draws.integers(1, 9)):
            guard, before = guard.clone(), guard
            found = guard.add(token)
            assert found == rule.add(token)
            assert len(before.ids) == len(guard.ids) - 1, "a clone goes on alone"
            looped += found
    assert looped > 100


def test_a_label_that_was_chosen_is_not_unread(parts):
    """Also where its tag cannot be read in the text."""
    _, template = parts
    row = generation.make_row(template, "k", parse("ser"), 2.0, DecodeOptions())
    row.answer_state.ids = template.encode("the cat")
    row.probs = {"emotion": {"happy": 0.25, "sad": 0.75}}
    answer = generation.hypothesis(row, template)
    assert answer.labels == {"emotion": "sad"} and answer.unread == {}


def test_beams_are_compared_per_token_and_what_was_given_is_none():
    said = LoopGuard()
    said.ids = [5, 6, 7]
    beam = Beam(None, said, -6.0)
    assert (beam.worth(0.0), beam.worth(0.5), beam.worth(1.0)) == (-6.0, -3.0, -1.5)
    assert Beam(None, said, -6.0, given=2).worth(1.0) == -3.0


def test_words_that_overlap_a_little_do_not_end_an_answer(parts):
    _, template = parts
    row = generation.make_row(template, "k", parse("srwt"), 2.0, DecodeOptions(max_tokens=5000))
    for token in template.encode("<0.10>a<0.60><0.50>b<0.90><0.80>c<1.20><1.10>d<1.50><1.40>e<1.80>"):
        row.take(token)
    assert not row.flags and not row.finished


def test_the_penalty_is_that_of_transformers():
    torch.manual_seed(0)
    logits, said = torch.randn(2, 9), [[1, 3, 3], [0, 8]]
    for row, ids in enumerate(said):
        wanted = RepetitionPenaltyLogitsProcessor(1.5)(torch.tensor([ids]), logits[row : row + 1].clone())
        assert torch.equal(greedy.penalize(logits, said, 1.5)[row], wanted[0])
