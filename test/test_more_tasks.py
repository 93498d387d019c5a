"""From manifest to report with tasks that are none of OSUM's, each of which is one file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum import lookup, tasks
from wenet_osum.bin import recognize, score
from wenet_osum.config import BatchConfig, DataConfig, FilterConfig, SourceConfig, TrainConfig
from wenet_osum.corpus.split import counted_columns
from wenet_osum.dataset.estimate import TokenEstimate
from wenet_osum.dataset.manifest import from_row, read_manifest
from wenet_osum.dataset.plan import Plan
from wenet_osum.dataset.pool import Pool, build_pool
from wenet_osum.dataset.sample import SampleConfig, make_sample, read_tags
from wenet_osum.dataset.shard import Handles, load_list, pack, read_utterance, write_list
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.ctc_draft import begins_with_transcript
from wenet_osum.decode.longform import Piece, join
from wenet_osum.decode.row import Row
from wenet_osum.decode.text_formats import txt
from wenet_osum.models.losses import labels
from wenet_osum.records import Hypothesis, Utterance
from wenet_osum.serve.writing import as_json, as_text
from wenet_osum.small.losses.label_probe import Loss
from wenet_osum.small.pseudo_speech import PseudoSpeech
from wenet_osum.text.template import Template
from wenet_osum.train.start import _new_template

ROWS = [
    {"lang": "en", "translation": "die Katze <da>", "target_lang": "de", "speaker_turns": "[speaker 9] the [speaker 4] cat"},
    {"lang": "cmn", "translation": "None", "speaker_turns": "[speaker 1] the cat"},
    {"lang": "zh-en", "translation": " ", "speaker_turns": "the cat"},
]
TARGETS = {
    "lid": {"k0": "the cat<en>", "k1": "the cat<zh>"},
    "st": {"k0": "the cat<开始翻译>die Katze \\<da\\>", "k1": "the cat<开始翻译>None"},
    "sot": {"k0": "[speaker 1] the [speaker 2] cat", "k1": "[speaker 1] the cat"},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three utterances, the last of which can be asked none of the tasks: a list and shards."""
    folder, rows = tmp_path_factory.mktemp("more"), []
    for i, row in enumerate(ROWS):
        wav = str(folder / f"{i}.wav")
        soundfile.write(wav, np.random.default_rng(i).normal(0, 0.1, 8000), 16000, subtype="PCM_16")
        rows.append({"key": f"k{i}", "wav": wav, "txt": "the cat", **row})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = list(read_manifest(folder / "manifest.jsonl"))
    write_list(folder / "json.list", pack(known, folder / "json", log=print).paths)
    return folder


def pool(path: Path, task: str, **more) -> Pool:
    source = SourceConfig(name="mine", list=str(path), tasks={task: 1.0}, **more)
    return build_pool(source, load_list(path, Counter()), BatchConfig(), FilterConfig(min_s=0.1))


def targets_of(able: Pool, task: str, template: Template) -> dict[str, str]:
    found, conf = {}, SampleConfig(filter=FilterConfig(min_s=0.1))
    for row in Plan([able], BatchConfig(), seed=1, epoch=0).column("row"):
        utterance, audio = read_utterance(able.indices[0], int(row), Handles())
        if tasks.parse(task).present(utterance):
            sample = make_sample(utterance, audio, tasks.parse(task), template, conf)
            found[utterance.key] = template.decode(sample.answer_ids)
    return found


@pytest.mark.parametrize("task", TARGETS)
def test_targets_are_the_same_from_any_list(corpus, tiny_folder, task):
    template = Template.load(tiny_folder)
    asked = [u.with_values({"task": task}) for u in read_manifest(corpus / "manifest.jsonl")]
    write_list(corpus / f"{task}.list", pack(asked, corpus / f"osum_{task}", layout="osum", log=print).paths)
    for name in ("manifest.jsonl", "json.list", f"{task}.list"):
        assert targets_of(pool(corpus / name, task), task, template) == TARGETS[task], name


