"""Targets, prompts and tokenizers: field borders, control tokens in user text, prompt tables."""

import pytest

from wenet_osum.records import Utterance, Word
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

LINES = ["the red cat sees a dog", "小猫喜欢红花", "two plus three"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES, vocab_size=900)


UTTERANCE = Utterance(key="k", wav="w", txt="the red cat <|endoftext|>\nsees 小猫。", labels={"emotion": "happy"}, lang="en")


def test_tokens_are_words_characters_and_digits(tokenizer):
    template = Template(tokenizer)
    assert [tokenizer.decode([i]) for i in template.encode("the cat 小猫 12<0.53>")] == ["the", " cat", " ", "小", "猫", " ", "1", "2", *"<0.53>"]


def test_a_time_seen_in_training_is_two_tokens():
    timed = ["<0.51>the<0.60> <0.64>cat<1.03>", "<0.51>小<0.73><0.73>猫<1.04>"] * 9
    template = Template(train_tokenizer([*LINES, *timed], vocab_size=900))
    pieces = [template.tokenizer.decode([i]) for i in template.encode("<0.53>the<1.01> <0.60>cat<1.04>")]
    assert pieces == ["<0.5", "3>", "the", "<1.0", "1>", " <0.6", "0>", "cat", "<1.0", "4>"]


def test_a_tokenizer_in_a_folder_of_qwen2_is_still_the_one_that_was_trained(tmp_path):
    from wenet_osum.small.models import SmallLlm, small_llm

    timed = train_tokenizer([*LINES, *["<0.51>the<0.62> <0.64>cat<1.03>"] * 9], vocab_size=900)
    small_llm(SmallLlm(width=8, layers=1, heads=2, kv_heads=1, ffn=8), timed).save_pretrained(tmp_path)
    timed.save_pretrained(str(tmp_path))
    text = "the cat 小猫<0.53>the<1.01> <0.60>cat"
    assert Template.load(tmp_path).encode(text) == Template(timed).encode(text)


@pytest.mark.parametrize("target_tokenization", ["by_field", "whole"])
def test_target_reads_back_and_ends_exactly_once(tokenizer, target_tokenization):
    template = Template(tokenizer, target_tokenization=target_tokenization, loss_weight={"emotion": 2.0})
    task = template.task("ser")
    target = template.target(task, UTTERANCE)
    assert target.ids.count(template.end_id) == 1 and target.ids[-1] == template.end_id
    reading = task.read(template.decode(target.ids))
    assert reading.transcript == "the red cat <|endoftext|> sees 小猫。"
    assert reading.labels == {"emotion": "happy"}
    label = len(template.label_ids(task.fields[1])["happy"])
    assert target.weights[-1 - label :] == [2.0] * label + [1.0]
    assert set(target.weights[: -1 - label]) == {1.0}
    assert target.labels[-1 - label :] == [True] * label + [False]
    assert target.transcripts == [True] * (len(target.ids) - 1 - label) + [False] * (label + 1)


def test_label_starts_at_a_token_border(tokenizer):
    template = Template(tokenizer)
    task = template.task("ser")
    ids = template.target(task, UTTERANCE).ids
    label = template.label_ids(task.fields[1])["happy"]
    assert ids[-1 - len(label) : -1] == label


def test_lowercase_only_when_asked(tokenizer):
    utterance = Utterance(key="k", wav="w", txt="The CAT")
    assert Template(tokenizer).decode(Template(tokenizer).target(Template(tokenizer).task("asr"), utterance).ids) == "The CAT"
    lower = Template(tokenizer, lowercase=True)
    assert lower.decode(lower.target(lower.task("asr"), utterance).ids) == "the cat"


def test_prompt_draws_are_fixed_by_seed_epoch_key(tokenizer):
    template = Template(tokenizer)
    task = template.task("asr")
    draws = [tuple(template.draw_prompt_ids(task, 1, 0, f"k{i}")) for i in range(200)]
    assert draws == [tuple(template.draw_prompt_ids(task, 1, 0, f"k{i}")) for i in range(200)]
    assert len(set(draws)) == 10, "five Chinese and five English prompts should all be drawn"


def test_own_prompts_replace_the_built_in_ones(tokenizer, tmp_path):
    path = tmp_path / "prompts.yaml"
    path.write_text("'<TRANSCRIBE> <EMOTION>': [写下并判断, 另一句]\nasr: {en: [Go]}\n", encoding="utf-8")
    template = Template(tokenizer, prompts=path)
    assert template.prompt_text(template.task("ser")) == "写下并判断"
    assert template.prompt_text(template.task("asr"), "en") == "Go"
    with pytest.raises(ValueError, match="no 'zh' prompts"):
        template.prompt_text(template.task("asr"), "zh")
    with pytest.raises(ValueError, match="must be"):
        Template(tokenizer, prompts={"asr": {"fr": ["x"]}})


def test_saved_settings_come_back(tokenizer, tmp_path):
    template = Template(tokenizer, labels={"emotion": ["happy", "bored"]}, target_tokenization="whole", lowercase=True)
    template.save(tmp_path)
    again = Template.load(tmp_path)
    assert again.task("ser").fields[1].labels.names == ("happy", "bored")
    assert (again.target_tokenization, again.lowercase, again.end_id) == ("whole", True, template.end_id)
    assert again.encode("the red cat") == template.encode("the red cat")


def test_a_loss_weight_for_no_field_is_refused(tokenizer):
    with pytest.raises(ValueError, match="loss_weight: .*emotoin.*did you mean 'emotion'"):
        Template(tokenizer, loss_weight={"emotoin": 4.0})


def test_every_seed_and_epoch_draws_prompts_anew(tokenizer):
    template = Template(tokenizer)
    task = template.task("asr")
    first, *others = [[template.draw_prompt(task, seed, epoch, f"k{i}") for i in range(50)] for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    for other in others:
        assert sum(a == b for a, b in zip(first, other, strict=True)) < 15, "one in ten by chance"


def test_words_are_found_in_a_transcript_in_lower_case(tokenizer):
    words = [Word("The", 0.1, 0.3), Word("CAT", 0.3, 0.7)]
    ids, spans = Template(tokenizer, lowercase=True).transcript(Utterance("k", "w", "The CAT", words=words))
    assert tokenizer.decode(ids) == "the cat" and spans == [(0.1, 0.3), (0.3, 0.7)]


def test_a_token_across_a_border_belongs_to_the_field_it_begins_in(tokenizer, monkeypatch):
    template = Template(tokenizer, target_tokenization="whole", loss_weight={"emotion": 2.0})
    pieces = [(0, 2), (2, 5), (5, 10)]  # "ab", "c<h" and "appy>"
    monkeypatch.setattr("wenet_osum.text.template.encode_with_offsets", lambda tokenizer, text: ([5, 6, 7], pieces))
    target = template.target(template.task("ser"), Utterance("k", "w", "abc", labels={"emotion": "happy"}))
    assert target.transcripts == [True, True, False, False] and target.weights == [1.0, 1.0, 2.0, 1.0]
