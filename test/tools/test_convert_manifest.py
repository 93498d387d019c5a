"""What goes into a form of corpus comes out of it again; what a form has no place for is counted."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import importlib
import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wenet_osum import lookup
from wenet_osum.dataset.audio import decode, write_wav
from wenet_osum.dataset.drop import Dropped
from wenet_osum.dataset.formats import hf, shard
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.records import Utterance, Word

TOOLS = Path(__file__).resolve().parents[2] / "tools"
FORMATS = "wenet_osum.dataset.formats"
AUDIO_INSIDE = {"shard", "osum_shard", "hf"}
HOLDS = {  # what each form must keep, beside key and transcript
    "osum": {"task", "lang", "speaker", "gender", "age", "emotion", "words", "reply", "start", "end", "extra"},
    "kaldi": {"task", "lang", "speaker", "gender", "age", "emotion", "start", "end"},
    "lhotse": {"task", "lang", "speaker", "gender", "age", "emotion", "words", "reply", "start", "end", "extra"},
    "hf": {"task", "lang", "speaker", "gender", "age", "emotion", "words", "reply", "extra"},
    "wenet_raw": {"start", "end"},
    "kimi_audio": {"task", "lang", "speaker", "gender", "age", "emotion", "start", "end", "extra"},
    "kimi_evalkit": {"task", "lang", "speaker", "gender", "age", "emotion", "words", "reply", "start", "end", "extra"},
    "ultraeval": {"task", "lang", "speaker", "gender", "age", "emotion", "words", "reply", "start", "end", "extra"},
    "shard": {"task", "lang", "speaker", "gender", "age", "emotion", "words", "reply", "extra"},
    "osum_shard": {"lang", "speaker", "gender", "age", "emotion", "words", "reply", "extra"},
}


def run(tool, *args):
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(a) for a in args])


@pytest.fixture
def corpus(tmp_path):
    for name in ("a", "long"):
        wave = np.sin(np.arange(32000) / (20 if name == "a" else 30)).astype(np.float32) / 2
        (tmp_path / f"{name}.wav").write_bytes(write_wav(wave))
    words = [Word("hello", 0.1, 0.5), Word("world", 0.6, 0.9)]
    first = Utterance("a.1", f"{tmp_path}/a.wav", "hello world", task="asr", lang="en", speaker="s1", labels={"gender": "female", "age": 7.0, "emotion": "sad"}, words=words, reply="yes")
    second = Utterance("b", f"{tmp_path}/long.wav", "你好", task="asr", lang="zh", speaker="s2", labels={"gender": "male", "age": 30.0, "emotion": "happy"}, words=[Word("你", 0.2, 0.3), Word("好", 0.3, 0.6)])
    return [dataclasses.replace(first, duration=2.0, extra={"room": "kitchen"}), dataclasses.replace(second, start=0.5, end=1.25)]


def test_every_format_is_tested_here():
    assert set(lookup.names(FORMATS)) == set(HOLDS)


@pytest.mark.parametrize("name", sorted(HOLDS))
def test_round_trip(name, corpus, tmp_path):
    if name == "hf":
        pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    form, lost, dropped = lookup.load(FORMATS, name), Counter(), Dropped()
    assert form.write(str(tmp_path / "out"), corpus, lost) == 2
    back = {u.key: u for u in form.read(str(tmp_path / "out"), dropped, str(tmp_path / "audio"))}
    assert list(back) == [u.key for u in corpus] and not dropped
    for want in corpus:
        got = back[want.key]
        if name != "osum_shard":
            assert got.txt == want.txt
        if name == "kaldi" and want.end is None:  # beside segments a whole recording is a segment, too
            want = dataclasses.replace(want, start=0.0, end=2.0)
        for field in HOLDS[name]:
            assert got.get(field) == want.get(field), (name, field)
        part = slice(round((want.start or 0) * 16000), round((want.end or 2.0) * 16000))
        audio = decode(Path(got.wav).read_bytes(), got.start, got.end)
        assert np.array_equal(audio, decode(Path(want.wav).read_bytes())[part])
        if name in AUDIO_INSIDE:
            assert Path(got.wav).parent == tmp_path / "audio"
    missing = {"words", "reply", "extra", "lang", "speaker", "gender", "emotion", "age", "task"} - HOLDS[name]
    assert name in AUDIO_INSIDE or all(f"field {field} has no place" in " ".join(lost) for field in missing), lost


def test_kaldi_folder_is_as_kaldi_wants_it(corpus, tmp_path):
    lookup.load(FORMATS, "kaldi").write(str(tmp_path / "k"), [*corpus, Utterance("no way", "x.wav"), corpus[0]], lost := Counter())
    assert lost["utterance whose key holds white space"] == lost["utterance whose key stands twice"] == 1
    lines = (tmp_path / "k/segments").read_text().splitlines()
    assert lines == ["a.1 a.1 0.0000 2.0000", "b rec000000-long 0.5000 1.2500"]
    assert (tmp_path / "k/spk2gender").read_text() == "s1 f\ns2 m\n" and (tmp_path / "k/spk2utt").read_text() == "s1 a.1\ns2 b\n"


def test_kaldi_folder_of_others(tmp_path):
    (tmp_path / "W").mkdir()
    (tmp_path / "W/1.wav").write_bytes(write_wav(np.zeros(1600, np.float32)))
    files = {"wav.scp": "1\tW/1.wav\n2 sox x |\n", "text": "1\tWE CALL\n2 IT\n", "utt2spk": "1 0001\n", "spk2gender": "0001\tm\n", "spk2age": "0001 6\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = list(lookup.load(FORMATS, "kaldi").read(str(tmp_path), dropped := Dropped(), ""))
    assert [(u.key, u.txt, u.speaker, u.labels.get("gender"), u.labels.get("age"), u.wav) for u in found] == [("1", "WE CALL", "0001", "m", 6.0, f"{tmp_path}/W/1.wav")]
    assert dict(dropped) == {"wav.scp holds a pipe; run it and give the file it makes": 1}
    (tmp_path / "utt2lang").write_bytes("1 en\n2 fran\u00e7ais\n".encode("latin-1"))
    with pytest.raises(ValueError, match="utt2lang line 2 must be UTF-8"):
        list(lookup.load(FORMATS, "kaldi").read(str(tmp_path), Dropped(), ""))
    (tmp_path / "utt2lang").unlink()
    (tmp_path / "text").unlink()
    assert [(u.key, u.txt) for u in lookup.load(FORMATS, "kaldi").read(str(tmp_path), Dropped(), "")] == [("1", None)]


def test_kaldi_numbers_are_numbers_and_codes_are_texts(tmp_path):
    labels = {"age": 31.0, "emotion": "05", "style": "2 of 3"}
    kaldi = lookup.load(FORMATS, "kaldi")
    kaldi.write(str(tmp_path), [Utterance("a", "a.wav", "x", labels=labels)], lost := Counter())
    (back,) = kaldi.read(str(tmp_path), Dropped(), "")
    assert back.labels == labels and not lost


def test_lhotse_of_others(corpus, tmp_path):
    recording = {"sources": [{"type": "file", "channels": [0], "source": corpus[0].wav}], "sampling_rate": 16000, "num_samples": 32000, "duration": 2.0}
    stereo = recording | {"id": "s", "sources": [recording["sources"][0] | {"channels": [0, 1]}]}
    with gzip.open(tmp_path / "x_recordings_train.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in (recording | {"id": "r"}, stereo))
    alignment = {"word": [["hi", 1.1, 0.3, None]]}
    rows = [{"id": f"u-{r}", "recording_id": r, "start": 1.0, "duration": 0.5, "channel": 0, "language": "English", "gender": "M", "alignment": alignment} for r in "rsq"]
    rows += [rows[0], rows[0] | {"id": "late", "start": 1.9}, {"id": "none", "start": 0.0, "duration": 1.0}]
    (tmp_path / "x_supervisions_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(lookup.load(FORMATS, "lhotse").read(str(tmp_path), dropped := Dropped(), ""))
    assert [(u.key, u.lang, u.labels.get("gender"), u.start, u.end, u.words) for u in found] == [("u-r", "en", "M", 1.0, 1.5, [Word("hi", 0.1, 0.4)])]
    assert dict(dropped) == {"recording with several channels or files": 1, "supervision without its recording": 2, "duplicate key": 1, "lhotse: segment ends beyond the recording": 1}
    with pytest.raises(ValueError, match="no \\*supervisions\\*"):
        list(lookup.load(FORMATS, "lhotse").read(str(tmp_path / "none"), dropped, ""))


def test_lhotse_s_splits_are_read_one_by_one(corpus, tmp_path):
    lhotse = lookup.load(FORMATS, "lhotse")
    for split, row in zip(("train", "test"), corpus, strict=True):
        lhotse.write(str(tmp_path / split), [dataclasses.replace(row, prompt="Listen.")], Counter())
        for kind in ("recordings", "supervisions"):
            (tmp_path / split / f"{kind}.jsonl.gz").rename(tmp_path / f"x_{kind}_{split}.jsonl.gz")
    with pytest.raises(ValueError, match="holds several manifests"):
        list(lhotse.read(str(tmp_path), Dropped(), ""))
    for path in ("x_supervisions_train.jsonl.gz", "x_supervisions_tr"):
        assert [(u.key, u.prompt) for u in lhotse.read(str(tmp_path / path), Dropped(), "")] == [("a.1", "Listen.")]


def test_tool_converts_filters_and_counts(corpus, tmp_path, capsys):
    write_manifest(tmp_path / "m.jsonl", corpus)
    assert run("convert_manifest", "--from", "osum", "--to", "wenet_raw", "--lang", "en", "--", tmp_path / "m.jsonl", tmp_path / "raw") == 0
    page = capsys.readouterr().out
    assert "raw: 1 utterances" in page and "1  language zh" in page and "1  field emotion has no place in WeNet's raw list" in page
    assert [json.loads(line).keys() for line in (tmp_path / "raw").read_text().splitlines()] == [{"key", "wav", "txt"}]
    assert run("convert_manifest", "--from", "osum", "--to", "shard", tmp_path / "m.jsonl", tmp_path / "data.list") == 0
    assert run("convert_manifest", "--from", "shard", "--to", "osum", tmp_path / "data.list", tmp_path / "n.jsonl") == 0
    assert (tmp_path / "n.jsonl_audio/a.1.wav").read_bytes() == Path(corpus[0].wav).read_bytes()


def test_a_form_of_one_direction_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "only_read.py").write_text("def read(path, dropped, audio_dir):\n    return []\n")
    package = importlib.import_module(FORMATS)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert run("convert_manifest", "--from", "osum", "--to", "only_read", "x", "y") == 1
    assert "form 'only_read' can only be read" in capsys.readouterr().err


def test_a_corpus_that_states_no_language_is_told(corpus, tmp_path, capsys):
    write_manifest(tmp_path / "m.jsonl", [dataclasses.replace(row, lang=None) for row in corpus])
    assert run("convert_manifest", "--from", "osum", "--to", "kaldi", "--lang", "zh", "--", tmp_path / "m.jsonl", tmp_path / "k") == 1
    assert "this corpus states none, leave it out" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["osum", "wenet_raw", "kimi_audio", "kimi_evalkit", "ultraeval"])
def test_recordings_beside_a_list_are_found(name, corpus, tmp_path):
    form = lookup.load(FORMATS, name)
    form.write(str(tmp_path / "list"), [dataclasses.replace(corpus[0], wav="a.wav")], Counter())
    assert [u.wav for u in form.read(str(tmp_path / "list"), Dropped(), "")] == [f"{tmp_path}/a.wav"]


def test_segments_of_wenet_have_both_edges(corpus, tmp_path):
    rows = [Utterance(key, corpus[0].wav, "x", **edges) for key, edges in (("a", {"start": 0.5}), ("b", {"end": 1.0}), ("c", {}))]
    rows.append(Utterance("gone", "gone.wav", "x", start=0.5))
    raw = lookup.load(FORMATS, "wenet_raw")
    assert raw.write(str(tmp_path / "raw"), rows, lost := Counter()) == 3 and lost == {"audio: file not found": 1}
    assert [(u.start, u.end) for u in raw.read(str(tmp_path / "raw"), Dropped(), "")] == [(0.5, 2.0), (0.0, 1.0), (None, None)]


def test_tool_faults_end_in_one_line(corpus, tmp_path, capsys):
    assert run("convert_manifest", "--from", "kaldy", "--to", "osum", tmp_path, tmp_path / "o") == 1
    assert "unknown formats 'kaldy', did you mean 'kaldi'" in capsys.readouterr().err
    assert run("convert_manifest", "--from", "kaldi", "--to", "osum", tmp_path, tmp_path / "o") == 1
    assert "wav.scp does not exist" in capsys.readouterr().err


def test_hf_without_the_library_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        lookup.load(FORMATS, "hf").write(str(tmp_path / "o"), [], Counter())


def test_rows_with_one_id_keep_their_own_audio(tmp_path):
    """As in FLEURS, where the id is the sentence's."""
    seen = set()
    rows = [hf._row({"audio": {"bytes": bytes([n]), "path": "x.wav"}, "id": 1904, "text": "t"}, n, str(tmp_path), seen) for n in range(2)]
    assert [row["key"] for row in rows] == ["1904", "1904-row000000001"]
    assert [Path(row["wav"]).read_bytes() for row in rows] == [b"\0", b"\1"]