def test_the_plan_counts_the_tokens_of_a_translation(corpus):
    able = pool(corpus / "json.list", "st")
    index = able.indices[0]
    assert index.text_bytes("translation").tolist() == [14, 4, 0]
    assert index.column("translation").tolist() == ["14", "4", ""], "the text itself is not kept"
    task, lengths = tasks.parse("st"), np.array([[7, 0, 0]])
    one, other = (TokenEstimate().answer(task, lengths, {"translation": np.array([size])})[0] for size in (10, 60))
    assert other - one == 50
    assert pool(corpus / "json.list", "st", where={"target_lang": "de"}).row.tolist() == [0]
    with pytest.raises(ValueError, match="where translation: it is a free text"):
        pool(corpus / "json.list", "st", where={"translation": "None"})


def test_prompts_of_samples_name_the_target_language(corpus, tiny_folder):
    template = Template.load(tiny_folder)
    conf = SampleConfig(filter=FilterConfig(min_s=0.1), prompt_lang="en")
    utterance = next(read_manifest(corpus / "manifest.jsonl"))
    audio = Path(utterance.wav).read_bytes()
    sample = make_sample(utterance, audio, tasks.parse("st"), template, conf)
    assert "translate it into German." in template.decode(sample.prompt_ids)


def test_a_walk_through_decoding_score_and_report(corpus, tiny_folder):
    asked = "<TRANSCRIBE><LANGUAGE><TRANSLATE>"
    manifest, out = str(corpus / "manifest.jsonl"), str(corpus / "hyp")
    args = ["--model", str(tiny_folder), "--list", manifest, "--out", out, "--max_tokens", "9"]
    assert recognize.main([*args, "--task", asked]) == 0
    answers = [json.loads(line) for line in (corpus / "hyp/hyp.jsonl").read_text(encoding="utf-8").splitlines()]
    known = set(tasks.label_fields()["language"].labels.names)
    assert len(answers) == 3 and all(answer["labels"]["language"] in known for answer in answers)
    assert all(sum(answer["probs"]["language"].values()) == pytest.approx(1) for answer in answers)
    # the last has a language that is none of the set
    (corpus / "two.jsonl").write_text("".join((corpus / "manifest.jsonl").read_text().splitlines(True)[:2]))
    args = ["--ref", str(corpus / "two.jsonl"), "--hyp", out, "--out", str(corpus / "score"), "--resamples", "5"]
    assert score.main([*args, "--task", asked, "--report"]) == 0
    scores = json.loads((corpus / "score/score.json").read_text(encoding="utf-8"))["scores"]
    found = {(row["metric"], row["subset"]) for row in scores}
    assert found >= {("bleu", "de"), ("chrf", "de"), ("bleu", "und"), ("accuracy", "all")}
    page = (corpus / "score/report.html").read_text(encoding="utf-8")
    assert "BLEU" in page and "tok:13a" in page, "the signature is shown"


def said(template: Template, task: str, text: str) -> AnswerState:
    """The answer of a model that wants to say ``text``, and goes on after every label."""
    state = AnswerState(template, tasks.parse(task))
    for token in [*template.encode(text), template.end_id]:
        if state.done:
            break
        choice = state.step(token)
        if choice is not None:
            state.take_label(choice, "de")
    return state


@pytest.mark.parametrize(
    ("task", "text", "answer", "cut"),
    [
        ("lid", "the cat<klingon>", "the cat<de>", False),
        ("lid", "the cat", "the cat<de>", False),
        ("st", "the cat<开始翻译>die Katze", "the cat<开始翻译>die Katze", False),
        ("sot", "[speaker 1] the [speaker 2] cat<happy>", "[speaker 1] the [speaker 2] cat", True),
    ],
)
def test_constrained_decoding_ends(tiny_folder, task, text, answer, cut):
    template = Template.load(tiny_folder)
    state = said(template, task, text)
    assert state.done and state.cut == cut and template.decode(state.ids) == answer


