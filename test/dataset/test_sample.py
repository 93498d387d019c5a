"""Samples: features, prompts and targets; word times follow the speed; what cannot be used is a Drop with its reason."""

import dataclasses
import io

import numpy as np
import pytest
import soundfile
import torch

from wenet_osum.config import AugmentConfig, FilterConfig, ModelConfig, SpecAugmentConfig
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.sample import (
    SampleConfig,
    make_sample,
    read_tags,
    sample_from_audio,
    silent_sample,
)
from wenet_osum.dataset.states import Encoded
from wenet_osum.models.losses import ctc
from wenet_osum.models.objective import make_objective
from wenet_osum.records import Utterance, Word
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template
from wenet_osum.text.timing import ANY_TIME


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(["red cat", "你好世界"] * 9, vocab_size=500))


def wav(seconds, seed=0):
    out = io.BytesIO()
    audio = np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16000)).astype(np.float32)
    soundfile.write(out, audio, 16000, format="WAV", subtype="PCM_16")
    return out.getvalue()


TIMED = Utterance("k", "k.wav", txt="red cat", words=[Word("red", 0.2, 0.5), Word("cat", 0.5, 1.0)], labels={"emotion": "happy"}, lang="en")


def test_features_prompt_and_target(template):
    task = template.task("ser")
    sample = make_sample(TIMED, wav(1.2), task, template, SampleConfig())
    assert sample.features.shape == (120, 80) and sample.audio_s == pytest.approx(1.2)
    assert template.decode(sample.prompt_ids) == task.prompts("zh")[0]
    assert template.decode(sample.answer_ids) == "red cat<happy>" and sample.answer_ids[-1] == template.end_id
    assert sample.targets == {}, "nobody asked for any"
    assert sample.task == "<TRANSCRIBE> <EMOTION>"


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_word_times_scale_with_the_speed(template, speed):
    conf = SampleConfig(augment=AugmentConfig(speeds=[speed]))
    sample = make_sample(TIMED, wav(1.2), template.task("srwt"), template, conf)
    times = [t / speed for t in (0.2, 0.5, 0.5, 1.0)]
    assert template.decode(sample.answer_ids) == f"<{times[0]:.2f}>red<{times[1]:.2f}> <{times[2]:.2f}>cat<{times[3]:.2f}>"
    assert len(sample.features) == pytest.approx(120 / speed, abs=1)
    with pytest.raises(Drop, match="word times beyond the recording"):
        make_sample(TIMED, wav(0.8), template.task("srwt"), template, conf)


@pytest.mark.parametrize("speed", [0.8, 1.0])
def test_times_of_transcript_tokens_follow_the_words(template, speed):
    conf = SampleConfig(augment=AugmentConfig(speeds=[speed]), targets=ctc.Loss(template, word_times=True).targets)
    targets = make_sample(TIMED, wav(1.2), template.task("asr"), template, conf).targets
    ids, times = targets["transcript_ids"].tolist(), targets["transcript_times"].tolist()
    assert template.decode(ids) == "red cat"
    found = {"".join(template.decode([i])): span for i, span in zip(ids, times, strict=True)}
    for letter, span in (("r", (0.2, 0.5)), ("t", (0.5, 1.0))):
        (held,) = [s for text, s in found.items() if letter in text]
        assert held == pytest.approx([t / speed for t in span])
    unknown = dataclasses.replace(TIMED, words=None)
    times = make_sample(unknown, wav(1.2), template.task("asr"), template, conf).targets["transcript_times"].tolist()
    assert {tuple(span) for span in times} == {ANY_TIME}


def test_a_speed_never_makes_audio_too_long(template):
    conf = SampleConfig(augment=AugmentConfig(speeds=[0.5, 0.9]), filter=FilterConfig(max_s=1.5))
    for seconds, fitting in ((1.34, 0.9), (1.45, 1.0)):
        sample = make_sample(TIMED, wav(seconds), template.task("asr"), template, conf)
        assert sample.audio_s == pytest.approx(seconds / fitting, abs=0.01)


def test_draws_follow_seed_epoch_key_and_repeat(template):
    augment = AugmentConfig(speeds=[0.9, 1.0, 1.1], gain_db=(-6.0, 6.0), spec_augment=SpecAugmentConfig())

    def features(repeat=0, key="k", **conf):
        utterance = Utterance(key, "k.wav", txt="red cat")
        return make_sample(utterance, wav(1.2), template.task("asr"), template, SampleConfig(augment=augment, **conf), repeat).features

    first = features()
    assert torch.equal(first, features())
    for other in (features(epoch=1), features(seed=1), features(key="l"), features(repeat=1)):
        assert first.shape != other.shape or not torch.equal(first, other)


def test_prompt_language(template):
    task = template.task("asr")
    for lang, conf, want in (("zh", {}, "zh"), ("en", {}, "zh"), (None, {}, "zh"), ("zh", {"prompt_lang": "en"}, "en")):
        utterance = Utterance("k", "k.wav", txt="red", lang=lang)
        sample = sample_from_audio(utterance, np.zeros(1600, np.float32) + 0.1, task, template, SampleConfig(**conf))
        assert template.decode(sample.prompt_ids) == task.prompts(want)[0]
    own = Template(template.tokenizer, prompts={"asr": {"en": ["Write."]}})  # a table without Chinese
    sample = sample_from_audio(Utterance("k", "k.wav", txt="red"), np.zeros(1600, np.float32), own.task("asr"), own, SampleConfig())
    assert own.decode(sample.prompt_ids) == "Write."


