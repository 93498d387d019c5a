"""The time written into speech: where marks lie, what they add, and that answers depend on them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModel

from wenet_osum.hub.vllm.speech import Speech
from wenet_osum.models import time_marks
from wenet_osum.models.llm_speech import speech_for_llm

TOKENS = {character: number for number, character in enumerate(time_marks.CHARACTERS)}
POINT = TOKENS["."]


def stand_in(every_s=0.4, front=0, stride=2, **adapter):
    """A model whose embeddings last 0.2 s and whose token n is embedded as (-n, -n)."""
    table = nn.Embedding.from_pretrained(-torch.arange(11.0)[:, None].expand(-1, 2))
    names = tuple("abc"[:front])
    queries = SimpleNamespace(names=names) if front else None
    return SimpleNamespace(
        adapter=SimpleNamespace(label_queries=queries, stride=stride, **adapter),
        config=SimpleNamespace(time_marks={"every_s": every_s, "tokens": TOKENS}),
        embedding_s=0.2,
        get_input_embeddings=lambda: table,
    )


def speech_of(*lengths):
    """Embeddings 100, 101, … of the first utterance, 200, 201, … of the second."""
    rows = [torch.arange(max(lengths)) + 100.0 * (n + 1) for n in range(len(lengths))]
    return torch.stack(rows)[..., None].expand(-1, -1, 2), torch.tensor(lengths)


@pytest.mark.parametrize("front", [0, 2])
def test_a_mark_stands_before_where_its_second_begins(front):
    speech, lengths = speech_of(5 + front, 3 + front)
    found, counts = speech_for_llm(stand_in(front=front), speech, lengths, ["srwt", "asr"])
    written = [100 + n for n in range(front)]
    for number, text in enumerate(["0", "0.4", "0.8"]):
        written += [-TOKENS[character] for character in text]
        begin = 100 + front + 2 * number
        written += [n for n in (begin, begin + 1) if n < 105 + front]
    assert found[0, : counts[0], 1].tolist() == written
    assert counts.tolist() == [len(written), 3 + front]
    assert found[1, : 3 + front, 0].tolist() == [200 + n for n in range(3 + front)]


def test_speech_stays_where_nothing_asks_for_times():
    speech, lengths = speech_of(5, 3)
    model = stand_in()
    for tasks in (None, ["ser", ""]):
        found, counts = speech_for_llm(model, speech, lengths, tasks)
        assert found is speech and counts is lengths
    model.config.time_marks = None
    assert speech_for_llm(model, speech, lengths, ["srwt", "srwt"])[0] is speech
    assert time_marks.added(model, lengths).tolist() == [0, 0]


def test_the_plan_counts_what_marks_add():
    model = stand_in()
    counts = torch.arange(1, 40)
    speech = torch.zeros(39, 39, 2)
    _, lengths = speech_for_llm(model, speech, counts, ["<TRANSCRIBE> <ALIGN> <EMOTION>"] * 39)
    assert torch.equal(counts + time_marks.added(model, counts), lengths)


def test_marks_have_no_gradient_and_speech_keeps_its():
    speech, lengths = speech_of(5, 3)
    speech = speech.clone().requires_grad_()
    found, _ = speech_for_llm(stand_in(), speech, lengths, ["srwt", "srwt"])
    found.sum().backward()
    assert speech.grad[0].min() == 1 and speech.grad[1, :3].min() == 1
    assert speech.grad[1, 3:].abs().max() == 0


def test_long_recordings_have_whole_seconds():
    ids, sizes = time_marks.written({"every_s": 0.4, "tokens": TOKENS}, 31)
    assert ids[-2:].tolist() == [1, 2] and sizes[-1] == 2, "12 s"
    assert ids[-6:-2].tolist() == [1, 1, POINT, 6], "11.6 s"


@pytest.mark.parametrize(
    ("every_s", "adapter", "message"),
    [
        (0.3, {}, "embedding of speech is 0.2 s long"),
        (0.05, {}, "must be a multiple"),
        (0.4, {"shrinker": None, "unshrunk": ()}, "set adapter_conf.unshrunk"),
    ],
)
def test_what_cannot_have_marks_is_refused(every_s, adapter, message):
    model = stand_in(**adapter)
    with pytest.raises(ValueError, match=message):
        time_marks.begin(model, every_s, lambda text: [7, TOKENS[text]])


def test_a_model_is_told_its_tokens():
    model = stand_in()
    time_marks.begin(model, 0.8, lambda text: [7, TOKENS[text]])
    assert model.config.time_marks == {"every_s": 0.8, "tokens": TOKENS}


TASKS = ["srwt", "ser", "srwt"]


@pytest.fixture
def marked(model):
    """Embeddings of 0.08 s, a mark before every second one."""
    time_marks.begin(model, 0.16, lambda text: [20 + TOKENS[text]])
    return model


def test_packed_equals_padded_equals_alone(marked, either, take, as_batch):
    def loss_of(fields, tasks):
        batch = as_batch(fields)
        batch.tasks = tasks
        return marked(batch)

    packed = loss_of(either, TASKS)
    alone = [loss_of(take(either, row), TASKS[row : row + 1]) for row in range(3)]
    torch.testing.assert_close(packed.nll, torch.cat([one.nll for one in alone]), atol=2e-5, rtol=0)
    most = marked.speech_tokens(either["feature_lengths"])
    assert packed.speech_lengths.tolist() == [most[0], 7, most[2]]
    assert not torch.equal(packed.nll, loss_of(either, ["asr"] * 3).nll)

    inputs = {name: value for name, value in either.items() if not name.startswith("answer")}
    ask = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    together = marked.generate(**inputs, tasks=TASKS, **ask)
    for row in range(3):
        one = marked.generate(**take(inputs, row), tasks=TASKS[row : row + 1], **ask)
        assert one[0].tolist() == together[row].tolist()


def test_it_is_saved_with_the_model(marked, batch, as_batch, tmp_path):
    marked.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    fields = as_batch(batch)
    fields.tasks = TASKS
    assert torch.equal(loaded(fields).nll, marked(fields).nll)
    assert loaded.config.time_marks == marked.config.time_marks


def test_vllm_is_not_served_with_what_it_cannot_count(marked):
    with pytest.raises(ValueError, match="time_marks: .*feed it prompt embeddings"):
        Speech(marked.config)
