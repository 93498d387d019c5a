"""The repeat gate: an LLM that repeats text in the place of speech may be trained, another not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from wenet_osum import config
from wenet_osum.bin import repeat_gate as command
from wenet_osum.models import build
from wenet_osum.models.layout import START
from wenet_osum.records import Utterance
from wenet_osum.small import models as small
from wenet_osum.text import chat
from wenet_osum.text.template import Template
from wenet_osum.train import loop, repeat_gate
from wenet_osum.train.start import open_model

CPU = torch.device("cpu")
SIZES = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 32}


@pytest.fixture(scope="module")
def instruct(tiny, chat_tokenizer, tmp_path_factory) -> Path:
    """A random LLM with a chat template: it cannot repeat anything."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("instruct")
    conf = config.from_dict({"llm": SIZES}, small.SmallModels)
    small.small_llm(conf.llm, chat_tokenizer).save_pretrained(folder)
    chat_tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def conf_of(tiny, instruct):
    """conf_of(**changes): a run of two steps in a chat with that LLM; ``model`` is changed key by key."""

    def make(**changes):
        tree = tiny.tree(template="chat", max_steps=2)
        tree["model"] |= {"llm": str(instruct)} | changes.pop("model", {})
        tree["model"] = {name: value for name, value in tree["model"].items() if value is not None}
        return config.from_dict(tree | changes)

    return make


@pytest.fixture
def parrot(monkeypatch):
    """In the place of the search: say what lies between the borders, then end the turn.

    Collects the texts before and behind what it repeats, and turns the words it is told to.
    """
    seen, wrong = [], {}

    def answer(prompts, rows, options, counts):
        table = prompts.llm.get_input_embeddings().weight
        for row, vectors, kept in zip(rows, prompts.embeds, prompts.mask.bool(), strict=True):
            template = row.answer_state.template
            ids = torch.cdist(vectors[kept], table).argmin(1).tolist()
            asked = len(template.encode_prompt(config.REPEAT_PROMPT))
            said = ids[asked + 1 : -len(template.suffix_ids) - 1]
            seen.append([ids[:asked], ids[asked], ids[-len(template.suffix_ids) - 1], row.max_tokens])
            for token in [*template.encode(wrong.get(template.decode(said), template.decode(said))), template.end_id]:
                row.take(token)

    monkeypatch.setattr(repeat_gate, "answer", answer)
    return seen, wrong


def test_transcripts_stand_in_the_place_of_the_speech(conf_of, tiny, parrot):
    conf = conf_of()
    data = config.load(tiny.data, config.DataConfig)
    model, template = open_model(conf, None)
    said = repeat_gate.check_run(conf, data, model, template, CPU)
    assert said == "repeat gate: WER 0.0 % of 5 transcripts that the LLM was to repeat"
    before, start, end, most = parrot[0][0]
    assert before == template.encode_prompt(config.REPEAT_PROMPT)
    newline = template.encode("\n")[0]
    assert (start, end) == (newline, newline), "the boundary of a new model is read as line breaks"
    assert most > repeat_gate.SPARE


def test_an_llm_that_answers_otherwise_stops_the_run(conf_of, tiny, parrot, tmp_path):
    listed = [json.loads(line)["txt"] for line in tiny.dev.read_text().splitlines()]
    parrot[1][listed[0]] = "two two two two two two"
    with pytest.raises(ValueError) as stopped:
        loop.train(conf_of(), tmp_path)
    said = str(stopped.value)
    for part in (repr(listed[0]), "'two two two two two two'", "above repeat_gate.max_wer 5", "repeat_gate: {utterances: 0} turns it off", "end of turn '<|im_end|>', which 0 of 5"):
        assert part in said, part
    assert not list(tmp_path.glob("step_*"))
    gate = {"max_wer": 100.0}
    assert loop.train(conf_of(repeat_gate=gate), tmp_path) == 0
    assert "repeat gate: WER " in (tmp_path / "train.log").read_text()


def test_a_random_llm_fails_by_the_search_of_decoding(conf_of, tiny):
    conf = conf_of()
    model, template = open_model(conf, None)
    utterances = repeat_gate.with_transcripts([str(tiny.dev)], template, 3)
    assert len(utterances) == 3
    found = repeat_gate.repeat(model.llm, model.speech_boundary, template, utterances)
    alone = [repeat_gate.repeat(model.llm, model.speech_boundary, template, [u]) for u in utterances]
    answers = {key: answer.text for one in alone for key, answer in one.answers.items()}
    assert {key: answer.text for key, answer in found.answers.items()} == answers
    with pytest.raises(ValueError, match="above repeat_gate.max_wer 5"):
        found.check(5.0)


def no_search(*_):
    raise AssertionError("the LLM was asked")


@pytest.mark.parametrize(
    "changes",
    [
        {"template": "plain"},
        {"repeat_gate": {"utterances": 0}},
        {
            "model": {"ce_weight": 0.0, "losses": [{"name": "ctc", "weight": 1.0}], "lora": None},
            "train_parts": {"adapter.*": {}},
        },
    ],
    ids=["plain", "no utterances", "no llm"],
)
def test_runs_without_a_gate(conf_of, tiny, monkeypatch, changes):
    monkeypatch.setattr(repeat_gate, "answer", no_search)
    conf = conf_of(**changes)
    data = config.load(tiny.data, config.DataConfig)
    assert repeat_gate.check_run(conf, data, *open_model(conf, None), CPU) is None


