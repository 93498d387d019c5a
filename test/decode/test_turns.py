"""Conversations decoded: the last turn is answered, given the earlier ones; and a walk from a manifest to a report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wenet_osum.bin import recognize, score
from wenet_osum.config import BatchConfig, DataConfig, FilterConfig, SourceConfig, TrainConfig
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.dataset.manifest import from_row, write_manifest
from wenet_osum.dataset.shard import pack, write_list
from wenet_osum.decode.jobs import Job, group_jobs, read_list
from wenet_osum.decode.joint import Rescorers
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.decode.speech import Transcriber
from wenet_osum.records import Hypothesis
from wenet_osum.text.template import Template

MELS = 8


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A second spoken question, a written one about a recording, two recordings at once, one turn alone."""
    folder = tmp_path_factory.mktemp("turns")
    wavs = []
    for number, seconds in enumerate((0.43, 0.6, 0.3)):
        audio = np.random.default_rng(number).normal(0, 0.1, round(seconds * 16000))
        soundfile.write(folder / f"{number}.wav", audio, 16000)
        wavs.append(str(folder / f"{number}.wav"))
    said = {"task": "sttc", "txt": "the cat", "reply": "the mat"}
    return [
        {"key": "spoken", "wav": wavs[1], **said, "turns": [{"wav": wavs[0], **said}]},
        {"key": "written", "prompt": "Who sat?", "task": "<S2TCHAT>", "reply": "the cat", "turns": [{"wav": wavs[0], **said}]},
        {"key": "two", "wav": wavs[2], **said, "turns": [{"wav": wavs[1]}]},
        {"key": "alone", "wav": wavs[2], **said},
    ]


