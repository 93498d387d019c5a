"""tools/make_replies.py: what a text LLM answers to transcripts, with a tiny LLM that has a chat template."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.decode import text_replies
from wenet_osum.decode.text_replies import EMPTY, NO_END, TextLlm, answer_all, with_wrong_words
from wenet_osum.score.hypotheses import read_hypotheses
from wenet_osum.small.models import SmallLlm, small_llm
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.tasks import parse

TOOL = Path(__file__).resolve().parents[2] / "tools/make_replies.py"
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def llm(tmp_path_factory) -> Path:
    """A tiny LLM with a chat template."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("llm")
    tokenizer = train_tokenizer(["the cat sat on the mat <user><system><assistant>"], vocab_size=300)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(str(folder))
    small_llm(SmallLlm(width=16, layers=1, heads=2, kv_heads=1, ffn=16), tokenizer).save_pretrained(folder)
    return folder


class Parrot:
    """Stands for an LLM: says a text backwards, never ends one with "long", says nothing to "mute"."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def replies(self, texts):
        for text in texts:
            self.asked.append(text)
            reason = NO_END if "long" in text else EMPTY if text == "mute" else ""
            yield ("" if text == "mute" else text[::-1]), reason


@pytest.fixture
def parrot(monkeypatch) -> Parrot:
    found = Parrot()
    monkeypatch.setattr(TextLlm, "load", lambda *_: found)
    return found


@pytest.fixture
def manifest(tmp_path) -> Path:
    texts = {"a": "one two", "b": "long tale", "c": "one two", "d": "mute", "e": None}
    rows = [{"key": k, "wav": f"{k}.wav", "gender": "male"} | ({"txt": t} if t else {}) for k, t in texts.items()]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "m.jsonl"


def run(*args: object) -> int:
    spec = importlib.util.spec_from_file_location("make_replies", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(a) for a in args])


def test_replies_become_a_manifest_and_the_rest_is_counted(parrot, manifest, tmp_path, capsys):
    assert run("--llm", "x", manifest, tmp_path / "out.jsonl") == 0
    rows = list(read_manifest(tmp_path / "out.jsonl"))
    assert [(u.key, u.reply, u.labels) for u in rows] == [
        ("a", "owt eno", {"gender": "male"}),
        ("c", "owt eno", {"gender": "male"}),
    ]
    assert parrot.asked == ["mute", "one two", "long tale"], "each transcript once, short ones first"
    page = capsys.readouterr().out
    assert "2 of 5 utterances have a reply" in page
    assert all(f"1  {reason}" in page for reason in (NO_END, EMPTY, "no transcript"))


def test_rows_of_one_key_are_counted(parrot, tmp_path, capsys):
    rows = [{"key": "a", "wav": f"{text}.wav", "txt": text} for text in ("one", "two")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("--llm", "x", tmp_path / "m.jsonl", tmp_path / "out.jsonl") == 0
    assert [(u.txt, u.reply) for u in read_manifest(tmp_path / "out.jsonl")] == [("one", "eno")]
    assert "1  duplicate key" in capsys.readouterr().out


def test_a_run_that_was_cut_off_goes_on(parrot, tmp_path):
    kept = tmp_path / "kept.jsonl"
    whole = answer_all(parrot, ["one two", "three"], kept, batch_size=1)
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text(lines[0] + lines[1][:9])
    parrot.asked.clear()
    assert answer_all(parrot, ["one two", "three"], kept) == whole
    assert parrot.asked == [json.loads(lines[1])["txt"]]


def test_replies_of_another_llm_are_not_taken_for_its_own(parrot, manifest, tmp_path, capsys):
    assert run("--llm", "x", manifest, tmp_path / "out.jsonl") == 0
    assert run("--llm", "x", manifest, tmp_path / "out.jsonl") == 0
    for other in (["--llm", "y"], ["--llm", "x", "--system", "Be rude."], ["--llm", "x", "--max_tokens", "9"]):
        assert run(*other, manifest, tmp_path / "out.jsonl") == 1
        assert "holds results of another run" in capsys.readouterr().err


def test_a_cascade_asks_what_a_recognizer_heard(parrot, manifest, tmp_path):
    (tmp_path / "hyp").mkdir()
    heard = {"a": "one too", "b": "long tail", "d": "mute"}
    rows = [{"key": k, "task": "<TRANSCRIBE>", "text": t, "transcript": t} for k, t in heard.items()]
    (tmp_path / "hyp/hyp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("--llm", "x", "--hyp", tmp_path / "hyp", manifest, tmp_path / "cascade") == 0
    answers, _ = read_hypotheses(tmp_path / "cascade", parse("sttc"))
    found = {key: (answer.transcript, answer.reply) for key, answer in answers.items()}
    assert found == {"a": ("one too", "oot eno"), "b": ("long tail", "liat gnol")}, "one without end counts"


def test_wrong_words_are_the_same_every_time():
    texts = {f"k{i}": "a b c d e f g h i j" for i in range(50)}
    changed = with_wrong_words(texts, 0.2)
    assert changed == with_wrong_words(dict(reversed(texts.items())), 0.2)
    pairs = [(x, y) for key in texts for x, y in zip(texts[key].split(), changed[key].split(), strict=True)]
    wrong = sum(x != y for x, y in pairs) / len(pairs)
    assert 0.1 < wrong < 0.25 and with_wrong_words(texts, 0.0) == texts


def test_a_batch_answers_as_each_alone(llm):
    model = TextLlm.load(str(llm), max_tokens=5)
    texts = ["the cat", "the cat sat on the mat on the mat"]
    assert model.prompt("the cat") == "<system>Answer in one short sentence.<user>the cat<assistant>"
    together = list(model.replies(texts))
    assert together == [next(iter(model.replies([text]))) for text in texts]
    assert together[0][0] and all(reason in ("", NO_END) for _, reason in together)


def test_an_llm_without_a_chat_template_is_told(llm, manifest, tmp_path, capsys):
    settings = json.loads((llm / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    for path in llm.iterdir():
        if path.name != "chat_template.jinja":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert run("--llm", tmp_path, manifest, tmp_path / "out.jsonl") == 1
    assert "has no chat template; replies are asked for" in capsys.readouterr().err
    assert text_replies.SYSTEM in TextLlm.load(str(llm)).prompt("x")
