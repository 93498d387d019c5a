"""A model as a Python function, and the command that shares it, with a tiny random model."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import wenet_osum
from wenet_osum import lookup
from wenet_osum.bin import transcribe
from wenet_osum.decode import incremental, pipeline
from wenet_osum.records import Hypothesis, Utterance, Word
from wenet_osum.tasks.base import unescape
from wenet_osum.text.template import Template

RATE = 16000
NOISE = np.random.default_rng(5).normal(0, 0.1, RATE)
SHORT = (np.clip(NOISE, -1, 1) * 32767).astype(np.int16)  # 1 s
LONG = np.concatenate([np.tile(SHORT, 20), np.zeros(2 * RATE, np.int16), np.tile(SHORT, 11)])  # 33 s with a pause


@pytest.fixture(scope="module")
def m(model_dir):
    return wenet_osum.load(model_dir, max_tokens=9)


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    soundfile.write(path, SHORT, RATE)
    return path


def same(one: Hypothesis, other: Hypothesis) -> bool:
    return (one.text, one.labels, one.duration, one.error) == (other.text, other.labels, other.duration, other.error)


def test_three_lines_give_an_answer(m, wav):
    answer = m(str(wav), task="<transcribe><EMOTION>")
    assert answer.key == str(wav) and answer.task == "<TRANSCRIBE> <EMOTION>" and answer.transcript is not None and answer.duration == 1.0
    assert answer.labels["emotion"] == max(answer.probs["emotion"], key=answer.probs["emotion"].get)
    assert m(wav).task == "<TRANSCRIBE>" and m(wav).labels == {}


SOUNDS = {
    "path": lambda wav: wav,
    "bytes": lambda wav: wav.read_bytes(),
    "bytearray": lambda wav: bytearray(wav.read_bytes()),
    "memoryview": lambda wav: memoryview(wav.read_bytes()),
    "open file": lambda wav: open(wav, "rb"),
    "BytesIO": lambda wav: io.BytesIO(wav.read_bytes()),
    "int16": lambda wav: SHORT,
    "float32": lambda wav: (SHORT / 32768).astype(np.float32),
    "float64": lambda wav: SHORT / 32768,
    "with rate": lambda wav: (SHORT, RATE),
    "dict of datasets": lambda wav: {"array": SHORT / 32768, "sampling_rate": RATE, "path": None},
    "dict of a tensor": lambda wav: {"sampling_rate": RATE, "array": torch.from_numpy(SHORT)},
    "samples first": lambda wav: np.stack([SHORT, SHORT], 1),
    "channels first": lambda wav: np.stack([SHORT, SHORT]),
    "opposite channels": lambda wav: np.stack([SHORT.astype(np.float32) / 16384, np.zeros(RATE, np.float32)]),
    "reversed view": lambda wav: SHORT[::-1].copy()[::-1],
    "tensor": lambda wav: torch.from_numpy(SHORT),
    "tensor with gradient": lambda wav: torch.from_numpy(SHORT / 32768).float()[None].requires_grad_(),
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_every_kind_of_sound_gives_the_answer_of_the_file(m, wav, kind):
    assert same(m(SOUNDS[kind](wav), task="ser"), m(wav, task="ser"))


def test_bfloat16_tensors_are_taken(m):
    assert m(torch.from_numpy(SHORT / 32768).bfloat16()).duration == 1.0


def test_the_rate_counts(m):
    assert m(SHORT, rate=8000).duration == pytest.approx(2.0) and m((SHORT, 8000)).duration == pytest.approx(2.0)
    rows = [{"array": SHORT, "sampling_rate": rate} for rate in (8000, RATE)]
    assert [answer.duration for answer in m(rows)] == pytest.approx([2.0, 1.0])


def test_a_list_is_answered_in_batches_and_in_order(m, wav, monkeypatch):
    sizes, decode = [], pipeline.Recognizer.decode
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, samples: sizes.append(len(samples)) or decode(self, samples))
    sounds = [SHORT[:9000], wav, b"no audio", SHORT[:12000], "gone.wav", {}, np.zeros(0), LONG]
    answers = m(sounds, task="ser")
    assert sizes == [2, 3]  # the pieces of the long one, then the short ones together
    assert [a.duration for a in answers] == [0.56, 1.0, None, 0.75, None, None, None, 33.0]
    faults = [None, None, "unreadable", None, "not found", "dict is no sound", "holds no samples", None]
    assert all(a.error is None if why is None else why in a.error for a, why in zip(answers, faults, strict=True))
    assert [a.key for a in answers[:3]] == ["audio 0", str(wav), "audio 2"]
    assert same(answers[1], m(wav, task="ser")) and same(answers[7], m(LONG, task="ser")) and len(answers[7].pieces) == 2
    assert "list is no sound" in m([[SHORT]])[0].error and m([]) == [] and isinstance(m([wav]), list)


@pytest.mark.parametrize(
    ("sound", "why"),
    [
        ("gone.wav", "audio: file not found"),
        (b"", "audio: empty"),
        (b"not a recording", "audio: unreadable"),
        (np.zeros(100), "shorter than 10 ms"),
        (np.full(RATE, np.nan), "NaN or infinity"),
        (np.zeros((16, RATE)), "give several as a list"),
        (np.zeros((2, 2, RATE)), "give several as a list"),
        (np.zeros(RATE, np.int64), "int64.*give int16, or float"),
        (SHORT.astype(float), "divide what were int16 samples by 32768"),
        ({"array": SHORT}, "dict is no sound: it lacks 'sampling_rate'"),
        ({"bytes": b""}, "it lacks 'array' and 'sampling_rate' .its keys: 'bytes'.; give"),
        ({"array": SHORT, "sampling_rate": None}, "sample rate None must be"),
        ((SHORT, 16), "sample rate 16 must be"),
        ((SHORT, 16000.5), "sample rate 16000.5 must be"),
        (io.StringIO("text"), "open it with mode 'rb'"),
        (None, "NoneType is no sound"),
        (".", "unreadable"),
        ("a\0b", "null"),
    ],
)
def test_a_sound_that_cannot_be_answered_says_why(m, sound, why):
    key = sound if isinstance(sound, str) else "audio 0"
    with pytest.raises(ValueError, match=why) as told:
        m(sound)
    [answer] = m([sound])
    assert str(told.value).startswith(f"{key}: ") and answer.key == key and re.search(why, answer.error) and not answer.text


def test_faults_of_the_call_are_raised_for_lists_too(m, wav):
    with pytest.raises(ValueError, match="did you mean 'ser'"):
        m([wav], task="serr")
    with pytest.raises(ValueError, match="language 'fr'"):
        m([wav], lang="fr")
    with pytest.raises(ValueError, match="sample rate 16 must"):
        m([wav], rate=16)
    with pytest.raises(ValueError, match="a number is none"):
        m([0.1, 0.2])


def test_prompt_and_language_are_those_asked_for(m, wav, monkeypatch):
    asked, decode = [], pipeline.Recognizer.decode
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, samples: asked.extend(s.prompt_ids for s in samples) or decode(self, samples))
    template = m.recognizer.template
    m(wav), m(wav, lang="en"), m(wav, prompt="the cat")
    assert asked == [template.prompt_ids(template.task("asr"), "zh"), template.prompt_ids(template.task("asr"), "en"), template.encode("the cat")]


def test_load_takes_the_options_of_the_command_and_no_others(model_dir, tmp_path):
    m = wenet_osum.load(str(model_dir), task="ser", device="cpu", num_beams=2, free=True, max_tokens=None, prompt="a=b")
    assert (m.recognizer.options.num_beams, m.recognizer.options.free, m.recognizer.options.max_tokens, m.recognizer.prompt) == (2, True, None, "a=b")
    assert m.recognizer.task.name == "ser"
    faults = {"beams": (2, "unknown setting 'beams', did you mean 'num_beams'"), "dtype": ("float8", "float8"), "num_beams": (0, "num_beams 0")}
    for name, (value, why) in faults.items():
        with pytest.raises(ValueError, match=why):
            wenet_osum.load(model_dir, **{name: value})
    with pytest.raises(ValueError, match="auto"):
        wenet_osum.load(model_dir, task="auto")
    with pytest.raises((ValueError, OSError), match="none"):
        wenet_osum.load(tmp_path / "none")


def test_loading_leaves_the_threads_alone(model_dir):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        wenet_osum.load(model_dir)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_importing_the_package_loads_no_torch():
    code = "import sys, wenet_osum; assert callable(wenet_osum.load); print(sorted({'torch', 'numpy', 'transformers'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stdout + done.stderr


# the command


@pytest.fixture
def timed(monkeypatch):
    """A model that hears one word with times in everything."""

    def decode(self, samples):
        return [Hypothesis(s.key, s.task, "<0.10>hi<0.50>", "hi", [Word("hi", 0.1, 0.5)], duration=s.audio_s) for s in samples]

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)


@pytest.fixture
def run(model_dir, capsys):
    def call(*words) -> tuple[int, str, str]:
        status = transcribe.main([*map(str, words), "--model", str(model_dir), "--max_tokens", "9"])
        return status, *capsys.readouterr()

    return call


def test_answers_are_those_of_python(run, m, wav):
    status, out, err = run(wav, "--task", "ser", "--format", "json")
    assert status == 0 and same(Hypothesis.from_dict(json.loads(out)), m(wav, task="ser")) and "1/1 utterances" in err


def test_timed_formats_ask_for_times_by_themselves(run, wav, timed):
    assert run(wav, "--format", "ctm")[:2] == (0, "a 1 0.100 0.400 hi\n")
    assert run(wav, "--format", "srt", "--task", "<TRANSCRIBE><ALIGN><AGE>")[1] == "1\n00:00:00,100 --> 00:00:01,000\nhi\n"


@pytest.mark.parametrize("name", ["srt", "vtt", "textgrid", "ctm"])
def test_a_task_without_times_is_refused_before_the_model_is_loaded(wav, name, capsys):
    assert transcribe.main([str(wav), "--model", "none", "--task", "ser", "--format", name]) == 2
    out, err = capsys.readouterr()
    assert not out and f"--format {name} needs word times, and --task ser asks for none; add <ALIGN>" in err


def test_an_answer_without_times_is_a_failure(run, wav, monkeypatch):
    monkeypatch.setattr(
        pipeline.Recognizer, "decode", lambda self, samples: [Hypothesis(s.key, s.task, "oh", "oh", [], unread={"words": "oh"}) for s in samples]
    )
    status, out, err = run(wav, "--format", "vtt")
    assert (status, out) == (1, "") and "failed: no word times in 'oh'" in err


def test_words_without_times_are_told(run, wav, monkeypatch):
    word = [Word("hi", 0.1, 0.5)]
    monkeypatch.setattr(
        pipeline.Recognizer, "decode", lambda self, samples: [Hypothesis(s.key, s.task, "", "hi", word, unread={"words": "oh"}) for s in samples]
    )
    status, out, err = run(wav, "--format", "ctm")
    assert status == 0 and "hi" in out and "left out, for it has no times: oh" in err


def test_documents_of_several_files_go_to_a_folder(run, wav, tmp_path, timed):
    other = tmp_path / "b.wav"
    soundfile.write(other, LONG, RATE)
    status, out, err = run(wav, other, "--format", "vtt")
    assert (status, out) == (2, "") and "give --out_dir for 2 files" in err
    status, out, err = run(wav, other, "gone.wav", "--format", "vtt", "--out_dir", tmp_path / "out")
    assert (status, out) == (1, "") and "gone.wav: failed: audio: file not found" in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.vtt", "b.vtt"]
    assert (tmp_path / "out" / "b.vtt").read_text().count("-->") == 2


def test_names_that_would_meet_are_refused(run, wav, tmp_path):
    for more in (["--format", "ctm"], ["--out_dir", tmp_path / "out"]):
        status, out, err = run(wav, tmp_path / "a.flac", *more)
        assert (status, out) == (2, "") and "'a' stands for several files" in err


def test_stdin_is_a_file(run, m, wav, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wav.read_bytes())))
    status, out, _ = run("-", "--task", "ser", "--format", "json")
    answer = Hypothesis.from_dict(json.loads(out))
    assert status == 0 and answer.key == "stdin" and same(answer, m(wav, task="ser"))
    assert run("-", "-")[0] == 2


def test_exit_status_and_streams(run, wav):
    status, out, err = run(wav, "gone.wav", "--format", "text")
    assert status == 1 and "gone.wav: failed: audio: file not found" in out and "RTF" in err and "RTF" not in out
    status, out, err = run(wav, "--task", "serr")
    assert (status, out) == (2, "") and "did you mean 'ser'" in err


def test_failures_have_a_line_on_stdout_but_no_file(run, tmp_path):
    status, out, err = run("gone.wav", "--format", "json")
    assert status == 1 and "not found" in json.loads(out)["error"]
    status, out, err = run("gone.wav", "--format", "json", "--out_dir", tmp_path)
    assert (status, out) == (1, "") and "gone.wav: failed: audio: file not found" in err and not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_traceback(model_dir, wav):
    command = [sys.executable, "-m", "wenet_osum", "transcribe", wav, "--model", model_dir, "--max_tokens", "9"]
    process = subprocess.Popen([*map(str, command)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() == 1 and "Traceback" not in err and "Exception" not in err and "Errno" not in err, err


@pytest.mark.parametrize("sound", [SHORT, LONG, LONG.astype(np.float32) / 32768, LONG.tobytes()], ids=["short", "long", "float", "bytes"])
def test_a_stream_of_one_chunk_is_answered_as_a_file(m, sound):
    """Over 30 s it is cut into the same pieces; labels and probabilities are the whole's."""
    whole = m(LONG if len(sound) > RATE else SHORT, task="ser")
    events = [*m.stream([sound], task="ser")]
    answer = events[-1].answer
    assert [event.answer is not None for event in events] == [False] * (len(events) - 1) + [True]
    assert answer.transcript == whole.transcript == "".join(event.committed for event in events)
    assert (answer.text, answer.labels, answer.duration) == (whole.text, whole.labels, whole.duration)
    assert answer.probs["emotion"] == pytest.approx(whole.probs["emotion"], abs=1e-6)


