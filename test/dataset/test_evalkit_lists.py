"""Lists of Kimi-Audio-Evalkit and UltraEval-Audio become manifests of ours."""

from __future__ import annotations

import json
from collections import Counter

from wenet_osum import lookup, tasks
from wenet_osum.dataset.drop import Dropped
from wenet_osum.records import Utterance
from wenet_osum.score.benchmarks import kimi_evalkit, ultraeval
from wenet_osum.tasks import label_map

FORMATS = "wenet_osum.dataset.formats"


def read(form, path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    dropped = Dropped()
    return list(lookup.load(FORMATS, form).read(str(path), dropped, "")), dict(dropped)


def line(subset, answer, index=0, **more):
    return {"index": index, "audio_path": f"{index}.wav", "question": "What?", "answer": answer, "subset": subset, "task_type": "understanding", **more}


def test_lists_of_kimi_evalkit(tmp_path):
    rows = [
        line("test_clean", "HE WAS  NOT"),
        line("test_net", "打开 wifi", 3),
        line("emotion", "joy", "7", utterance="Oh!", **{"task_type": "understanding"}),
        line("https://freesound.org/", "breath", 1),
        line("mmsu", "A"),
        line("emotion", "joy") | {"audio_path": ["a", "b"]},
        {"index": 0, "subset": "emotion", "answer": "joy"},
    ]
    found, dropped = read("kimi_evalkit", tmp_path / "x.jsonl", rows)
    assert [(u.key, u.wav, u.txt, u.lang, u.labels) for u in found] == [
        ("librispeech_test_clean-0", "0.wav", "HE WAS NOT", "en", {}),
        ("wenetspeech_test_net-3", "3.wav", "打开wifi", "zh", {}),
        ("meld-7", "7.wav", "Oh!", "en", {"emotion": "joy"}),
        ("nonspeech7k-1", "1.wav", None, None, {"event": "breath"}),
    ]
    assert found[2].extra == {"question": "What?", "subset": "emotion"}
    assert sum(dropped.values()) == 3 and all(reason.startswith("kimi_evalkit: ") for reason in dropped)
    assert label_map.load("nonspeech7k").mapped(found[3], Counter()).labels == {"event": "other"}


def test_keys_of_a_list_are_those_of_its_answers(tmp_path):
    rows = [line("emotion", "joy", index, prediction="joy") for index in (0, 5)]
    found, _ = read("kimi_evalkit", tmp_path / "x.jsonl", rows)
    answered = list(kimi_evalkit.read(str(tmp_path / "x.jsonl"), None, Counter()))
    assert [u.key for u in found] == [row.key for row in answered] == ["meld-0", "meld-5"]

    run = [{"type": "eval", "id": number, "data": {"ref": "male"}} for number in (1, 0)]
    (tmp_path / "voxceleb1").mkdir()
    (tmp_path / "voxceleb1/t.jsonl").write_text("\n".join(map(json.dumps, run)))
    found, _ = read("ultraeval", tmp_path / "voxceleb1.jsonl", [{"WavPath": "a.wav", "Gender": "m"}, {"WavPath": "b.wav", "Gender": "f"}])
    answered = list(ultraeval.read(str(tmp_path / "voxceleb1/t.jsonl"), None, Counter()))
    assert [u.key for u in found] == [row.key for row in answered] == ["voxceleb1-0", "voxceleb1-1"]


def test_lists_of_ultraeval(tmp_path):
    mine, dropped = read("ultraeval", tmp_path / "mine.jsonl", [{"WavPath": "a.wav", "Transcript": "it rains", "Gender": "f", "Source": "x"}, {"Transcript": "no recording"}])
    assert [(u.key, u.wav, u.txt, u.labels, u.extra) for u in mine] == [("mine-0", "a.wav", "it rains", {"gender": "f"}, {"Source": "x"})]
    assert dropped == {"ultraeval: manifest row needs a non-empty string 'wav'": 1}
    tess, dropped = read("ultraeval", tmp_path / "TESS.jsonl", [{"WavPath": "a.wav", "label": "ps"}, {"WavPath": "b.wav"}])
    assert tess[0].labels == {"emotion": "ps"} and tess[0].lang == "en" and dropped == {"ultraeval: line without the column label": 1}
    assert label_map.load("tess").mapped(tess[0], Counter()).labels == {"emotion": "surprise"}
    zh, _ = read("ultraeval", tmp_path / "KeSpeech.jsonl", [{"WavPath": "a.wav", "Text": "你好"}])
    assert (zh[0].txt, zh[0].lang) == ("你好", "zh")


def test_a_list_of_ours_can_be_asked_by_the_toolkit(tmp_path):
    lost = Counter()
    utterances = [Utterance("a", "a.wav", "hi", lang="en", task="<EMOTION>", labels={"emotion": "sad"}), Utterance("b", "b.wav", "你好", start=1.0, end=2.0)]
    assert lookup.load(FORMATS, "kimi_evalkit").write(str(tmp_path / "o"), utterances, lost) == 2
    first, second = map(json.loads, (tmp_path / "o").read_text(encoding="utf-8").splitlines())
    assert (first["answer"], first["audio_path"], first["question"]) == ("<sad>", "a.wav", tasks.parse("<EMOTION>").prompts("en")[0])
    assert second["answer"] == "你好" and second["index"] == 1
    assert [reason for reason in lost if reason.startswith("segment")] and lost.total() == 1


def test_every_set_asks_for_a_field_of_ours():
    fields = {"transcript", *tasks.label_fields()}
    sets = [*kimi_evalkit.SETS.values(), *ultraeval.SETS.values()]
    assert {data_set.field for data_set in sets} <= fields
    assert all(name == data_set.name and data_set.column for name, data_set in ultraeval.SETS.items())
    names = [data_set.name for data_set in kimi_evalkit.SETS.values()]
    assert len(set(names)) == len(names)
