"""CTC greedy search on both kinds of models, and what it refuses."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wenet_osum import tasks
from wenet_osum.decode import ctc_search
from wenet_osum.decode.ctc_beam import prefix_beam_search
from wenet_osum.decode.modes import ATTENTION_RESCORING, CTC_GREEDY_SEARCH, CTC_PREFIX_BEAM_SEARCH
from wenet_osum.decode.options import DecodeOptions
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
    together = ctc_search.generate(model, template, batch, OPTIONS, counts)
    assert [answer.key for answer in together] == ["k0", "k1", "k2"] and counts["steps"] >= 20
    for row, (answer, clip) in enumerate(zip(together, features, strict=True)):
        with torch.no_grad():
            _, states, lengths = ctc_search.ctc_inputs(model, clip[None], torch.tensor([len(clip)]))
            wanted = reference(states[0, : lengths[0]])
        assert answer.text == template.decode(wanted) and answer.task == "<TRANSCRIBE>"
        [alone] = ctc_search.generate(model, template, batch_of(template, features, [ASR] * 3, [row]), OPTIONS, Counter())
        assert alone.text == answer.text
    assert any(answer.transcript for answer in together)


def test_other_tasks_are_refused_with_the_reason():
    assert ctc_search.refusal(ASR, CTC_GREEDY_SEARCH) is None
    told = ctc_search.refusal(tasks.parse("ser"), CTC_GREEDY_SEARCH)
    assert "answers <TRANSCRIBE> and, with this model, no label, not <TRANSCRIBE> <EMOTION>" in told
    heard = ("emotion", "gender")
    for task in ("ser", "<EMOTION><TRANSCRIBE>", "<GENDER>", "<TRANSCRIBE><GENDER><EMOTION>"):
        assert ctc_search.refusal(tasks.parse(task), CTC_GREEDY_SEARCH, heard) is None
    for task in ("srwt", "sttc", "sap", "<TRANSCRIBE><EMOTION><AGE>"):
        assert "with this model, emotion, gender, not" in ctc_search.refusal(tasks.parse(task), CTC_GREEDY_SEARCH, heard)


def test_models_without_ctc_are_refused(parts, monkeypatch):
    model, template = parts
    monkeypatch.setattr(model.config, "losses", [])
    with pytest.raises(ValueError, match="mode ctc_greedy_search: needs a model that was trained with ctc"):
        ctc_search.check_model(model, "mode ctc_greedy_search")
    monkeypatch.setattr(model.config, "losses", None)
    ctc_search.check_model(model, "mode ctc_greedy_search")  # an older folder does not say
    phase = whisper(template)
    ctc_search.check_model(phase, "mode ctc_greedy_search")
    phase.ctc_head = None
    with pytest.raises(ValueError, match="no CTC head"):
        ctc_search.check_model(phase, "mode ctc_greedy_search")


@pytest.mark.parametrize(
    ("mode", "more", "told"),
    [
        (CTC_GREEDY_SEARCH, {"num_beams": 2}, "has one best path, and no num_beams; use ctc_prefix_beam_search"),
        (CTC_GREEDY_SEARCH, {"temperature": 1.0}, "mode ctc_greedy_search has no use for temperature"),
        (CTC_PREFIX_BEAM_SEARCH, {"rescore": {"ctc_prefix": 0.5}}, "has no use for rescore; leave that out"),
        (ATTENTION_RESCORING, {"static_cache": True, "prefix_text": "a"}, "no use for static_cache, prefix_text"),
        (ATTENTION_RESCORING, {"ctc_draft": True, "trust_ctc": 0.1}, "no use for ctc_draft, trust_ctc"),
    ],
)
def test_options_that_a_mode_has_no_use_for_are_refused(mode, more, told):
    with pytest.raises(ValueError, match=told):
        DecodeOptions(mode=mode, **more)


def texts_of(logits, blank):
    """log P of every text by all paths that read it, the likeliest first."""
    logs = logits.double().log_softmax(-1)
    found = {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        text = tuple(token for token, _ in itertools.groupby(path) if token != blank)
        log_prob = sum(float(logs[state, token]) for state, token in enumerate(path))
        found[text] = np.logaddexp(found.get(text, -np.inf), log_prob)
    return sorted(found.items(), key=lambda item: -item[1])


@pytest.mark.parametrize(("states", "classes"), [(1, 2), (5, 3), (6, 3), (4, 4)])
def test_beams_that_are_wide_enough_find_the_sum_over_all_paths(states, classes):
    torch.manual_seed(states)
    logits = torch.randn(states, classes)
    wanted = texts_of(logits, blank=1)
    found = prefix_beam_search(logits, 1, 1000)
    assert [tuple(text) for text, _ in found] == [text for text, _ in wanted]
    assert [value for _, value in found] == pytest.approx([value for _, value in wanted])


def test_the_likeliest_text_need_not_be_that_of_the_best_path():
    """Graves' example: blanks in both states are the likeliest path, but all others together read one token."""
    logits = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    [(text, log_prob), (silent, _)] = prefix_beam_search(logits, 0, 10)
    assert (text, silent) == ([1], []) and log_prob == pytest.approx(np.log(0.64))
    assert prefix_beam_search(logits, 0, 1) != [([1], log_prob)], "a beam of one keeps the silent prefix"


def test_prefix_beam_search_is_a_mode_alone_and_in_a_batch(heard, clips, batch_of):
    model, template, _ = heard
    features, counts = clips(FRAMES), Counter()
    options = DecodeOptions(mode=CTC_PREFIX_BEAM_SEARCH, num_beams=4)
    together = ctc_search.generate(model, template, batch_of(template, features, [ASR] * 3), options, counts)
    for row, (answer, clip) in enumerate(zip(together, features, strict=True)):
        with torch.no_grad():
            _, states, lengths = ctc_search.ctc_inputs(model, clip[None], torch.tensor([len(clip)]))
            classes = model.speech_classes()
            (best, _), *_ = prefix_beam_search(classes.logits(states[0, : lengths[0]]), classes.blank, 4)
        assert answer.text == template.decode(classes.token_ids(best))
        [alone] = ctc_search.generate(model, template, batch_of(template, features, [ASR] * 3, [row]), options, Counter())
        assert alone.text == answer.text
    assert any(answer.transcript for answer in together)


def test_equal_scores_are_counted_as_ties(parts, clips, batch_of, monkeypatch):
    model, template = parts
    monkeypatch.setattr(model.config, "losses", [CTC])
    flat = torch.zeros(1, 7, 32)
    monkeypatch.setattr(model, "adapted", lambda *_: (flat, torch.tensor([7])))
    counts = Counter()
    [answer] = ctc_search.generate(model, template, batch_of(template, clips([30]), [ASR]), OPTIONS, counts)
    assert answer.flags == ["tie"] and counts["ties"] == counts["steps"] == 7