def test_a_stream_of_chunks_says_words_on_the_way_and_keeps_to_them(m, monkeypatch):
    """What the model is asked to begin with is what was said, at any rate of the sound."""
    asked = []
    decode = pipeline.Recognizer.decode
    monkeypatch.setattr(pipeline.Recognizer, "decode", lambda self, samples: asked.append(self.options.prefix_text) or decode(self, samples))
    # A model without training agrees with itself on nothing.
    monkeypatch.setattr(incremental, "agreed", lambda before, now, border: now[:6])
    sound = np.tile(SHORT, 4)
    events, said = [], ""
    for event in m.stream(np.split(sound, 16), rate=8000, step_s=0.5, prompt="What?"):
        said += event.committed
        events.append(event)
        if asked[-1]:
            assert said.startswith(unescape(asked[-1])[:5])
    assert events[-1].answer.transcript == said and events[-1].heard_s == 8.0 and len(events) > 10
    assert asked[0] is None and any(asked)


STREAMED = [
    ({"task": "srwt"}, [SHORT], "must begin with a transcript without times"),
    ({"task": "sttc"}, [SHORT], "leave the reply out"),
    ({"step_s": 0}, [SHORT], "step_s 0 must be above 0"),
    ({}, [b"odd"], "3 bytes: 2 bytes are a sample"),
    ({}, [np.array([1, 2])], "the full scale is not known"),
    ({}, [np.array([np.nan])], "NaN or infinity"),
    ({}, ["a.wav"], "str is no sound"),
]


