"""A model whose adapter shrinks speech and answers labels by queries, exported: loaded by
transformers alone it says what decoding says, alone and in a batch.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

import wenet_osum
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.hub import export
from wenet_osum.models.osum import OsumModel
from wenet_osum.records import Utterance

from ..decode.conftest import make_model, save
from .test_export import SOUNDS, TOKENS, decoded, until_end

SHRINK = {
    "adapter": "ctc_shrink",
    "adapter_conf": {"heads": 2, "ffn": 32, "label_queries": ["emotion", "gender"]},
    "losses": [
        {"name": "ctc", "weight": 0.3, "scores": "distance", "classes": [*range(10, 26)]},
        {"name": "labels", "weight": 0.1},
    ],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The model as training leaves it, and exported with its LLM alone."""
    model, template = make_model(**SHRINK)
    with torch.no_grad():
        model.llm.lm_head.weight[template.end_id] *= 2.5
    trained = save((model, template), tmp_path_factory.mktemp("shrinking"))
    out = tmp_path_factory.mktemp("hub") / "out"
    export.export(trained, out, llm=True)
    return trained, out


@pytest.mark.parametrize("task", ["ser", "srwt"])
def test_generate_says_what_decode_says(folders, task, monkeypatch):
    """Of srwt the speech stays whole, of ser it is shrunk; so the task decides what is heard."""
    _, out = folders
    model, processor = AutoModel.from_pretrained(out), AutoProcessor.from_pretrained(out)
    end = processor.template.end_id
    wanted = decoded(model, processor.template, task, monkeypatch)
    batched = model.generate(**processor(audio=SOUNDS, task=task), max_new_tokens=TOKENS)
    for (ids, looped), row, sound in zip(wanted, batched, SOUNDS, strict=True):
        alone = model.generate(**processor(audio=sound, task=task), max_new_tokens=TOKENS)[0]
        said = until_end(row, end)
        assert said == until_end(alone, end)
        assert said[: len(ids)] == ids and (looped or len(said) == len(ids))
    assert len({len(ids) for ids, _ in wanted}) > 1, "all answers are equally long"


def test_speech_is_shrunk_after_export_as_before(folders):
    trained, out = folders
    heard = []
    for model in (OsumModel.from_pretrained(trained).eval(), AutoModel.from_pretrained(out).eval()):
        inputs = AutoProcessor.from_pretrained(out)(audio=SOUNDS, task="ser")
        embeddings, mask = model.prompt_embeddings(**inputs)
        heard.append((embeddings, mask.sum(1)))
    (before, lengths), (after, others) = heard
    assert torch.equal(lengths, others) and torch.equal(before, after)
    frames = inputs["feature_lengths"]
    whole = model.speech_tokens(frames)
    assert (lengths - inputs["prompt_lengths"] - 2 < whole).any(), "nothing was shrunk"


def test_label_queries_answer_after_export_as_before(folders):
    """--mode ctc_greedy_search answers labels by the queries, without the LLM."""
    trained, out = folders
    answers = []
    for folder in (trained, out):
        model = OsumModel.from_pretrained(folder).eval()
        template = AutoProcessor.from_pretrained(out).template
        options = DecodeOptions(mode="ctc_greedy_search")
        recognizer = Recognizer(model, template, options, template.task("ser"))
        items = []
        for number, sound in enumerate(SOUNDS):
            items.append(recognizer.load(Utterance(str(number), "x"), sound))
        answers.append([row.labels for row in recognizer.decode(items)])
    assert answers[0] == answers[1]
    assert all(labels["emotion"] for labels in answers[0])


def test_llm_alone_continues_shrunk_embeddings(folders):
    _, out = folders
    model, processor = AutoModel.from_pretrained(out), AutoProcessor.from_pretrained(out)
    alone = AutoModelForCausalLM.from_pretrained(out / "llm")
    inputs = processor(audio=SOUNDS, task="ser")
    embeddings, mask = model.prompt_embeddings(**inputs)
    given = alone.generate(inputs_embeds=embeddings, attention_mask=mask, max_new_tokens=TOKENS)
    assert torch.equal(given, model.generate(**inputs, max_new_tokens=TOKENS))


def test_long_audio_is_heard_in_pieces_each_of_them_shrunk(folders):
    """What is said of a piece does not depend on what stands beside it."""
    trained, _ = folders
    m = wenet_osum.load(trained, device="cpu", max_tokens=8)
    long = np.concatenate([SOUNDS[0]] * 40)  # 40 s
    (answer,) = m([long], task="asr")
    assert not answer.error and answer.duration == pytest.approx(40.0)
    assert len(answer.pieces) > 1
    for piece in answer.pieces:
        begin, end = (round(16000 * piece[name]) for name in ("start", "end"))
        (alone,) = m([long[begin:end]], task="asr")
        assert alone.text == piece["text"]