def test_lists_that_differ_behind_a_dot_have_shards_of_their_own(tmp_path):
    (tmp_path / "a.wav").write_bytes(write_wav(np.zeros(1600, np.float32)))
    for lang in ("zh", "en"):
        written = shard.write(str(tmp_path / f"train.{lang}"), [Utterance(lang, str(tmp_path / "a.wav"), txt="x", lang=lang)], Counter())
        assert written == 1
    lists = [(tmp_path / f"train.{lang}").read_text() for lang in ("zh", "en")]
    assert lists[0] != lists[1]
    shard.write(str(tmp_path / "dev.list"), [Utterance("k", str(tmp_path / "a.wav"), txt="x")], Counter())
    assert (tmp_path / "dev_shards").is_dir()


def test_a_table_of_others_loses_only_the_rows_that_do_not_fit(monkeypatch, tmp_path):
    """A class of -1 is not known; words of another form are no times; what JSON has no type for becomes text."""

    class Classes:
        def int2str(self, number):
            return ["happy", "sad"][number] if number >= 0 else 1 / 0

    class Rows(list):
        column_names = ["audio", "words", "emotion"]
        features = {"emotion": Classes()}

        def cast_column(self, *_):
            return self

    audio = {"bytes": None, "path": "a.wav"}
    rows = [{"emotion": 0, "day": datetime.date(2024, 5, 1), "raw": b"\0", "snr": float("nan")}, {"emotion": -1, "age": float("nan")}]
    rows += [{"words": [{"word": "hi"}]}, {"words": [{"text": "hi", "start": 0, "end": None}]}, {"words": [{"text": "hi", "start": 1, "end": 0}]}]
    table = Rows({"audio": dict(audio), "emotion": None} | row for row in rows)
    library = SimpleNamespace(load_from_disk=lambda _: table, Audio=lambda decode: None, ClassLabel=Classes)
    monkeypatch.setattr(hf, "_library", lambda: library)
    found = list(hf.read("x", dropped := Dropped(), str(tmp_path)))
    assert [u.labels for u in found] == [{"emotion": "happy"}, {}, {}, {}] and all(u.words is None for u in found)
    assert found[0].extra == {"day": "2024-05-01", "raw": "AA=="} and found[2].extra == {"words": [{"word": "hi"}]}
    assert dict(dropped) == {"hf: 'words' must have times of 0 or more that run forward": 1}


