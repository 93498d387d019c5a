"""Every task writes what it can read back; every label set, prompt and combination holds."""

import itertools
import sys

import pytest

from wenet_osum import lookup, tasks
from wenet_osum.records import Utterance, Word
from wenet_osum.tasks.base import Field, LabelSet, Task, escape, find_tags, join_words, unescape
from wenet_osum.tasks.fields import FreeText

FULL = Utterance(
    key="a.b c/你好",
    wav="x.wav",
    txt="hello <w> \\ world",
    words=[Word("hello", 0.0, 0.5), Word("<w>", 0.5, 0.61), Word("世", 0.7, 0.8), Word("界", 0.8, 1.25)],
    lang="en",
    labels={
        "emotion": "Angry",
        "style": "诗歌",
        "gender": "F",
        "age": 67,
        "event": "Crying_baby",
        "translation": "ja < nein",
        "speaker_turns": "[speaker 3] hello <w> [speaker 1] \\ world",
    },
    reply="yes < no",
)
for known in tasks.label_fields().values():  # those of further files, too
    if FULL.get(known.attribute) is None:
        FULL.labels[known.attribute] = known.labels.names[0]


@pytest.mark.parametrize("name", tasks.names())
def test_round_trip(name):
    task = tasks.parse(name)
    reading = task.read(task.write(FULL))
    assert not reading.unread
    for field in task.fields:
        if field.kind == "label":
            assert reading.labels[field.name] == field.value(FULL)
    if any(f.attribute == "txt" for f in task.fields):
        assert reading.transcript == FULL.txt
    if name == "srwt":
        assert reading.words == FULL.words
        assert reading.transcript == "hello <w>世界"
    if name == "sttc":
        assert reading.reply == FULL.reply


def test_the_eight_tasks_and_their_tags():
    tags = {name: tasks.parse(name).tags for name in tasks.default_names()}
    assert tags.items() >= {
        "asr": "<TRANSCRIBE>",
        "srwt": "<TRANSCRIBE> <ALIGN>",
        "ved": "<TRANSCRIBE> <CAPTION>",
        "ser": "<TRANSCRIBE> <EMOTION>",
        "ssr": "<TRANSCRIBE> <STYLE>",
        "sgc": "<TRANSCRIBE> <GENDER>",
        "sap": "<TRANSCRIBE> <AGE>",
        "sttc": "<TRANSCRIBE> <S2TCHAT>",
    }.items()


def test_labels_stand_in_the_order_they_were_asked_for():
    """Trailing ones are read from the right; that is nobody's business."""
    reading = tasks.parse("<EMOTION><TRANSCRIBE><STYLE><AGE><GENDER>").read("<sad>so<客服><old><female>")
    assert list(reading.labels.items()) == [("emotion", "sad"), ("style", "客服"), ("age", "old"), ("gender", "female")]


def test_every_pair_of_fields_in_either_order():
    fields = [f for name in tasks.names() for f in tasks.parse(name).fields]
    tags = sorted({f.tag for f in fields if f.kind != "reply" and " " not in f.tag})
    for first, second in itertools.permutations(tags, 2):
        task = tasks.parse(first + second)
        reading = task.read(task.write(FULL))
        assert not reading.unread, (first, second, reading)
        assert reading.labels == {f.name: f.value(FULL) for f in task.label_fields}
        assert all(task.prompts(lang)[0] for lang in ("zh", "en"))


@pytest.mark.parametrize("text", ["<transcribe><EMOTION>", " <TRANSCRIBE>  <emotion> ", "SER", "ser"])
def test_spellings_of_a_task(text):
    assert tasks.parse(text).name == "ser"


def test_align_modifies_transcribe_wherever_it_stands():
    assert tasks.parse("<EMOTION><ALIGN><TRANSCRIBE>").tags == "<EMOTION> <TRANSCRIBE> <ALIGN>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<EMOTON>", "did you mean '<EMOTION>'"),
        ("sre", "known: .*asr"),
        ("<ALIGN>", "which is missing"),
        ("<AGE><AGE>", "2 times"),
        ("<S2TCHAT><TRANSCRIBE>", "must be the last"),
        ("<AGE> and", "not a tag"),
    ],
)
def test_bad_tasks_say_what_to_do(text, message):
    with pytest.raises(ValueError, match=message):
        tasks.parse(text)


def test_published_form_is_read():
    reading = tasks.parse("srwt").read("<0.00>新<0.2><0.20>年<0.4><0.40>喜<0.71>")
    assert reading.words == [Word("新", 0.0, 0.2), Word("年", 0.2, 0.4), Word("喜", 0.4, 0.71)]
    assert tasks.parse("ser").read("你好<anger>").labels == {"emotion": "anger"}


@pytest.mark.parametrize(
    ("task", "text", "unread"),
    [
        ("ser", "hello", {"emotion"}),
        ("ser", "", {"emotion"}),
        ("ser", "hello <furious>", {"emotion"}),
        ("ser", "hello \\<sad\\>", {"emotion"}),
        ("ser", "hello <sad> more", {"emotion"}),
        ("srwt", "<0.1>a<0.2> junk <0.3>b<0.4>", {"words"}),
        ("srwt", "plain words", {"words"}),
        ("sttc", "no reply", {"reply"}),
        ("<AGE><GENDER>", "<old>", {"gender"}),
        ("<AGE><GENDER>", "<old>text<male>", {"gender", "text"}),
        ("<TRANSCRIBE><ALIGN><EMOTION>", "<0.1>a<0.2>", {"emotion"}),
    ],
)
def test_what_cannot_be_read_is_kept_as_unread(task, text, unread):
    assert set(tasks.parse(task).read(text).unread) == unread


