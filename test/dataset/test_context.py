"""Hotwords and the text before in training: what is drawn, what stands in the prompt, and that neither workers nor a resume change it."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import soundfile

from wenet_osum.config import (
    AugmentConfig,
    BatchConfig,
    ContextConfig,
    DataConfig,
    SourceConfig,
    TrainConfig,
    broken_rules,
)
from wenet_osum.context import Context
from wenet_osum.dataset import fingerprint
from wenet_osum.dataset.augment import make_rng
from wenet_osum.dataset.context import Bank, ContextDraws, pieces
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.dataset.sample import SampleConfig, make_sample
from wenet_osum.records import Utterance
from wenet_osum.score.spoken import is_spoken
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

from .loaders import train_loader

TEXTS = ["the weather in London today", "call Margaret about the weather", "今天北京天气很好", "the meeting with Johnson", "打开客厅的灯"]
ALWAYS = ContextConfig(share=1.0, words=(1, 2), distractors=(2, 4), distractors_only=0.0, previous=1.0)


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(TEXTS * 5, vocab_size=400), context=["hotwords", "previous"])


def draws(**changes):
    return ContextDraws(dataclasses.replace(ALWAYS, **changes), Bank(TEXTS))


def drawn(conf, count=200, txt=TEXTS[0], **extra):
    utterance = Utterance("k", "k.wav", txt, extra=extra)
    return [conf.draw(utterance, 7, 0, f"k{i}") for i in range(count)]


def split(context, txt=TEXTS[0]):
    spoken = [word for word in context.hotwords if is_spoken(word, txt)]
    return spoken, [word for word in context.hotwords if word not in spoken]


@pytest.mark.parametrize("txt", [TEXTS[0], TEXTS[2]])
def test_numbers_are_kept_and_distractors_are_never_spoken(txt):
    sizes = set()
    for context in drawn(draws(), txt=txt):
        spoken, others = split(context, txt)
        assert 1 <= len(spoken) <= 2 and len(set(context.hotwords)) == len(context.hotwords)
        assert all(any(is_spoken(word, text) for text in TEXTS) for word in others)
        sizes.add(len(others))
    assert sizes == {2, 3, 4}


def test_rarer_words_are_drawn_rather():
    bank = Bank(["common words are common", "common words", "common", "common rarely"])
    found = [bank.draw_words("common rarely", 1, make_rng(0, 0, str(i)))[0] for i in range(300)]
    assert 195 < found.count("rarely") < 255  # said once and five times: odds of 1/2 to 1/6


def test_shares_are_met():
    none = sum(not context.hotwords for context in drawn(draws(share=0.3), 1000))
    assert 640 < none < 760
    alone = [context for context in drawn(draws(distractors_only=0.25), 1000) if not split(context)[0]]
    assert 200 < len(alone) < 300 and all(context.hotwords for context in alone)
    told = sum(bool(context.previous) for context in drawn(draws(previous=0.5), 1000, previous="before"))
    assert 440 < told < 560


def test_chinese_is_cut_into_pieces_and_short_words_are_passed_over():
    found = pieces("今天北京天气很好，OK the Margaret's", make_rng(0, 0, "k"))
    chinese = [piece for piece in found if not piece.isascii()]
    assert found[len(chinese) :] == ["Margaret's"]
    assert all(2 <= len(piece) <= 4 for piece in chinese) and "今天北京天气很好".startswith("".join(chinese))


def test_tags_of_the_published_form_are_no_words():
    assert Bank(["Johnson<anger>", "<0.10>Johnson<0.50>"]).texts == ["Johnson", "Johnson"]


def test_a_manifests_own_words_are_taken_as_they_are():
    assert {context.hotwords for context in drawn(draws(), 20, hotwords=["x", "y"])} == {("x", "y")}
    with pytest.raises(Drop, match="context: cannot be read"):
        drawn(draws(), 1, hotwords=5)


def test_draws_are_fixed_by_seed_epoch_and_key():
    def nine(seed, epoch, key):
        return [draws().draw(Utterance("k", "k.wav", TEXTS[0]), seed, epoch, f"{key}{i}") for i in range(9)]

    first = nine(1, 0, "k")
    assert first == nine(1, 0, "k")
    assert first != nine(2, 0, "k") and first != nine(1, 1, "k") and first != nine(1, 0, "l")


def wav():
    out = io.BytesIO()
    soundfile.write(out, np.random.default_rng(0).normal(0, 0.1, 8000), 16000, format="WAV", subtype="PCM_16")
    return out.getvalue()


class Always:
    """Draws that always come out alike."""

    def draw(self, utterance, seed, epoch, key):
        return Context(("London", "Johnson"), "good day")


def test_what_stands_in_the_prompt_token_by_token(template):
    own = Template(template.tokenizer, prompts={"asr": {"en": ["Write."]}}, context=template.context)
    task, utterance = own.task("asr"), Utterance("k", "k.wav", TEXTS[0])
    conf = SampleConfig(augment=AugmentConfig(), context=Always())
    sample = make_sample(utterance, wav(), task, own, conf)
    told = 'Before this, it was said: "good day". These words may occur: London, Johnson. Write.'
    assert sample.prompt_ids == own.encode(told)
    assert own.decode(sample.answer_ids) == TEXTS[0]


def test_without_a_context_prompts_are_what_they_were(template):
    """Also those of lists that name one, for a model that knows no slots."""
    known = Utterance("k", "k.wav", TEXTS[0], extra={"hotwords": ["London"], "previous": "so"})
    plain, task = Template(template.tokenizer), template.task("asr")
    for conf in (SampleConfig(), SampleConfig(augment=AugmentConfig()), SampleConfig(answers=False)):
        bare = make_sample(dataclasses.replace(known, extra={}), wav(), task, plain, conf)
        assert make_sample(known, wav(), task, plain, conf).prompt_ids == bare.prompt_ids
        assert make_sample(dataclasses.replace(known, extra={}), wav(), task, template, conf).prompt_ids == bare.prompt_ids
    decoded = make_sample(known, wav(), task, template, SampleConfig(answers=False, prompt_lang="en"))
    first = task.prompts("en")[0]
    assert template.decode(decoded.prompt_ids) == f'Before this, it was said: "so". These words may occur: London. {first}'


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for i in range(14):
        (folder / f"{i}.wav").write_bytes(wav())
        rows.append(Utterance(f"u{i}", str(folder / f"{i}.wav"), TEXTS[i % 5], extra={"previous": f"before {i}"}))
    write_manifest(folder / "train.jsonl", rows)
    return DataConfig(train=[SourceConfig("a", str(folder / "train.jsonl"), tasks={"asr": 1.0})])


def conf(context=ALWAYS, workers=0):
    return TrainConfig(batch=BatchConfig(max_frames=200, max_tokens=900), context=context, workers=workers)


def prompts(loader):
    return [(batch.keys, batch.prompt_ids.tolist()) for batch in loader]


def test_neither_workers_nor_a_resume_change_a_prompt(corpus, template):
    whole = prompts(train_loader(corpus, conf(), template, 80, epoch=1))
    assert len(whole) > 3 and whole == prompts(train_loader(corpus, conf(workers=2), template, 80, epoch=1))
    assert whole[2:] == prompts(train_loader(corpus, conf(), template, 80, epoch=1, start=2))
    assert whole != prompts(train_loader(corpus, conf(), template, 80, epoch=2))
    assert any("before" in template.decode(ids) for _, ids in whole)


def test_the_plan_counts_the_tokens_of_a_context(corpus, template):
    told, bare = (Mixture(corpus, conf(context), template, 80) for context in (ALWAYS, None))
    assert (told.pools[0].tokens > bare.pools[0].tokens + 10).all()
    loader = told.epoch(0)
    for batch in loader:
        assert int(batch.prompt_lengths.max()) < int(told.pools[0].tokens.max())


def test_an_epoch_goes_on_with_another_context(corpus, template):
    """What was read is known by the settings of that time; without a context a fingerprint is what it was."""
    mixture = Mixture(corpus, conf(), template, 80)
    assert fingerprint.settings(mixture.plan_fingerprint, conf(None)).context == ALWAYS
    plain = Mixture(corpus, conf(None), template, 80)
    assert "context" not in plain.plan_fingerprint
    loader = mixture.epoch(0)
    read = [key for batch in list(loader)[:2] for key in batch.keys]
    rest = plain.epoch(0, earlier=[{"plan": mixture.plan_fingerprint, "consumed": 2}])
    left = [key for batch in rest for key in batch.keys]
    assert sorted(read + left) == sorted(f"u{i}" for i in range(14))


def test_faulty_settings_are_told():
    faulty = ContextConfig(share=2.0, words=(3, 1), distractors=(0, 0))
    told = " ".join(broken_rules(TrainConfig(context=faulty)))
    for key in ("context.share 2.0", "context.words [3, 1]", "context.distractors_only: needs"):
        assert key in told


def test_each_draw_of_an_utterance_is_told_anew(template):
    conf = SampleConfig(augment=AugmentConfig(), context=draws())
    utterance = Utterance("k", "k.wav", TEXTS[0], prompt="Write.")
    asked = [tuple(make_sample(utterance, wav(), template.task("asr"), template, conf, repeat).prompt_ids) for repeat in range(8)]
    assert len(set(asked)) > 3
