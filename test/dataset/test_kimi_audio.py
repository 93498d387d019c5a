"""Kimi-Audio's jsonl: read, written, and the same again."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from wenet_osum.dataset.drop import Dropped
from wenet_osum.dataset.formats import kimi_audio
from wenet_osum.dataset.manifest import from_row
from wenet_osum.dataset.messages import Message, rows_of


def text(role, content, **more):
    return {"role": role, "message_type": "text", "content": content, **more}


def audio(path, role="user"):
    return {"role": role, "message_type": "audio", "content": path}


LINES = [
    {"task_type": "understanding", "conversation": [text("user", "Transcribe it."), audio("a.wav"), text("assistant", "it rains")]},
    {
        "task_type": "understanding",
        "conversation": [audio("a.wav"), audio("b.wav"), text("user", "Who is older?"), text("assistant", "The second."), text("user", "By how much?"), text("assistant", "Ten <years>.")],
    },
]


def written(tmp_path, lines):
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_its_lines_come_back_as_they_were(tmp_path):
    dropped, lost = Dropped(), Counter()
    utterances = [*kimi_audio.read(written(tmp_path, LINES), dropped, "")]
    assert not dropped and [u.key for u in utterances] == ["talk-000001", "talk-000002"]
    assert kimi_audio.write(str(tmp_path / "again.jsonl"), utterances, lost) == 2 and not lost
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{name: row[name] for name in LINES[0]} for row in again] == LINES
    assert [*kimi_audio.read(str(tmp_path / "again.jsonl"), dropped, "")] == utterances


def test_messages_become_turns(tmp_path):
    single, several = kimi_audio.read(written(tmp_path, LINES), Dropped(), "")
    assert (single.wav, single.prompt, single.reply, single.task, single.turns) == ("a.wav", "Transcribe it.", "it rains", "<S2TCHAT>", None)
    assert [(turn.wav, turn.prompt, turn.task, turn.reply) for turn in (*several.turns, several)] == [
        ("a.wav", "", None, None),
        ("b.wav", "", None, None),
        ("", "Who is older?", "<S2TCHAT>", "The second."),
        ("", "By how much?", "<S2TCHAT>", "Ten <years>."),
    ]


def test_words_after_words_are_a_turn_of_their_own(tmp_path):
    entries = [text("user", "Listen."), text("user", "What is said?"), audio("a.wav"), text("assistant", "it rains")]
    [talk] = kimi_audio.read(written(tmp_path, [{"conversation": entries}]), Dropped(), "")
    assert [(turn.prompt, turn.wav) for turn in (*talk.turns, talk)] == [("Listen.", ""), ("What is said?", "a.wav")]


def test_our_tasks_are_kept(tmp_path):
    row = {"key": "k", "wav": "b.wav", "task": "ser", "txt": "on the mat", "emotion": "SAD", "lang": "en"}
    turn = {"wav": "a.wav", "start": 0.5, "end": 2.0, "task": "asr", "txt": "the cat", "prompt": "Write."}
    given, lost = from_row(row | {"turns": [turn]}), Counter()
    assert kimi_audio.write(str(tmp_path / "k.jsonl"), [given, from_row({"key": "n", "wav": "a"})], lost) == 1
    assert dict(lost) == {kimi_audio.SEGMENT: 1, "utterance without task": 1}
    [back] = kimi_audio.read(str(tmp_path / "k.jsonl"), Dropped(), "")
    assert (back.txt, back.labels, back.task, back.lang) == ("on the mat", {"emotion": "sad"}, "ser", "en")
    [one] = back.turns
    assert (one.txt, one.task, one.start, one.end, one.prompt) == ("the cat", "asr", 0.5, 2.0, "Write.")


@pytest.mark.parametrize(
    "entries, reason",
    [
        ([audio("a.wav"), audio("b.wav", "assistant")], "an assistant's message must be text"),
        ([audio("a.wav"), {"role": "assistant", "message_type": "audio-text", "content": ["x.wav", "y"]}], "an entry must hold role, message_type and a text as content"),
        ([audio("a.wav"), text("narrator", "hm")], "unknown role 'narrator'"),
        ([text("assistant", "hm")], "an assistant's message must be text that answers a user's"),
        ([], "a line must be an object with a list 'conversation'"),
        ([text("user", "hm"), text("assistant", "hm")], "manifest row needs a non-empty string 'wav'"),
    ],
)
def test_what_cannot_be_read_is_counted(tmp_path, entries, reason):
    dropped = Dropped()
    assert [*kimi_audio.read(written(tmp_path, [{"conversation": entries}]), dropped, "")] == []
    [found] = dropped
    assert found.startswith(f"kimi_audio: {reason}"), found


def test_an_answer_that_reads_as_no_task_is_free_text():
    asked = Message("user", wav="a")
    [row] = rows_of([asked, Message("assistant", "hello<SAD>", task="ser")])
    assert (row["txt"], row["emotion"]) == ("hello", "sad")
    [row] = rows_of([asked, Message("assistant", "hello", task="ser")])
    assert (row["task"], row["reply"]) == ("<S2TCHAT>", "hello")
