"""CTC greedy search on both kinds of models, and what it refuses."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wenet_osum import tasks
from wenet_osum.decode import ctc_greedy
from wenet_osum.decode.options import CTC_GREEDY_SEARCH, DecodeOptions
from wenet_osum.models.whisper import WhisperPhase

OPTIONS = DecodeOptions(mode=CTC_GREEDY_SEARCH)
FRAMES = [90, 41, 12]
ASR = tasks.parse("asr")
CTC = {"name": "ctc", "weight": 1.0}


def whisper(template):
    """A phase 1 with a CTC head."""
    torch.manual_seed(5)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    config = WhisperConfig(vocab_size=len(template.tokenizer), num_mel_bins=8, encoder_ffn_dim=32, decoder_ffn_dim=32, init_std=0.5, **sizes, **ids)
    model = WhisperPhase(WhisperForConditionalGeneration(config)).eval()
    model.add_ctc_head(model.blank)
    return model


def slow(logits, blank):
    """Best path of one utterance, state by state."""
    path = [max(range(len(row)), key=row.__getitem__) for row in logits.tolist()]
    return [token for token, _ in itertools.groupby(path) if token != blank]



@pytest.fixture(params=["dot", "classes", "whisper"])
def heard(request, parts, monkeypatch):
    """(model, template, logits and blank of an utterance alone → token ids)"""
    model, template = parts
    if request.param == "whisper":
        model = whisper(template)
        return model, template, lambda states: slow(model.ctc_head(states), model.blank)
    table = model.get_input_embeddings().weight
    end = template.end_id
    if request.param == "dot":
        monkeypatch.setattr(model.config, "losses", [CTC])
        return model, template, lambda s: slow(torch.nn.functional.rms_norm(s, (32,)) @ table.T, end)
    some = [5, 30, 77, 120, 200]
    kept = CTC | {"scores": "distance", "classes": some}
    monkeypatch.setattr(model.config, "losses", [kept])
    rows = table[[*some, end]]

    def by_distance(states):
        far = torch.cdist(states, rows)
        return [some[number] for number in slow(-far, len(some))]

    return model, template, by_distance


def test_it_is_the_best_path_alone_and_in_a_batch(heard, clips, batch_of):
    model, template, reference = heard
    features, counts = clips(FRAMES), Counter()
    batch = batch_of(template, features, [ASR] * 3)
    together = ctc_greedy.generate(model, template, batch, OPTIONS, counts)
    assert [answer.key for answer in together] == ["k0", "k1", "k2"] and counts["steps"] >= 20
    for row, (answer, clip) in enumerate(zip(together, features, strict=True)):
        with torch.no_grad():
            _, states, lengths = ctc_greedy.ctc_inputs(model, clip[None], torch.tensor([len(clip)]))
            wanted = reference(states[0, : lengths[0]])
        assert answer.text == template.decode(wanted) and answer.task == "<TRANSCRIBE>"
        [alone] = ctc_greedy.generate(model, template, batch_of(template, features, [ASR] * 3, [row]), OPTIONS, Counter())
        assert alone.text == answer.text
    assert any(answer.transcript for answer in together)


def test_other_tasks_are_refused_with_the_reason():
    assert ctc_greedy.refusal(ASR) is None
    told = ctc_greedy.refusal(tasks.parse("ser"))
    assert "answers <TRANSCRIBE> and, with this model, no label, not <TRANSCRIBE> <EMOTION>" in told
    heard = ("emotion", "gender")
    for task in ("ser", "<EMOTION><TRANSCRIBE>", "<GENDER>", "<TRANSCRIBE><GENDER><EMOTION>"):
        assert ctc_greedy.refusal(tasks.parse(task), heard) is None
    for task in ("srwt", "sttc", "sap", "<TRANSCRIBE><EMOTION><AGE>"):
        assert "with this model, emotion, gender, not" in ctc_greedy.refusal(tasks.parse(task), heard)


def test_models_without_ctc_are_refused(parts, monkeypatch):
    model, template = parts
    monkeypatch.setattr(model.config, "losses", [])
    with pytest.raises(ValueError, match="mode ctc_greedy_search: needs a model that was trained with ctc"):
        ctc_greedy.check_model(model, "mode ctc_greedy_search")
    monkeypatch.setattr(model.config, "losses", None)
    ctc_greedy.check_model(model, "mode ctc_greedy_search")  # an older folder does not say
    phase = whisper(template)
    ctc_greedy.check_model(phase, "mode ctc_greedy_search")
    phase.ctc_head = None
    with pytest.raises(ValueError, match="no CTC head"):
        ctc_greedy.check_model(phase, "mode ctc_greedy_search")


@pytest.mark.parametrize("more", [{"num_beams": 2}, {"temperature": 1.0}, {"rescore": {"ctc_prefix": 0.5}}])
def test_a_best_path_has_neither_beams_nor_draws(more):
    with pytest.raises(ValueError, match="mode ctc_greedy_search has one best path"):
        DecodeOptions(mode=CTC_GREEDY_SEARCH, **more)


def test_equal_scores_are_counted_as_ties(parts, clips, batch_of, monkeypatch):
    model, template = parts
    monkeypatch.setattr(model.config, "losses", [CTC])
    flat = torch.zeros(1, 7, 32)
    monkeypatch.setattr(model, "adapted", lambda *_: (flat, torch.tensor([7])))
    counts = Counter()
    [answer] = ctc_greedy.generate(model, template, batch_of(template, clips([30]), [ASR]), OPTIONS, counts)
    assert answer.flags == ["tie"] and counts["ties"] == counts["steps"] == 7