def test_extras_of_several_types_are_written_as_text():
    rows = [{"extra": {"a": 1, "b": [1, 2.5], "c": {"d": "x"}}}, {"extra": {"a": "one", "b": [3], "c": {"d": 1}}}, {}]
    hf._give_extras_one_type(rows)
    assert rows == [{"extra": {"a": "1", "b": [1, 2.5], "c": '{"d": "x"}'}}, {"extra": {"a": '"one"', "b": [3], "c": '{"d": 1}'}}, {}]


def test_a_kaldi_folder_lacks_only_what_cannot_be_written(tmp_path):
    (tmp_path / "a.wav").write_bytes(write_wav(np.zeros(16000, np.float32)))
    rows = [Utterance(key, str(tmp_path / name), txt="x", start=0.2) for key, name in (("gone", "gone.wav"), ("there", "a.wav"))]
    written = lookup.load(FORMATS, "kaldi").write(str(tmp_path / "k"), rows, lost := Counter())
    assert written == 1 and lost["audio: file not found"] == 1
    assert (tmp_path / "k/segments").read_text() == "there rec000000-a 0.2000 1.0000\n"
    assert len((tmp_path / "k/wav.scp").read_text().splitlines()) == 1


def test_a_kaldi_folder_passes_kaldi_s_own_check(tmp_path):
    """validate_data_dir.sh wants the same keys in all files, m or f, and complete tables."""
    (tmp_path / "a.wav").write_bytes(write_wav(np.zeros(16000, np.float32)))
    kaldi = lookup.load(FORMATS, "kaldi")
    wav = str(tmp_path / "a.wav")
    rows = [
        Utterance("a", wav, "x", speaker="Ann Lee", lang="en", labels={"gender": "woman"}),
        Utterance("b", "https://host/b.wav", "y", speaker="s2", labels={"gender": "男"}, duration=2.0),
        Utterance("gone", str(tmp_path / "gone.wav"), "z"),
        Utterance("c", wav, "z", speaker="s3", labels={"gender": "unsure"}, start=0.5),
    ]
    (tmp_path / "utt2lang").write_text("of an earlier run")
    assert kaldi.write(str(tmp_path), rows, lost := Counter()) == 3
    for name in ("text", "utt2spk", "segments"):
        assert [line.split()[0] for line in (tmp_path / name).read_text().splitlines()] == ["a", "b", "c"], name
    assert "\nb https://host/b.wav\n" in (tmp_path / "wav.scp").read_text() and "a Ann_Lee\n" in (tmp_path / "utt2spk").read_text()
    assert not any((tmp_path / name).exists() for name in ("utt2lang", "utt2dur", "spk2gender"))
    for reason in ("audio: file not found", "gender that is neither female nor male, for spk2gender", "white space in the name of a speaker, written as _"):
        assert lost[reason] == 1
    assert sum(count for reason, count in lost.items() if "which Kaldi takes only when it is complete" in reason) == 4
    kaldi.write(str(tmp_path), rows[:2], Counter())
    assert (tmp_path / "spk2gender").read_text() == "Ann_Lee f\ns2 m\n"