def test_ctc_proposes_no_transcript_with_marks(tiny_folder):
    template = Template.load(tiny_folder)
    rows = {task: Row("k", AnswerState(template, tasks.parse(task)), 1.0, 9) for task in ("asr", "lid", "sot", "srwt")}
    assert [task for task, row in rows.items() if begins_with_transcript(row)] == ["asr", "lid"]


def test_answers_to_pieces_are_joined_and_flagged():
    task, pieces = tasks.parse("st"), [Piece(begin, begin + 20.0, np.zeros(0, np.float32), 0.0) for begin in (0.0, 20.0)]
    answers = [Hypothesis("a", task.tags, "", transcript="the cat", texts={"translation": text}) for text in ("die", "Katze")]
    whole = join(pieces, answers, task, "a")
    assert whole.texts == {"translation": "die Katze"} and whole.flags == ["text_in_pieces"]
    assert whole.text == "the cat the cat<开始翻译>die Katze"


def test_texts_are_shown_wherever_a_reply_is():
    answer = Hypothesis("a", "<TRANSLATE>", "", transcript="the cat", texts={"translation": "die Katze"})
    assert as_json(answer, None) == {"text": "the cat", "texts": {"translation": "die Katze"}}
    assert "translation: die Katze\n" in as_text(answer, None) and "  translation: die Katze\n" in txt(answer)
    assert Hypothesis.from_dict(json.loads(answer.to_json())) == answer


def test_texts_survive_other_formats_and_are_no_classes(corpus):
    rows = list(read_manifest(corpus / "manifest.jsonl"))[:2]
    rows[1].labels["translation"] = "12"
    kaldi, lost = lookup.load("wenet_osum.dataset.formats", "kaldi"), Counter()
    kaldi.write(str(corpus / "kaldi"), rows, lost)
    back = list(kaldi.read(str(corpus / "kaldi"), Counter(), ""))
    assert [row.labels for row in back] == [row.labels for row in rows] and not lost
    assert "target_lang" in counted_columns() and not {"translation", "speaker_turns"} & set(counted_columns())
    with pytest.raises(ValueError, match="'translation' must be text"):
        from_row({"key": "a", "wav": "b", "translation": ["x"]})


def test_a_text_with_tags_is_read_into_its_fields(tiny_folder):
    utterance = Utterance("a", "b.wav", txt="the cat<开始翻译>die Katze", task="st")
    read = read_tags(utterance, tasks.parse("st"), Template.load(tiny_folder))
    assert (read.txt, read.labels) == ("the cat", {"translation": "die Katze"})


def test_what_small_models_learn_stays_as_it_was(tiny_folder):
    """Every list has languages: what they would add to losses and lines must be asked for."""
    template = Template.load(tiny_folder)
    utterance = Utterance("a", "b.wav", txt="the cat", lang="en", labels={"translation": "die Katze"})
    assert "language" not in {field.name for field in Loss(template).fields}
    assert {task.name for task in PseudoSpeech([utterance], template, 1).tasks} == set(tasks.default_names())
    more = PseudoSpeech([utterance], template, 1, {"lid": 2.0})
    assert "lid" in {task.name for task in more.tasks}


def test_a_model_knows_the_tasks_that_it_was_taught(tiny_folder, tmp_path):
    before = Template.load(tiny_folder)
    assert before.task_names() == tasks.default_names()
    source = SourceConfig(name="mine", list="a.list", tasks={"<LANGUAGE>": 1.0, "asr": 1.0})
    _new_template(TrainConfig(), before.tokenizer, DataConfig([source])).save(tmp_path)
    assert Template.load(tmp_path).task_names() == [*tasks.default_names(), "lid"]


def test_a_model_is_taught_the_labels_that_its_queries_hear(tiny_folder):
    """The loss learns from every label of an utterance, whatever the task."""
    conf = TrainConfig()
    conf.model.adapter_conf = {"label_queries": ["emotion", "language"]}
    template = _new_template(conf, Template.load(tiny_folder).tokenizer, None)
    assert "lid" in template.task_names()
    assert {"emotion", "language"} <= {field.name for field in labels.Loss(template).fields}