@pytest.mark.parametrize("asked, chunks, told", STREAMED)
def test_what_cannot_be_streamed_says_why(m, asked, chunks, told):
    with pytest.raises(ValueError, match=told):
        [*m.stream(chunks, **asked)]


def test_a_model_with_prompts_in_one_language_is_asked_in_it(model_dir, tmp_path, wav):
    shutil.copytree(model_dir, tmp_path / "m")
    Template(Template.load(model_dir).tokenizer, prompts={"asr": {"en": ["the cat"]}}).save(tmp_path / "m")
    m = wenet_osum.load(tmp_path / "m", device="cpu", max_tokens=3)
    assert m(wav).error is None
    with pytest.raises(ValueError, match="no 'zh' prompts"):
        m(wav, lang="zh")


def test_a_prompt_of_ones_own_names_the_target_language(model_dir):
    m = wenet_osum.load(model_dir, task="st", prompt="Say it in {target}.", device="cpu")
    german = Utterance("a", "a.wav", labels={"target_lang": "de"})
    asked = m.recognizer._asked_with(german, m.recognizer.task)
    assert asked.prompt == "Say it in German."


def test_packages_of_plugins_are_known_before_the_task_is_read(monkeypatch):
    known = []
    monkeypatch.setattr(lookup, "add_plugins", known.extend)
    args = transcribe.parse(["a.wav", "--model", "none", "--task", "accent", "--plugins", "my_package"])
    with pytest.raises(ValueError, match="accent"):
        transcribe.check(args)
    assert known == ["my_package"]
