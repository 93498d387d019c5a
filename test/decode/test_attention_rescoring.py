"""Attention rescoring: CTC's transcripts, scored as wholes by the LLM or Whisper's decoder; alone as in a batch."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from wenet_osum import tasks
from wenet_osum.decode import attention_rescoring, prefix
from wenet_osum.decode.attention_rescoring import RESCORED, end_of
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.generate import generate
from wenet_osum.decode.options import DecodeOptions

FRAMES = [90, 41, 12]
HEARD = {"the cat sat": -1.0, "the cat": -2.5, "": -4.0, "a dog was here": -3.0}


@pytest.fixture
def heard(monkeypatch):
    """CTC hears the same transcripts in every utterance."""

    def propose(rows, *_):
        for row in rows:
            row.candidates = dict(HEARD)

    monkeypatch.setattr(attention_rescoring, "propose", propose)


def answers(parts, clips, batch_of, task, order=None, counts=None, **more):
    model, template = parts
    asked = [tasks.parse(task)] * len(FRAMES)
    batch = batch_of(template, clips(FRAMES), asked, order)
    options = DecodeOptions(mode="attention_rescoring", **more)
    return generate(model, template, batch, asked[: len(order or FRAMES)], options, counts)


def by_llm(model, template, batch, text, ending):
    """log P of each utterance's transcript with its end, by one plain forward pass apiece."""
    from wenet_osum.models.layout import Question

    ids = [*template.encode(text), *ending]
    embeds, mask = model.prompt_embeddings(*vars(Question.of(batch)).values())
    found = []
    for row in range(len(mask)):
        prompt = embeds[row][mask[row].bool()]
        said = model.get_input_embeddings()(torch.tensor(ids[:-1], dtype=torch.long))
        logits = model.llm(inputs_embeds=torch.cat([prompt, said])[None]).logits[0, -len(ids) :]
        logs = logits.float().log_softmax(-1)
        found.append(float(logs[torch.arange(len(ids)), torch.tensor(ids)].sum()))
    return found


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("task", ["asr", "ser"])
def test_the_joint_score_of_whole_transcripts_decides(parts, clips, batch_of, heard, task, weight):
    model, template = parts
    asked = tasks.parse(task)
    ending = end_of(AnswerState(template, asked))
    assert ending == [template.end_id] if task == "asr" else template.decode(ending).startswith("<")
    batch = batch_of(template, clips(FRAMES), [asked] * 3)
    with torch.no_grad():
        scores = {text: by_llm(model, template, batch, text, ending) for text in HEARD}
    counts = Counter()
    found = answers(parts, clips, batch_of, task, counts=counts, rescore={"ctc_prefix": weight})
    for row, answer in enumerate(found):
        joint = {text: (1 - weight) * scores[text][row] + weight * ctc for text, ctc in HEARD.items()}
        best = max(joint, key=joint.get)
        assert answer.text.startswith(best) and (answer.transcript == best or task == "ser")
        assert (list(answer.probs) == ["emotion"]) == (task == "ser")
    assert counts[RESCORED] == 3 * len(HEARD)


def test_one_pass_stands_for_all_tokens(parts, clips, batch_of, heard, monkeypatch):
    passes = Counter()
    forward = prefix.Prefixes._forward

    def counted(self, inputs, *arguments, **keywords):
        passes["scored" if "rows" in keywords else "read" if "input_ids" in inputs else "prompts"] += 1
        return forward(self, inputs, *arguments, **keywords)

    monkeypatch.setattr(prefix.Prefixes, "_forward", counted)
    answers(parts, clips, batch_of, "asr")
    assert passes == {"prompts": 1, "scored": 1}


@pytest.mark.parametrize("task", ["asr", "ser", "sttc", "srwt", "<EMOTION><TRANSCRIBE>"])
def test_alone_as_in_a_batch_and_other_tasks_as_ever(parts, clips, batch_of, task, monkeypatch):
    model, template = parts
    monkeypatch.setattr(model.config, "losses", [{"name": "ctc", "weight": 1.0}])
    together = answers(parts, clips, batch_of, task, max_tokens=12, num_beams=3)
    for row in range(len(FRAMES)):
        [alone] = answers(parts, clips, batch_of, task, [row], max_tokens=12, num_beams=3)
        assert (alone.text, alone.labels) == (together[row].text, together[row].labels)
    if task in ("sttc", "srwt", "<EMOTION><TRANSCRIBE>"):
        asked = [tasks.parse(task)] * 3
        greedy = generate(model, template, batch_of(template, clips(FRAMES), asked), asked, DecodeOptions(max_tokens=12))
        assert [answer.text for answer in greedy] == [answer.text for answer in together]


def test_ways_to_write_the_same_text_are_one_transcript(parts, monkeypatch):
    from types import SimpleNamespace

    from wenet_osum.decode.generate import make_row

    _, template = parts
    ids = template.encode("the")
    letters = [template.encode(letter)[0] for letter in "the"]
    paths = [(ids, -1.0), (letters, -1.0), ([], -2.0)]
    monkeypatch.setattr(attention_rescoring, "prefix_beam_search", lambda *_: paths)
    classes = SimpleNamespace(logits=lambda states: states, blank=0, token_ids=lambda path: path)
    options = DecodeOptions(mode="attention_rescoring")
    row = make_row(template, "k", tasks.parse("asr"), 1.0, options)
    attention_rescoring.propose([row], [torch.zeros(1, 2)], classes, template, options)
    assert row.candidates == {"the": pytest.approx(-1.0 + 0.693147), "": -2.0}