def test_escaped_backslash_before_a_tag():
    utterance = Utterance(key="a", wav="b", txt="ends in \\", labels={"emotion": "sad"})
    task = tasks.parse("ser")
    assert task.write(utterance) == "ends in \\\\<sad>"
    assert task.read(task.write(utterance)).labels == {"emotion": "sad"}
    assert [tag[1] for tag in find_tags("\\<a\\><b>\\\\<c>")] == ["b", "c"]


@pytest.mark.parametrize("text", ["a<b>c", "\\", "\\<", "<|endoftext|>", "<<>>", "你<好"])
def test_escape_round_trip(text):
    assert unescape(escape(text)) == text
    assert not find_tags(escape(text))


@pytest.mark.parametrize(("age", "label"), [(3, "child"), (12.9, "child"), (13, None), (17, None), (18, "adult"), ("59", "adult"), (60, "old"), ("Elderly", "old")])
def test_age_bands(age, label):
    assert tasks.parse("sap").fields[1].value(Utterance(key="a", wav="b", labels={"age": age})) == label


def test_a_missing_or_unknown_label_is_absent_never_other():
    task = tasks.parse("ser")
    for emotion in (None, "bored"):
        utterance = Utterance(key="a", wav="b", txt="x", labels={"emotion": emotion})
        assert not task.present(utterance)
        assert task.missing(utterance) == ["emotion"]
        with pytest.raises(ValueError, match="lacks emotion"):
            task.targets(utterance)


def test_own_label_sets_keep_known_spellings():
    task = tasks.parse("ser", {"emotion": ["happy", "bored"]})
    assert task.fields[1].labels.names == ("happy", "bored")
    assert task.read("hi<joy>").labels == {"emotion": "happy"}
    assert task.read("hi<anger>").unread
    with pytest.raises(ValueError, match="did you mean 'emotion'"):
        tasks.parse("ser", {"emotions": ["a"]})


@pytest.mark.parametrize("names", [[], ["a", "A"], ["a<b"], ["1.5"], [" "]])
def test_label_sets_that_cannot_be_read_back_are_refused(names):
    with pytest.raises(ValueError, match="label"):
        LabelSet(names)


ASK = {"zh": "x", "en": "x"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: LabelSet(["a"], {"a": "bc"}), r"must be a list, write \['bc'\]"),
        (lambda: LabelSet(["a", "b"], {"a": ["x"], "b": ["X"]}), "'X' stands under 'a' and 'b'"),
        (lambda: Field("x", "<x>", "x", "accuracy", ASK), "must read <LIKE_THIS>"),
        (lambda: Field("x", "<X>", "x", "accuracy", {"en": "x"}), "ask must hold zh and en, zh lacks"),
        (lambda: FreeText("x", "<X>", "x", "bleu", ASK), "mark '' must be a tag"),
        (lambda: Task("x", (), {"zh": ["x"]}), "written_prompts must hold zh and en, en lacks"),
    ],
)
def test_wrong_parts_of_a_task_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


HEAD = "from wenet_osum.tasks.base import Task\nfrom wenet_osum.tasks.fields import label\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import wenet_osum.no_such_part", "task file wrong.py cannot be used: ModuleNotFoundError"),
        ("A = 1", "task file wrong.py cannot be used: AttributeError"),
        ("TASK = Task('right', ())", "wrong.py holds task 'right'"),
        ("TASK = Task('wrong', (label('mine', '<AGE>', ['a'], {'zh': 'x', 'en': 'x'}),))", "another field has the tag <AGE>"),
        ("TASK = Task('wrong', (label('age', '<MINE>', ['a'], {'zh': 'x', 'en': 'x'}),))", "or the name 'age'"),
    ],
)
def test_a_wrong_task_file_is_named(tmp_path, monkeypatch, text, message):
    (tmp_path / "wrong.py").write_text(HEAD + text)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__])
    lookup.add_folder("wenet_osum.tasks", tmp_path)
    with pytest.raises(ValueError, match=message):
        tasks.parse("asr")
    sys.modules.pop("wenet_osum.tasks.wrong", None)


@pytest.mark.parametrize("name", tasks.names())
def test_prompts_in_two_languages_several_each(name):
    for lang in ("zh", "en"):
        prompts = tasks.parse(name).prompts(lang)
        assert len(set(prompts)) == len(prompts) >= 5


def test_join_words_by_script():
    assert join_words(["hello", "world", "你", "好", "ok"]) == "hello world你好ok"
    assert join_words(["コ", "ー", "ヒ", "ー", "を", "飲", "む"]) == "コーヒーを飲む"
    assert join_words(["한국어", "로", "말해요"]) == "한국어 로 말해요", "Korean puts spaces between words"


def test_timed_kana_stand_side_by_side():
    task = tasks.parse("srwt")
    words = [Word(text, i / 10, i / 10 + 0.1) for i, text in enumerate("これ")]
    assert task.write(Utterance("a", "a.wav", words=words)) == "<0.00>こ<0.10><0.10>れ<0.20>"
    words = [Word(text, float(i), i + 0.5) for i, text in enumerate(("안녕", "하세요"))]
    assert task.write(Utterance("a", "a.wav", words=words)) == "<0.00>안녕<0.50> <1.00>하세요<1.50>"
