"""Answer files of other evaluation toolkits: our figures on them are those of their own code.

Constants named after a toolkit are what its scoring functions gave on the same answers (sacrebleu's tokenizers and
rapidfuzz's distances under them); Kimi-Audio-Evalkit at commit 4080c49, UltraEval-Audio at 9b69da6.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from wenet_osum.bin import score
from wenet_osum.score import normalize, zh_numbers
from wenet_osum.score.free_answers import begins, letter, named

TOOLS = Path(__file__).resolve().parents[2] / "tools"
EN = [
    ("MISTER SMITH HAD TWENTY FIVE ALUMINUM STONES", "Mr. Smith had 25 aluminium stones."),
    ("IT IS THE O'CLOCK OF THE OLD HOUSE", "It's the o'clock of an old house!"),
    ("HE PAID TWENTY DOLLARS AND FIVE PERCENT", "He paid $20 and 5% <|im_end|>"),
    ("AND THEN SHE WAS GONE", "Uh, and then, she's gone."),
]
ZH = [
    ("他今年二十五岁", "他今年25岁。"),
    ("二零二零年增长了百分之三点五", "2020年，增长了3.5%"),
    ("我们一共有两千三百个用户", "我们一共有2300个用户吗？"),
    ("打开WIFI开关", "打开 wifi 开关"),
    ("今天天气很好", "今天天汽真好 <|im_end|>"),
]
MELD = [
    ("neutral", "neutral"),
    ("joy", "Joy. The speaker laughs."),
    ("joy", "happy"),
    ("sadness", "Sadness"),
    ("anger", "The speaker is angry, anger"),
    ("surprise", " surprised"),
    ("fear", "fear"),
    ("disgust", "neutral, not disgust"),
]
VOCAL = [
    ("Laughter", "A"),
    ("Sigh", "B. Sigh"),
    ("Cough", "The answer is C."),
    ("Throat clearing", "D"),
    ("Throat clearing", "(D) Throat clearing"),
    ("Sneeze", "F"),
    ("Sniff", "Sniff"),
    ("Cough", "Cough"),
]
SOUNDS = "Which sound?\n(A) Laughter\n(B) Sigh\n(C) Cough\n(D) Throat clearing\n(E) Sneeze\n(F) Sniff\n.One letter."
EMOTIONS = "Which emotion? (A) neutral (B) joy (C) sadness (D) anger (E) surprise (F) fear (G) disgust"


def convert(*words):
    spec = importlib.util.spec_from_file_location("convert_answers", TOOLS / "convert_answers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(word) for word in words])


def evalkit_file(path, rows, subset, question=""):
    lines = [{"index": i, "audio_path": f"{i}.wav", "question": question, "answer": truth, "subset": subset, "task_type": "understanding", "prediction": said, "real_prompt": question} for i, (truth, said) in enumerate(rows)]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def ultraeval_file(folder, rows, question=""):
    folder.mkdir(parents=True)
    contents = [{"type": "audio", "value": "a.wav"}, {"type": "text", "value": question}]
    lines = []
    for number, (truth, said) in reversed([*enumerate(rows)]):  # its threads finish in any order
        data = {"prompt": {"content": [{"role": "user", "contents": contents}]}, "inference": {"content": f"{{'content': {said!r}}}"}, "post_process": {"content": said}, "eval": {"pred": said[:4], "ref": truth}}
        lines += [{"type": kind, "id": number, "data": value} for kind, value in data.items()]
    (folder / "now.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return folder / "now.jsonl"


def figure(task, folder, metric, normalizer="none"):
    assert score.main(["--set", f"{task}={folder}/ref.jsonl,{folder}", "--normalizer", normalizer, "--resamples", "10", "--out", f"{folder}/score"]) == 0
    tree = json.loads((folder / "score/score.json").read_text(encoding="utf-8"))
    [value] = [row["value"] for row in tree["scores"] if row["metric"] == metric]
    return round(value, 2)


@pytest.fixture
def whisper(tmp_path):
    (tmp_path / "normalizer.json").write_text('{"aluminium": "aluminum"}')
    return f"whisper_en@{tmp_path}"


EVALKIT_EN, EVALKIT_ZH = 8.0, 6.82
ULTRAEVAL_EN, ULTRAEVAL_ZH = 7.41, 6.82


def test_error_rates_of_kimi_evalkit(tmp_path, whisper, capsys):
    english = evalkit_file(tmp_path / "m_LibriSpeech.jsonl", [*EN, ("NO ANSWER CAME", "null")], "test_clean")
    assert convert("--from", "kimi_evalkit", "--missing", "skip", english, tmp_path / "en") == 0
    assert "1  utterance without an answer" in capsys.readouterr().out
    assert figure("asr", tmp_path / "en/librispeech_test_clean", "wer", f"{whisper}+basic") == EVALKIT_EN
    assert figure("asr", tmp_path / "en/librispeech_test_clean", "wer", "basic") > EVALKIT_EN

    other = evalkit_file(tmp_path / "other.jsonl", [("IT RAINS", "it rains")], "test_other").read_text()
    chinese = evalkit_file(tmp_path / "m_AISHELL-1.jsonl", ZH, "aishell1_test")
    with open(chinese, "a") as file:
        file.write(other)  # each data set in a file has its own figure
    assert convert("--from", "kimi_evalkit", chinese, tmp_path / "zh") == 0
    assert figure("asr", tmp_path / "zh/aishell1_test", "cer", "zh_numbers+basic") == EVALKIT_ZH
    assert figure("asr", tmp_path / "zh/aishell1_test", "cer", "basic") > EVALKIT_ZH
    assert figure("asr", tmp_path / "zh/librispeech_test_other", "wer", "basic") == 0


def test_error_rates_of_ultraeval(tmp_path, whisper):
    english = ultraeval_file(tmp_path / "librispeech-test-clean", EN)
    assert convert("--from", "ultraeval", english, tmp_path / "en") == 0
    assert figure("asr", tmp_path / "en/librispeech-test-clean", "wer", f"{whisper}+split_symbols") == ULTRAEVAL_EN
    assert figure("asr", tmp_path / "en/librispeech-test-clean", "wer", whisper) > ULTRAEVAL_EN

    chinese = ultraeval_file(tmp_path / "aishell-1", ZH)
    assert convert("--from", "ultraeval", chinese, tmp_path / "zh") == 0
    assert figure("asr", tmp_path / "zh/aishell-1", "cer", "zh:whisper_en+zh_numbers+basic") == ULTRAEVAL_ZH


ULTRAEVAL_MELD, ULTRAEVAL_LETTERS, ULTRAEVAL_SOUNDS = 62.5, 62.5, 25.0


def test_accuracies_of_ultraeval(tmp_path):
    emotions = ultraeval_file(tmp_path / "meld-emo", MELD)
    assert convert("--from", "ultraeval", emotions, tmp_path / "meld") == 0
    assert figure("<EMOTION>", tmp_path / "meld/meld-emo", "accuracy") == ULTRAEVAL_MELD

    sounds = ultraeval_file(tmp_path / "vocalsound", VOCAL, SOUNDS)
    assert convert("--from", "ultraeval", "--rule", "letter", sounds, tmp_path / "letters") == 0
    assert figure("<CAPTION>", tmp_path / "letters/vocalsound", "accuracy") == ULTRAEVAL_LETTERS
    assert convert("--from", "ultraeval", sounds, tmp_path / "names") == 0
    assert figure("<CAPTION>", tmp_path / "names/vocalsound", "accuracy") == ULTRAEVAL_SOUNDS


def answers(folder):
    rows = map(json.loads, (folder / "hyp.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["text"]: next(iter(row.get("labels", {}).values()), None) for row in rows}


def test_labels_that_a_language_model_would_judge(tmp_path):
    """Their judge takes a letter for its option, and synonyms for each other."""
    said = evalkit_file(tmp_path / "m_MELD.jsonl", [*MELD, ("fear", "(F)"), ("joy", "The answer is B.")], "emotion", EMOTIONS)
    assert convert("--from", "kimi_evalkit", said, tmp_path / "meld") == 0
    found = answers(tmp_path / "meld/meld")
    assert found["happy"] == "joy" and found["(F)"] == "fear" and found["The answer is B."] == "joy"
    assert found["The speaker is angry, anger"] == "anger" and found["neutral, not disgust"] is None
    assert figure("<EMOTION>", tmp_path / "meld/meld", "accuracy") == 90.0

    assert convert("--from", "kimi_evalkit", "--label_map", "meld", said, tmp_path / "ours") == 0
    assert answers(tmp_path / "ours/meld")["happy"] == "happy"
    assert json.loads((tmp_path / "ours/meld/settings.json").read_text()) == {"labels": {}}


def test_references_that_are_spelled_unlike_the_options(tmp_path, capsys):
    question = "(A) Breath\n(B) Cry\n(C) Scream\n."
    rows = [("crying", "B"), ("Crying", "crying"), ("screaming", "Scream"), ("breath", "C")]
    said = evalkit_file(tmp_path / "a.jsonl", rows, "https://freesound.org/", question)
    assert convert("--from", "kimi_evalkit", said, tmp_path / "own") == 0
    assert answers(tmp_path / "own/nonspeech7k") == {"B": "Cry", "crying": "Cry", "Scream": "Scream", "C": "Scream"}
    assert json.loads((tmp_path / "own/nonspeech7k/settings.json").read_text())["labels"] == {"event": ["Breath", "Cry", "Scream"]}
    assert figure("<CAPTION>", tmp_path / "own/nonspeech7k", "accuracy") == 75.0

    (tmp_path / "mine.yaml").write_text("source: mine\nevent: {breath: null, cry: cry, scream: screaming}")
    assert convert("--from", "kimi_evalkit", "--label_map", tmp_path / "mine.yaml", said, tmp_path / "mapped") == 0
    assert "1  label 'breath' that is none of ours" in capsys.readouterr().out
    assert figure("<CAPTION>", tmp_path / "mapped/nonspeech7k", "accuracy") == 100.0


def test_scenes_have_a_label_set_of_their_own(tmp_path):
    question = "Which scene?\n(A) bus\n(B) residential area\n(C) car\n."
    rows = [("residential_area", "(B)"), ("bus", "It is a bus."), ("car", "a residential area")]
    said = evalkit_file(tmp_path / "a.jsonl", rows, "acoustic_scene_classification", question)
    assert convert("--from", "kimi_evalkit", said, tmp_path / "o") == 0
    assert figure("<CAPTION>", tmp_path / "o/tut2017", "accuracy") == 66.67


def test_what_is_left_out_is_counted_and_faults_are_told(tmp_path, capsys):
    mixed = evalkit_file(tmp_path / "a.jsonl", [("A", "A")], "mmsu")
    with open(mixed, "a") as file:
        file.write("[]\n" + evalkit_file(tmp_path / "b.jsonl", [("IT RAINS", "null"), ("IT RAINS", "it rains")], "test_other").read_text())
    assert convert("--from", "kimi_evalkit", mixed, tmp_path / "o") == 0
    told = capsys.readouterr().out
    assert "1  subset 'mmsu' asks for what no task of ours answers" in told and "1  line that is no JSON object" in told
    assert figure("asr", tmp_path / "o/librispeech_test_other", "wer", "basic") == 50.0  # a missing answer is wrong
    assert "the model gave no answer" in (tmp_path / "o/librispeech_test_other/hyp.jsonl").read_text()

    mixed.write_text(json.dumps({"index": 0, "audio_path": "a", "answer": "x", "subset": "test_other"}))
    assert convert("--from", "kimi_evalkit", mixed, tmp_path / "o") == 1 and "give the file of answers" in capsys.readouterr().err
    run = ultraeval_file(tmp_path / "meld_emo", MELD)
    assert convert("--from", "ultraeval", run, tmp_path / "u") == 1 and "did you mean 'meld-emo'" in capsys.readouterr().err
    with open(run, "a") as file:
        file.write(json.dumps({"type": "error", "id": 99, "data": {"info": "Traceback"}}))
    assert convert("--from", "ultraeval", "--set", "meld-emo", run, tmp_path / "u") == 0
    assert "1  utterance that the run has not scored" in capsys.readouterr().out
    keys = [json.loads(line)["key"] for line in (tmp_path / "u/meld-emo/ref.jsonl").read_text().splitlines()]
    assert keys == [f"meld-emo-{number}" for number in range(8)]


def test_rules():
    table = {"car": "car", "car park": "car park", "Park": "park"}
    assert begins(" Car Park, I think", table, {}) == "car park" and begins("carpark", table, {}) == "car park"
    assert begins("carpark.", table, {}) == "car" and begins("the park", table, {}) is None
    assert named("in a car_park", table, {}) == "car park" and named("a park, a car", table, {}) is None and named("parking", table, {}) is None
    options = {"A": "car", "B": "Park"}
    assert letter("Bus", table, options) == "park" and letter("is A.", table, options) == "car" and letter("b", table, options) is None
    assert [named(text, table, options) for text in ("b", "(A) car", "**B**", "answer: A", "A park")] == ["park", "car", "park", "car", "park"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2020年3月15日有1500个人", "二零二零年三月十五日有一千五百个人"),
        ("1850年和98年", "一千八百五十年和九八年"),
        ("10500名，200元，22000张，12个", "一万零五百名，两百元，两万两千张，十二个"),
        ("60.5公斤，3.5%，3/4", "六十点五公斤，百分之三点五，四分之三"),
        ("0.05和100005个", "零点零五和十万零五个"),
        ("13812345678，0102345678，12345678人", "一三八一二三四五六七八，零一零二三四五六七八，一二三四五六七八人"),
        ("B2C的2号", "B2C的二号"),
        ("2020.5", "二零二零.五"),
        ("没有数字", "没有数字"),
    ],
)
def test_chinese_numbers(text, read):
    assert zh_numbers.spoken(text) == read


def test_normalizers_in_a_row(tmp_path):
    assert normalize.get("zh_numbers+basic")("25岁。") == "二十五岁 "
    assert normalize.get("en:whisper_en+basic,zh:zh_numbers", "zh")("5%。") == "百分之五。"
    (tmp_path / "a+b").mkdir()
    (tmp_path / "a+b/normalizer.json").write_text("{}")
    assert normalize.prepare("It's $5.", "en", f"whisper_en@{tmp_path}/a+b+split_symbols") == ["it", "is", "$", "5"]
    with pytest.raises(ValueError, match="unknown normalizer 'basic[+]nothing'"):
        normalize.get("basic+nothing")