@pytest.fixture(scope="module")
def listed(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("list")
    write_manifest(folder / "test.jsonl", map(from_row, rows))
    report = pack(map(from_row, rows), folder / "shards")
    write_list(folder / "test.list", report.paths)
    return folder


@pytest.fixture(params=["parts", "chat_parts"])
def recognizer(request):
    model, template = request.getfixturevalue(request.param)
    return Recognizer(model, template, DecodeOptions(max_tokens=8))


def answers_of(recognizer, jobs, size):
    found = {}
    for _, answers in recognizer.run([jobs[at : at + size] for at in range(0, len(jobs), size)]):
        found |= {answer.key: answer for _, answer in answers}
    return found


def test_together_and_alone_answers_are_the_same(recognizer, listed):
    jobs, dropped = read_list(listed / "test.list")
    raw, _ = read_list(listed / "test.jsonl")
    assert not dropped and [job.recordings for job in jobs] == [job.recordings for job in raw] == [2, 1, 2, 1]
    together = answers_of(recognizer, jobs, 4)
    assert not [answer.error for answer in together.values() if answer.error]
    assert answers_of(recognizer, jobs, 1) == together == answers_of(recognizer, raw, 4)
    assert together["spoken"].duration == pytest.approx(1.03, abs=0.02)


def test_earlier_turns_are_what_the_answer_goes_on_from(recognizer, rows, monkeypatch):
    """What stands before the answer holds the earlier answer, and the first recording."""
    seen = []
    prompts = recognizer.model.prompts_with

    def kept(*given):
        seen.append(prompts(*given))
        return seen[-1]

    monkeypatch.setattr(recognizer.model, "prompts_with", kept)
    embed = recognizer.model.get_input_embeddings().weight
    lengths = []
    for row in (rows[0], rows[0] | {"turns": None}, rows[3]):
        utterance = from_row(row)
        sounds = [Path(one.wav).read_bytes() for one in utterance.recordings()]
        source = sounds if utterance.turns else sounds[0]
        job = Job(0, "k", 1.0, lambda u=utterance, s=source: (u, s), recordings=len(sounds))
        answers_of(recognizer, [job], 1)
        lengths.append(int(seen[-1][1].sum()))
    earlier = recognizer.template.target(recognizer.template.task("sttc"), from_row(rows[3])).ids
    found = (seen[0][0][0][:, None] == embed[earlier][None]).all(-1)
    assert found.any(0).all(), "the earlier answer stands before the last question"
    assert lengths[0] > lengths[1] + len(earlier)


def test_chat_answers_messages(recognizer, rows):
    m = Transcriber(dataclasses.replace(recognizer, task=recognizer.template.task("sttc")))
    first, second = rows[0]["turns"][0], rows[0]
    spoken = from_row(second)
    sounds = [Path(one.wav).read_bytes() for one in spoken.recordings()]
    job = Job(0, "k", 1.0, lambda: (spoken, sounds), recordings=2)
    [wanted] = answers_of(m.recognizer, [job], 1).values()
    told = "the cat<开始回答>the mat"
    messages = [{"role": "user", "audio": first["wav"]}, {"role": "assistant", "text": told}, {"role": "user", "audio": second["wav"]}]
    assert m.chat(messages).text == wanted.text
    assert m.chat(messages[:1]).text == m(first["wav"]).text
    own = m.chat([{"role": "user", "audio": first["wav"], "text": "Say it."}])
    assert own.text == m(first["wav"], prompt="Say it.").text


@pytest.mark.parametrize(
    "messages, told",
    [
        ([], "needs at least one sound"),
        ([{"role": "user", "text": "hi"}], "needs at least one sound"),
        ([{"role": "system", "text": "hi"}], "unknown role 'system'"),
        ([{"role": "user", "sound": "a.wav"}], "unknown entry of a message 'sound'"),
        ([{"role": "assistant", "text": "hi"}], "answers a user's"),
    ],
)
def test_other_messages_are_refused(parts, messages, told):
    model, template = parts
    m = Transcriber(Recognizer(model, template, task=template.task("asr")))
    with pytest.raises(ValueError, match=told):
        m.chat(messages)


def test_an_answer_at_the_end_leaves_nothing_to_find(parts, rows):
    model, template = parts
    m = Transcriber(Recognizer(model, template, task=template.task("asr")))
    with pytest.raises(ValueError, match="last message must be the user's"):
        m.chat([{"role": "user", "audio": rows[3]["wav"]}, {"role": "assistant", "text": "the cat"}])


def test_ways_without_an_llm_and_long_recordings_are_told(parts, rows, monkeypatch):
    model, template = parts
    utterance = from_row(rows[0])
    sounds = [Path(one.wav).read_bytes() for one in utterance.recordings()]
    greedy = Recognizer(model, template, DecodeOptions(mode="ctc_greedy_search"))
    with pytest.raises(ValueError, match="conversation: needs an LLM"):
        greedy.load_conversation(utterance, sounds)
    short = Recognizer(model, template)
    monkeypatch.setattr(Recognizer, "whole_s", 0.5)
    with pytest.raises(ValueError, match="a recording is too long"):
        short.load_conversation(utterance, sounds)
    # One recording and a question in writing: it is not split either.
    written = from_row(rows[1])
    job = Job(0, "written", 40.0, lambda: (written, sounds[:1]))
    assert "a recording is too long" in answers_of(short, [job], 1)["written"].error


def test_batches_count_every_recording():
    jobs = [Job(0, "a", 20.0, None, recordings=5, longest_s=4.0), Job(1, "b", 4.0, None), Job(2, "c", 40.0, None, recordings=2, longest_s=20.0)]
    assert [[job.key for job in group] for group in group_jobs(jobs, 16, 2400)] == [["c"], ["a", "b"]]
    assert [[job.key for job in group] for group in group_jobs(jobs, 16, 2399)] == [["c"], ["a"], ["b"]]
    assert not jobs[2].is_long(30.0)


def test_a_walk_from_a_manifest_to_a_report(model_dir, listed, tmp_path, capsys):
    template = Template.load(model_dir)
    data = DataConfig(train=[SourceConfig("talk", str(listed / "test.list"), 1.0, {"sttc": 1.0})])
    conf = TrainConfig(filter=FilterConfig(min_s=0.1), batch=BatchConfig(), workers=0)
    mixture = Mixture(data, conf, template, MELS)
    loader = mixture.epoch(0)
    [batch] = list(loader)
    # The written question has no transcript, which sttc asks for.
    assert sorted(batch.keys) == ["alone", "spoken", "two"] and not batch.dropped
    assert sorted(batch.turns.counts.tolist()) == [1, 2, 2] and len(batch.features) == 5
    answered = template.decode(batch.answer_ids[: batch.answer_lengths[batch.answer_lengths > 0][0]].tolist())
    assert answered == "the cat<开始回答>the mat"

    out = tmp_path / "decode"
    asked = ["--model", str(model_dir), "--list", str(listed / "test.list"), "--max_tokens", "6"]
    assert recognize.main([*asked, "--task", "auto", "--out", str(tmp_path / "own")]) == 0
    lines = (tmp_path / "own/hyp.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["task"] for line in lines] == ["<TRANSCRIBE> <S2TCHAT>", "<S2TCHAT>", *["<TRANSCRIBE> <S2TCHAT>"] * 2]
    assert recognize.main([*asked, "--task", "sttc", "--out", str(out)]) == 0
    lines = (out / "hyp.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [Hypothesis.from_dict(json.loads(line)) for line in lines]
    assert [answer.key for answer in answers] == ["spoken", "written", "two", "alone"] and not [a for a in answers if a.error]
    words = ["--set", f"sttc={listed / 'test.jsonl'},{out}", "--out", str(tmp_path / "score"), "--report"]
    assert score.main(words) == 0, capsys.readouterr().err
    assert (tmp_path / "score" / "report.html").exists() or any((tmp_path / "score").glob("*.html"))


def test_earlier_answers_are_read_with_the_labels_of_the_model(parts, rows):
    """A label of the model's own set is a label in an earlier turn; one of no set is free text."""
    model, template = parts
    own = Template(template.tokenizer, labels={"emotion": ["LULLED", "STIRRED"]})
    transcriber = Transcriber(Recognizer(model, own, task=own.task("ser")))
    seen = []
    transcriber.answers = lambda jobs, asked: seen.extend(jobs) or [Hypothesis("k", "ser", "")]
    sound = rows[0]["turns"][0]["wav"]
    for label in ("LULLED", "HAPPY"):
        said = {"role": "assistant", "text": f"the cat<{label}>"}
        transcriber.chat([{"role": "user", "audio": sound}, said, {"role": "user", "audio": sound}])
    [read], [free] = [job.read()[0].turns for job in seen]
    assert read.labels == {"emotion": "LULLED"} and read.txt == "the cat"
    assert free.reply == "the cat<HAPPY>" and not free.labels


def test_rescorers_hear_the_last_recording_and_no_other(parts, listed, monkeypatch):
    model, template = parts
    begin, heard = Rescorers.begin, []

    def noted(self, states, front):
        heard.append(len(states))
        return begin(self, states, front)

    monkeypatch.setattr(Rescorers, "begin", noted)
    options = DecodeOptions(max_tokens=2, rescore={"ctc_prefix": 0.5})
    jobs, _ = read_list(listed / "test.list")
    answers_of(Recognizer(model, template, options), jobs, 4)
    frames = torch.tensor([60, 43, 30, 30])
    assert sorted(heard) == sorted(model.speech_tokens(frames).tolist())
