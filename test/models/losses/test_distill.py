"""Distillation from the LLM that reads: against transformers' own model, utterance by utterance."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from wenet_osum.config import LoraConfig, ModelConfig
from wenet_osum.dataset.batch import join_targets
from wenet_osum.models.losses import distill
from wenet_osum.models.objective import make_objective
from wenet_osum.models.osum import OsumModel
from wenet_osum.records import Batch, Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.tasks import parse
from wenet_osum.text.template import Template

TEXTS = ["red cat", "a cat sat", "", "red hat"]
TASKS = ["sttc", "asr", "sttc", "sttc"]
T = 3.0


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(["red cat sat a hat"] * 9, 320))


@pytest.fixture(scope="module")
def folders(template, tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("parts")
    whisper = WhisperConfig(
        vocab_size=64,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_mel_bins=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=2,
    )
    WhisperForConditionalGeneration(whisper).save_pretrained(root / "whisper")
    llm = Qwen2Config(
        vocab_size=len(template.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,  # so that its answers differ
        eos_token_id=template.end_id,
    )
    Qwen2ForCausalLM(llm).save_pretrained(root / "llm")
    return root


def objective(template, **keys):
    entry = {"name": "distill", "weight": 0.5, "temperature": T} | keys
    return make_objective(ModelConfig(losses=[entry]), template)


@pytest.fixture
def model(folders, template):
    torch.manual_seed(1)
    conf = {"layers": 1, "heads": 4, "ffn": 32}
    model = OsumModel.from_parts(folders / "whisper", folders / "llm", adapter_conf=conf)
    model.add_lora(LoraConfig(r=4, targets=["q_proj", "v_proj"]))
    model.llm.requires_grad_(False)
    for name, weight in model.llm.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
            weight.requires_grad_(True)
    model.set_objective(objective(template))
    return model.eval()


def targets(template, texts):
    loss = distill.Loss(template)
    return join_targets([loss.targets(Utterance("", "", text)) for text in texts])


@pytest.fixture
def batch(template):
    """Four utterances: asked and known, asked something else, asked without a transcript, known."""
    torch.manual_seed(2)
    frames, prompts, answers = [61, 50, 33, 41], [3, 2, 4, 3], [5, 3, 4, 2]
    features = torch.randn(4, 61, 8)
    for row, length in enumerate(frames):
        features[row, length:] = 0.0
    tags = [parse(task).tags for task in TASKS]
    return Batch(
        keys=list("abcd"),
        tasks=tags,
        features=features,
        feature_lengths=torch.tensor(frames),
        prompt_ids=torch.randint(3, 300, (sum(prompts),)),
        prompt_lengths=torch.tensor(prompts),
        answer_ids=torch.randint(3, 300, (sum(answers),)),
        answer_lengths=torch.tensor(answers),
        answer_weights=torch.ones(sum(answers)),
        suffix_ids=torch.tensor([7, 9]),
        targets=targets(template, TEXTS),
    )


def of_row(batch, template, row):
    """The batch of one utterance alone."""
    prompts = batch.prompt_ids.split(batch.prompt_lengths.tolist())
    answers = batch.answer_ids.split(batch.answer_lengths.tolist())
    length = batch.feature_lengths[row]
    return Batch(
        keys=[batch.keys[row]],
        tasks=[batch.tasks[row]],
        features=batch.features[row : row + 1, :length],
        feature_lengths=batch.feature_lengths[row : row + 1],
        prompt_ids=prompts[row],
        prompt_lengths=batch.prompt_lengths[row : row + 1],
        answer_ids=answers[row],
        answer_lengths=batch.answer_lengths[row : row + 1],
        answer_weights=torch.ones(len(answers[row])),
        suffix_ids=batch.suffix_ids,
        targets=targets(template, [TEXTS[row]]),
    )


def logits(llm, model, one, middle):
    """The logits (A, V) of one utterance's answer by transformers, with ``middle`` as its speech."""
    embed = llm.get_input_embeddings()
    start, end = model.speech_boundary.weight
    rows = [embed(one.prompt_ids), start[None], middle, end[None]]
    rows += [embed(one.suffix_ids), embed(one.answer_ids)]
    found = llm(inputs_embeds=torch.cat(rows)[None]).logits[0]
    answers = len(one.answer_ids)
    return found[-answers - 1 : -1]


def slow(model, folders, one, template, row):
    """The divergence at each answer token, by two ordinary models and torch's own function."""
    read = template.transcript(Utterance("", "", TEXTS[row]))[0]
    reader = Qwen2ForCausalLM.from_pretrained(folders / "llm").eval()
    middle = reader.get_input_embeddings()(torch.tensor(read))
    wanted = logits(reader, model, one, middle) / T
    heard, _ = model.padded_speech(one.features, one.feature_lengths)
    merged = copy.deepcopy(model)
    merged.merge_lora()
    found = logits(merged.llm, model, one, heard[0]) / T
    pairs = found.log_softmax(-1), wanted.softmax(-1)
    return functional.kl_div(*pairs, reduction="none").sum(-1)


def extra(model, batch):
    """What the loss adds to the cross-entropy."""
    output = model(batch)
    return output.loss - output.nll.sum(), output