def test_a_run_in_a_chat_goes_on_and_is_taken_over(conf_of, parrot, tmp_path, monkeypatch):
    first = tmp_path / "first"
    assert loop.train(conf_of(system="Be brief."), first) == 0
    settings = json.loads((first / "final/text.json").read_text())
    assert (settings["template"], settings["system"]) == ("chat", "Be brief.")
    assert "sanity end      passed" in (first / "train.log").read_text()

    # Going on does not ask again.
    monkeypatch.setattr(repeat_gate, "answer", no_search)
    assert loop.train(conf_of(system="Be brief.", max_steps=3), first) == 0
    assert (first / "train.log").read_text().count("repeat gate: ") == 1

    # Neither does a model whose LoRA has learned; layout and boundary are those of its folder.
    begun = {"init_from": str(first / "final"), "whisper": None, "llm": None, "adapter_conf": None}
    conf = conf_of(model=begun, template=None)
    data = config.load(conf.data, config.DataConfig)
    model, template = open_model(conf, None)
    assert (template.template, template.system) == ("chat", "Be brief.")
    assert torch.equal(model.speech_boundary.weight, build.load(first / "final").speech_boundary.weight)
    assert "not held, the LLM's LoRA" in repeat_gate.check_run(conf, data, model, template, CPU)
    plain = open_model(conf_of(model=begun, template="plain"), None)[1]
    assert (plain.template, plain.system) == ("plain", None)
    other = open_model(conf_of(model=begun, system="Be kind."), None)[1]
    assert other.system == "Be kind."


def test_a_plain_model_that_becomes_a_chat_gets_its_boundary(conf_of, tmp_path):
    model, template = open_model(conf_of(template="plain"), None)
    end = model.get_input_embeddings().weight[model.config.llm.eos_token_id]
    assert torch.equal(model.speech_boundary.weight[START], end)
    model.save_pretrained(tmp_path)
    template.save(tmp_path)
    begun = {"init_from": str(tmp_path), "whisper": None, "llm": None, "adapter_conf": None, "lora": None}
    changed, template = open_model(conf_of(model=begun), None)
    line = changed.get_input_embeddings().weight[template.encode(chat.BOUNDARY)[0]]
    assert torch.equal(changed.speech_boundary.weight, torch.stack([line, line]))


def test_lists_without_transcripts_are_passed_over_and_said(conf_of, tiny, tmp_path):
    row = json.loads(tiny.dev.read_text().splitlines()[0])
    bare = tmp_path / "bare.list"
    bare.write_text(json.dumps({"key": "k", "wav": row["wav"], "gender": "male"}) + "\n")
    conf = conf_of()
    model, template = open_model(conf, None)
    found = repeat_gate.with_transcripts([str(bare), str(tiny.train)], template, 4)
    assert [u.key for u in found] == ["train000", "train008", "train015", "train023"]
    data = config.from_dict({"train": [{"name": "bare", "list": str(bare)}]}, config.DataConfig)
    said = repeat_gate.check_run(conf, data, model, template, CPU)
    assert said == "repeat gate: not held, no list has transcripts"


def test_the_command_shows_every_answer(instruct, tiny, parrot, capsys):
    asked = ["--llm", str(instruct), "--list", str(tiny.dev)]
    assert command.main(asked) == 0
    shown = capsys.readouterr()
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert [row[:2] for row in rows] == [[f"dev{i:03d}", "repeated"] for i in range(5)]
    assert all(row[2] == row[3] for row in rows) and "WER 0.0 %" in shown.err
    parrot[1][rows[0][2]] = "five"
    assert command.main(asked) == 3
    shown = capsys.readouterr()
    assert "errors in" in shown.out.splitlines()[0] and "'five'" in shown.err
    assert command.main(["--llm", str(tiny.folder / "llm"), "--list", str(tiny.dev)]) == 1
    assert "has no chat template" in capsys.readouterr().err


SENTENCES = """the sun is warm today
where is the nearest station
she reads a book every night
my brother plays the piano
please close the window
we are going to the market
he could not find his keys
they walked along the river""".splitlines()


@pytest.mark.slow
@pytest.mark.skipif("OSUM_REAL_WEIGHTS" not in os.environ, reason="OSUM_REAL_WEIGHTS is not set")
def test_a_published_instruct_llm_holds_the_gate():
    from wenet_osum.models.llm import causal
    from wenet_osum.text.tokenizer import load_tokenizer

    found = sorted(Path(os.environ["OSUM_REAL_WEIGHTS"]).glob("qwen2.5*"))
    assert found, "OSUM_REAL_WEIGHTS names a folder without qwen2.5*"
    llm = causal.read(str(found[0])).eval()
    template = Template(load_tokenizer(found[0]), template="chat")
    utterances = [Utterance(f"k{i}", "w", text) for i, text in enumerate(SENTENCES)]
    boundary = repeat_gate.boundary_of(llm, template)
    repeated = repeat_gate.repeat(llm, boundary, template, utterances)
    repeated.check(5.0)
    plain = Template(template.tokenizer)
    said = repeat_gate.repeat(llm, boundary, plain, utterances[:2])
    assert said.score.value > 50, "what the chat is for"