@pytest.mark.parametrize(
    ("own", "txt", "asked", "answer"),
    [
        ("<TRANSCRIBE> <EMOTION>", "你好<anger>", "ser", "你好<anger>"),
        ("<TRANSCRIBE> <EMOTION>", "你好<anger>", "asr", "你好"),
        (None, "你好<ang>", "ser", "你好<anger>"),
        ("<TRANSCRIBE> <ALIGN>", "<0.00>你<0.2><0.20>好<0.4>", "srwt", "<0.00>你<0.20><0.20>好<0.40>"),
        ("<TRANSCRIBE> <S2TCHAT>", "你好<开始回答>世界", "sttc", "你好<开始回答>世界"),
        ("asr", "1 <2> 3", "asr", "1 \\<2\\> 3"),
    ],
)
def test_published_texts_are_taken_apart(template, own, txt, asked, answer):
    sample = make_sample(Utterance("k", "k.wav", txt=txt, task=own), wav(1), template.task(asked), template, SampleConfig())
    assert template.decode(sample.answer_ids) == answer


def test_fields_win_over_tags(template):
    utterance = Utterance("k", "k.wav", txt="你好<anger>", task="ser", labels={"emotion": "sad"})
    found = read_tags(utterance, template.task("ser"), template)
    assert (found.txt, found.labels.get("emotion")) == ("你好", "sad")


@pytest.mark.parametrize(
    ("utterance", "audio", "limits", "reason"),
    [
        (TIMED, b"no audio at all", {}, "audio: unreadable"),
        (TIMED, b"", {}, "audio:"),
        (TIMED, wav(0.05), {}, "audio: shorter than 0.1 s"),
        (TIMED, wav(2), {"max_s": 1.5}, "audio: longer than 1.5 s"),
        (TIMED, wav(1), {"max_target_tokens": 2}, "target: longer than 2 tokens"),
        (Utterance("k", "w", txt="red"), wav(1), {}, "target: lacks emotion"),
        (Utterance("k", "w", txt="red", labels={"emotion": "no label"}), wav(1), {}, "target: lacks emotion"),
    ],
)
def test_what_cannot_be_used(template, utterance, audio, limits, reason):
    with pytest.raises(Drop) as caught:
        make_sample(utterance, audio, template.task("ser"), template, SampleConfig(filter=FilterConfig(**limits)))
    assert caught.value.reason.startswith(reason)


def test_decoding_needs_no_target(template):
    sample = make_sample(Utterance("k", "w"), wav(0.05), template.task("ser"), template, SampleConfig(answers=False))
    assert sample.answer_ids == [] and len(sample.features) == 5


def test_silence_stands_in(template):
    sample = silent_sample(template, SampleConfig(mels=128))
    assert sample.features.shape == (50, 128) and sample.answer_weights == [0.0] and sample.answer_ids == [template.end_id]


def test_what_nothing_is_learned_from_is_left_out_and_a_filler_is_not(template):
    """Phase of CTC alone (ce_weight 0): a clip with a label and no transcript has no target."""
    entry = {"name": "ctc", "weight": 1.0}
    objective = make_objective(ModelConfig(losses=[entry], ce_weight=0.0), template)
    conf = SampleConfig(targets=objective.targets)
    cough = Utterance("k", "k.wav", labels={"emotion": "happy"})
    with pytest.raises(Drop, match="target: none of model.losses has one"):
        make_sample(cough, wav(1.2), template.task("<EMOTION>"), template, conf)
    assert make_sample(TIMED, wav(1.2), template.task("asr"), template, conf).targets
    filler = silent_sample(template, conf)
    assert filler.targets["transcript_ids"].tolist() == [] and filler.answer_weights == [0.0]


def test_a_filler_has_targets_where_labels_alone_are_learned(template):
    """Silence has no label, and the loss needs a row for it all the same."""
    entry = {"name": "labels", "weight": 1.0}
    objective = make_objective(ModelConfig(losses=[entry], ce_weight=0.0), template)
    labels = silent_sample(template, SampleConfig(targets=objective.targets)).targets["labels"]
    assert len(labels) and set(labels.tolist()) == {-1}


def test_tokens_of_labels_and_of_the_transcript_are_told_apart(template):
    sample = make_sample(TIMED, wav(1.2), template.task("ser"), template, SampleConfig())
    label = len(template.encode("<happy>"))
    words = len(sample.answer_ids) - label - 1
    assert sample.answer_labels == [False] * words + [True] * label + [False]
    assert sample.answer_transcripts == [True] * words + [False] * (label + 1)


def test_each_draw_of_an_utterance_may_be_asked_in_other_words(template):
    conf = SampleConfig(augment=AugmentConfig())
    asked = [tuple(make_sample(TIMED, wav(1.2), template.task("asr"), template, conf, repeat).prompt_ids) for repeat in range(12)]
    assert len(set(asked)) > 3


def test_states_on_disk_are_held_against_the_filter(template):
    """A run with another filter than that which encoded them, and a header that was wrong."""

    class Kept:
        def digest(self, data, key, variant):
            return "d"

        def __contains__(self, digest):
            return True

        def read(self, digest):
            return Encoded(np.zeros((3, 4), np.float32), 3, 2.0, 2.0, 1.0)

    with pytest.raises(Drop, match="audio: longer than 1.5 s"):
        make_sample(TIMED, wav(2.0), template.task("asr"), template, SampleConfig(states=Kept(), filter=FilterConfig(max_s=1.5)))