def assert_counted(model, folders, one, template, places):
    """Of the answer of row 0 alone, the tokens at ``places`` and no others count."""
    each = slow(model, folders, one, template, 0)
    found, _ = extra(model, one)
    torch.testing.assert_close(found, 0.5 * each[places].sum(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_teacher_reads_without_lora(model, folders, template, batch):
    found, output = extra(model, batch)
    expected = 0.0
    for row in (0, 3):
        one = of_row(batch, template, row)
        expected += slow(model, folders, one, template, row).sum()
    torch.testing.assert_close(found, 0.5 * expected, rtol=1e-4, atol=1e-4)
    assert expected > 0.1
    assert {k: int(v) for k, v in output.left_out.items()} == {distill.NO_TRANSCRIPT: 1}


@torch.no_grad()
def test_alone_as_in_a_batch(model, template, batch):
    together, _ = extra(model, batch)
    alone = [extra(model, of_row(batch, template, row))[0] for row in range(4)]
    torch.testing.assert_close(together, sum(alone), rtol=1e-4, atol=1e-4)
    assert abs(float(alone[1])) < 1e-5 and abs(float(alone[2])) < 1e-5


@torch.no_grad()
def test_tokens_of_labels_do_not_count(model, folders, template, batch):
    one = of_row(batch, template, 0)
    one.answer_labels = torch.tensor([False, True, True, False, False])
    assert_counted(model, folders, one, template, [0, 3, 4])


@torch.no_grad()
def test_a_transcript_before_a_reply_does_not_count(model, folders, template, batch):
    """The teacher was not told to transcribe first: what it says there is no answer to learn."""
    one = of_row(batch, template, 0)
    one.answer_transcripts = torch.tensor([True, True, False, False, False])
    assert_counted(model, folders, one, template, [2, 3, 4])
    # Where the transcript is the answer, it counts.
    model.set_objective(objective(template, tasks=["asr"]))
    one.tasks = [parse("asr").tags]
    assert_counted(model, folders, one, template, [0, 1, 2, 3, 4])


@torch.no_grad()
def test_other_tasks_can_be_distilled(model, folders, template, batch):
    model.set_objective(objective(template, tasks=["asr"]))
    found, output = extra(model, batch)
    each = slow(model, folders, of_row(batch, template, 1), template, 1)
    torch.testing.assert_close(found, 0.5 * each.sum(), rtol=1e-4, atol=1e-4)
    assert int(output.left_out[distill.NO_TRANSCRIPT]) == 0


def test_speech_learns_and_the_teacher_does_not(model, batch):
    model.objective.ce_weight = 1e-9
    model.train()(batch).loss.backward()
    trained = [weight for name, weight in model.llm.named_parameters() if "lora_" in name]
    assert all(weight.grad.abs().sum() > 0 for weight in trained)
    assert model.adapter.output.weight.grad.abs().sum() > 0
    assert model.llm.get_input_embeddings().weight.grad is None


def test_where_speech_says_what_the_text_says_nothing_is_to_learn(model, template, batch):
    """With new LoRA adapters, which change nothing, and the words' embeddings as speech."""
    for name, weight in model.llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(weight)
    one = of_row(batch, template, 0)
    ids = torch.tensor(template.transcript(Utterance("", "", TEXTS[0]))[0])
    speech = model.get_input_embeddings()(ids)[None]
    model._adapted = lambda *_: (speech, torch.tensor([len(ids)]))
    assert abs(float(extra(model, one)[0].detach())) < 1e-5


def test_many_tokens_are_done_in_pieces(monkeypatch):
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 11)
    student, teacher = torch.randn(2, 9, 6)
    student.requires_grad_(True)
    whole = distill.kl(head, student, teacher, T)
    whole.sum().backward()
    gradient = student.grad.clone()
    student.grad = None
    monkeypatch.setattr(distill, "CHUNK", 4)
    pieces = distill.kl(head, student, teacher, T)
    pieces.sum().backward()
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(student.grad, gradient)


def test_an_llm_that_trains_is_no_teacher(model, batch):
    model.llm.lm_head.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="distill: llm.*trains.*train LoRA only"):
        model(batch)


def test_bad_keys_are_refused(template):
    with pytest.raises(ValueError, match="temperature 0 must be above 0"):
        objective(template, temperature=0)
    with pytest.raises(ValueError, match="model.losses distill: .*sttd"):
        objective(template, tasks=["sttd"])
    conf = ModelConfig(ce_weight=0.0, losses=[{"name": "distill", "weight": 1.0}])
    with pytest.raises(ValueError, match="distill: is computed on the answers.*ce_weight above 0"):
        make_objective(conf, template)


@torch.no_grad()
def test_of_tasks_side_by_side_each_counts_its_own_tokens(model, folders, template, batch):
    """Transcripts do not count where a reply follows, and do in the row beside it, where they are the answer."""
    model.set_objective(objective(template, tasks=["sttc", "asr"]))
    batch.answer_transcripts = torch.zeros(14, dtype=torch.bool)
    batch.answer_transcripts[0:2] = batch.answer_transcripts[5:8] = True
    expected = 0.0
    for row, places in ((0, [2, 3, 4]), (1, [0, 1, 2]), (3, [0, 1])):
        each = slow(model, folders, of_row(batch, template, row), template, row)
        expected += each[places].sum()
    found, _ = extra(model, batch)
    torch.testing.assert_close(found, 0.5 * expected, rtol=1e-4, atol=1e-4)
