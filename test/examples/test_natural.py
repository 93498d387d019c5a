"""examples/natural: the data of all corpora in small folders of their official layouts; its lists and probes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from wenet_osum import config
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.manifest import read_manifest, write_manifest
from wenet_osum.decode import joint

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "examples/natural"
KEYS = (RECIPE / "conf/test300.txt").read_text(encoding="utf-8").split()
WEIGHTS, DATA = os.environ.get("OSUM_REAL_WEIGHTS"), os.environ.get("OSUM_REAL_DATA")


@pytest.fixture(scope="module")
def lists(load_local):
    return load_local("natural", "lists")


@pytest.fixture(scope="module")
def probe(load_local):
    return load_local("natural", "probe")


def speech(folder: Path, tone) -> None:
    """speechocean762: ten training speakers, and four test speakers who say what the fixed list names."""
    named = [key for key in KEYS if key[1:5] in sorted({key[1:5] for key in KEYS})[:4]]
    keys = {"train": [f"0{speaker}{i:04d}" for speaker in range(9000, 9010) for i in range(3)]}
    keys["test"] = [*named, *(f"{key[:5]}9{i:03d}" for i, key in enumerate(named[:3]))]
    for split, found in keys.items():
        (folder / split).mkdir(parents=True)
        speakers = sorted({key[1:5] for key in found})
        rows = {"wav.scp": [], "text": [], "utt2spk": []}
        for i, key in enumerate(found):
            path = folder / f"WAVE/SPEAKER{key[1:5]}/{key}.WAV"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tone(0.6))
            rows["wav.scp"].append(f"{key}\tWAVE/SPEAKER{key[1:5]}/{key}.WAV")
            rows["text"].append(f"{key}\tSHE READ LINE {'ABC'[i % 3]}")
            rows["utt2spk"].append(f"{key} {key[1:5]}")
        rows["spk2age"] = [f"{s}\t{(6, 30)[i % 2]}" for i, s in enumerate(speakers)]
        rows["spk2gender"] = [f"{s}\t{'mf'[i // 2 % 2]}" for i, s in enumerate(speakers)]
        for name, lines in rows.items():
            (folder / split / name).write_text("\n".join(lines) + "\n")


def emotions(folder: Path, tone) -> None:
    for actor in (1, 2, 13, 15, 19):
        (folder / f"Actor_{actor:02d}").mkdir(parents=True)
        for emotion in range(1, 9):
            path = folder / f"Actor_{actor:02d}/03-01-{emotion:02d}-01-01-01-{actor:02d}.wav"
            path.write_bytes(tone(0.3, 100 + 20 * emotion))


def sounds(folder: Path) -> None:
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, category in ((20, "crying_baby"), (21, "sneezing"), (0, "dog")):
            name = f"{fold}-{100 * fold + target}-A-{target}.wav"
            rows.append(f"{name},{fold},{target},{category},True,{100 * fold + target},A")
            wave = np.random.default_rng([fold, target]).normal(0, 0.1, 8000)
            (folder / "audio" / name).write_bytes(write_wav(wave.astype(np.float32)))
    (folder / "meta/esc50.csv").write_text("\n".join(rows) + "\n")


def spoken_digits(folder: Path, tone) -> None:
    (folder / "recordings").mkdir(parents=True)
    for digit in range(10):
        for take in (0, 5, 45):
            (folder / f"recordings/{digit}_ann_{take}.wav").write_bytes(tone(0.2, 150 + 30 * digit))


def index(folder: Path, rows: list[dict], tone) -> None:
    folder.mkdir(parents=True)
    for row in rows:
        (folder / f"{row['key']}.wav").write_bytes(tone(0.5))
    lines = [json.dumps(row | {"wav": f"{row['key']}.wav", "dur": 0.5}) for row in rows]
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def downloads(tmp_path, tone) -> Path:
    """All corpora, small, side by side."""
    folder = tmp_path / "downloads"
    speech(folder / "speechocean762", tone)
    emotions(folder / "ravdess", tone)
    sounds(folder / "ESC-50")
    spoken_digits(folder / "digits", tone)
    yue, chen = {"lang": "zh", "speaker": "yue"}, {"lang": "zh", "speaker": "chen"}
    words = [yue | {"key": f"w{i}", "txt": text} for i, text in enumerate("我你是了")]
    syllables = [chen | {"key": f"s{i}", "pinyin": p} for i, p in enumerate(("cha2", "he2", "wu2", "nia1"))]
    index(folder / "cmn_words", words + syllables, tone)
    string = yue | {"key": "string", "txt": "我你", "words": [["我", 0.1, 0.2], ["你", 0.3, 0.4]]}
    index(folder / "cmn_strings", [string], tone)
    timed = {"key": "t", "lang": "en", "txt": "a <vocnoise> b [um]", "words": [["a", 0.1, 0.2], ["b", 0.3, 0.4]]}
    index(folder / "en_word_times", [timed], tone)
    index(folder / "mfa_styles", [{"key": "m", "lang": "en", "txt": "a b", "style": "whisper"}], tone)
    return folder


def rows(work: Path, name: str, split: str):
    return list(read_manifest(work / f"corpora/{name}/data/{split}/manifest.jsonl"))


SMALL = ["--digits", "6 2 3"]


@pytest.mark.slow
def test_data_of_every_corpus_and_task(downloads, tmp_path, smoke, published_pair):
    work = tmp_path / "work"
    models = ["--whisper", "whisper", "--llm", "llm"]
    said = smoke("natural", work, "--corpora", str(downloads), "--stop_stage", "1", *models, *SMALL)
    train, test = rows(work, "speechocean762", "train"), rows(work, "speechocean762", "test")
    assert {u.txt for u in train + test} == {f"she read line {c}" for c in "abc"}
    assert not {u.speaker for u in train} & {u.speaker for u in test}
    fixed = [u.key for u in rows(work, "test300", "test")]
    assert fixed and set(fixed) < {u.key for u in test} and set(fixed) <= {*KEYS}
    assert f"test300.txt: subset: {len(fixed)} of 300" in said
    assert {u.labels["age"] for u in rows(work, "adults", "test")} == {30.0}
    # sounds of the test fold are in no other split, and speakers keep their side
    heard = {split: rows(work, "esc50", split) for split in ("train", "dev", "test")}
    of_fold = {s: {Path(u.extra["recordings"][1]).name[0] for u in found} for s, found in heard.items()}
    assert of_fold["test"] == {"5"} and of_fold["dev"] == {"4"} and of_fold["train"] <= {"1", "2", "3"}
    assert {u.speaker for u in heard["test"]} == {u.speaker for u in test}
    assert {u.labels["event"] for found in heard.values() for u in found} == {"cry", "sneeze", "other"}
    actors = {s: {u.speaker for u in rows(work, "ravdess", s)} for s in ("train", "dev", "test")}
    assert actors == {"train": {"actor01", "actor02"}, "dev": {"actor13"}, "test": {"actor15"}}
    assert "calm" in {u.labels["emotion"] for u in rows(work, "ravdess", "test")}
    assert len(rows(work, "fsdd", "test")) == 3 and all(u.words for u in rows(work, "fsdd", "test"))
    assert {u.speaker for u in rows(work, "cmn", "train")} == {"yue"}
    (timed,), (style,) = rows(work, "en_word_times", "test"), rows(work, "mfa_styles", "test")
    assert timed.txt == "a b" and len(timed.words) == 2 and Path(timed.wav).exists()
    assert not style.labels and style.extra["index_style"] == "whisper"
    mixture = config.load(work / "data/all/data.yaml", config.DataConfig)
    assert {s.name for s in mixture.train} >= {"speechocean762", "esc50", "ravdess", "fsdd", "cmn"}
    assert {*mixture.dev} >= {"asr", "srwt", "ved", "ser", "sgc", "sap"} and "aligned is left out" in said
    alone = config.load(work / "data/asr/data.yaml", config.DataConfig)
    assert {*alone.dev} == {"asr"} and all(s.tasks == {"asr": 1.0} for s in alone.train)
    assert "of 27 utterances have a reply" in said

    # After phase 2: sentences that are given times join the mixture, once per checkpoint.
    tools = tmp_path / "tools"
    tools.mkdir()
    timed_words = "for row in rows: row['words'] = [['she', 0.1, 0.2]]"
    (tools / "force_align.py").write_text(
        f"import json, pathlib, sys\nrows = [json.loads(line) for line in open(sys.argv[-2])]\n{timed_words}\n"
        "out = pathlib.Path(sys.argv[-1])\nout.parent.mkdir(parents=True, exist_ok=True)\n"
        "out.write_text(''.join(json.dumps(row) + '\\n' for row in rows))\nprint('aligned', out)\n"
    )
    final = work / "exp/2_align/final"
    final.mkdir(parents=True)
    for checkpoint, times in (("one", 2), ("one", 0), ("two", 2)):
        (final / "average.json").write_text(checkpoint)
        variables = {"tools": str(tools), "conf": str(RECIPE / "conf"), "examples": str(RECIPE.parent)}
        script = f". {RECIPE}/local/align.sh"
        done = subprocess.run(["bash", "-ec", script], cwd=work, env=os.environ | variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("aligned /") + done.stdout.count("aligned corpora") == times and "aligned is left out" not in done.stdout
    mixture = config.load(work / "data/all/data.yaml", config.DataConfig)
    assert "aligned" in {s.name for s in mixture.train}


def test_a_further_phase_adds_silence_to_the_mixture_and_nothing_else():
    usual, further = (config.load(RECIPE / f"conf/{name}.yaml", config.DataConfig).train for name in ("data", "further/data"))
    assert [source for source in further if source.name != "silence"] == usual


@pytest.mark.parametrize(("arm", "steps"), [("none", 150), ("beside", 150), ("first", 150), ("longer", 300)])
def test_arms_with_and_without_ctc_have_their_steps_whatever_an_epoch_is(arm, steps):
    conf = config.load(RECIPE / f"conf/aligned/{arm}.yaml", config.TrainConfig)
    assert (conf.max_steps, conf.max_epochs) == (steps, None)


@pytest.mark.slow
def test_stages_to_the_scores_at_two_steps(tmp_path, tone, smoke, published_pair, two_steps_published, downloads):
    """Digits alone, tiny models in the place of the published ones: three phases, decoded and scored; then two adapters, and a further phase."""
    spoken_digits(tmp_path / "alone/digits", tone)
    options = ["--corpora", str(tmp_path / "alone"), "--whisper", "whisper", "--llm", "llm", *SMALL]
    override = f"{two_steps_published} repeat_gate.utterances=0 model.adapter_conf.heads=4"
    smoke("natural", tmp_path / "work", *options, "--decode", "--batch_size 4", override=override)
    exp = tmp_path / "work/exp"
    assert {p.name for p in exp.iterdir()} >= {"1_whisper", "2_align", "3_joint", "decode", "score"}
    score = json.loads((exp / "score/srwt:fsdd/score.json").read_text())
    assert {row["task"] for row in score["scores"]} == {"srwt"}

    options = ["--whisper", "whisper", "--llm", "llm", "--adapters", "linear ctc_shrink_pool"]
    override = f"{two_steps_published} repeat_gate.utterances=0"
    small = {"linear": "", "ctc_shrink_pool": "model.adapter_conf.heads=4"}
    for adapter, heads in small.items():
        options[-1] = adapter
        said = smoke("natural", tmp_path / "work", *options, "--align_override", heads, override=override, script="adapters.sh")
    table = said[said.index("| adapter |") :].splitlines()
    assert len(table) == 3 and table[2].startswith("| ctc_shrink_pool | ")
    columns = table[0].split(" | ")
    factor = table[2].split(" | ")[columns.index("real-time factor")]
    assert float(factor) > 0
    assert "adapters beside each other" in (tmp_path / "work/adapters/table.svg").read_text(encoding="utf-8")
    times = columns.index("SRWT, within 100 ms, %")
    assert re.fullmatch(r"[\d.]+ \([\d.]+–[\d.]+\)|nan.*", table[2].split(" | ")[times])

    # The further phase needs speech, and sounds that are none.
    work = tmp_path / "all"
    models = ["--whisper", "whisper", "--llm", "llm"]
    smoke("natural", work, "--corpora", str(downloads), "--stop_stage", "1", "--replies", "false", *models, *SMALL)
    shutil.copytree(exp, work / "exp")
    said = smoke("natural", work, *models, "--arms", "told", "--decode", "--max_tokens 8", override=override, script="further.sh")
    table = [line.split(" | ") for line in said[said.index("| model |") :].splitlines()]
    assert [row[0] for row in table[2:]] == ["| before", "| told"] and len({len(row) for row in table if len(row) > 1}) == 1
    empty = table[0].index("WER %, told")
    assert not table[2][empty] and table[3][empty], "a model that knows no words that may occur is not told any"
    heard = {u.key: u for u in rows(work, "hot300", "test")}
    assert {*heard} == {u.key for u in rows(work, "test300", "test")} and all(u.extra["hotwords"] == [] for u in heard.values()), "no word is rare here"
    assert {u.txt for u in rows(work, "silence", "train")} == {""}
    (silence,) = [s for s in config.load(work / "data/further/data.yaml", config.DataConfig).train if s.name == "silence"]
    assert silence.without_speech and silence.tasks == {"asr": 1.0}
    config_ = json.loads((work / "exp/further/told/final/text.json").read_text(encoding="utf-8"))
    assert "hotwords" in json.dumps(config_), "the model's folder says that it can be told words"

    # With CTC and without it, by the encoder of phase 1.
    classes = ["--tokenizer", published_pair["llm"], "--lowercase", "--list", work / "data/asr/train/manifest.jsonl", "--out", work / "data/ctc_classes.json"]
    subprocess.run([sys.executable, ROOT / "tools/make_ctc_classes.py", *classes], check=True)
    override = f"{two_steps_published} repeat_gate.utterances=0"
    said = smoke("natural", work, *models, "--arms", "none first", "--seeds", "1", "--decode", "--max_tokens 8", override=override, script="aligned.sh")
    table = said[said.index("| arm |") :].splitlines()
    assert [re.match(r"\| (\w+) \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", line)[1] for line in table[2:]] == ["none", "first"]
    models_of = {arm: json.loads((work / f"exp/aligned/{arm}.1/final/config.json").read_text(encoding="utf-8")) for arm in ("none", "first")}
    assert {arm: len(found["losses"]) for arm, found in models_of.items()} == {"none": 0, "first": 1}

    # One model with more and less silence behind the speech.
    said = smoke("natural", work, "--model", "exp/aligned/first.1/final", "--pads", "1", "--decode", "--max_tokens 8", override=None, script="pads.sh")
    table = said[said.index("| silence") :].splitlines()
    assert re.match(r"\| 1 \| [\d.]+ \| [\d.]+–[\d.]+ \| [\d.]+ \|$", table[2])
    padded = json.loads((work / "exp/pads/1/model/config.json").read_text(encoding="utf-8"))
    assert padded["encoder"]["pad_s"] == 1.0 and models_of["first"]["encoder"]["pad_s"] == 5


def test_what_is_not_there_is_left_out_by_name(tmp_path, tone, smoke):
    spoken_digits(tmp_path / "digits", tone)
    options = ["--corpora", str(tmp_path), "--stop_stage", "1", *SMALL]
    said = smoke("natural", tmp_path / "work", *options)
    assert {p.name for p in (tmp_path / "work/corpora").iterdir()} == {"fsdd"}
    mixture = config.load(tmp_path / "work/data/all/data.yaml", config.DataConfig)
    assert [s.name for s in mixture.train] == ["fsdd"] and {*mixture.dev} == {"asr", "srwt"}
    assert "ravdess is left out: no " in said


def test_strings_of_the_other_speaker_have_exact_times(downloads, tmp_path, load_prepare):
    prepare = load_prepare("natural")
    prepare.prepare(prepare.arguments(["--set", "cmn", "--data_dir", str(downloads), "--out", str(tmp_path / "cmn")]))
    strings = list(read_manifest(tmp_path / "cmn/test/manifest.jsonl"))
    assert len(strings) == prepare.STRINGS and {u.speaker for u in strings} == {"chen"}
    for string in strings[:5]:
        assert string.txt == "".join(w.text for w in string.words) and set(string.txt) <= set("茶河无")
        audio = prepare.decode(Path(string.wav).read_bytes())
        for word in string.words:
            inside = audio[round(word.start * 16000) : round(word.end * 16000)]
            assert np.abs(inside).max() > 0.05, "speech lies where the word is said to be"
        first, second = string.words[:2]  # the manifest has milliseconds, 16 samples each
        between = audio[round(first.end * 16000) + 16 : round(second.start * 16000) - 16]
        assert np.abs(between).max() == 0
    (downloads / "cmn_words/index.jsonl").write_text("")
    with pytest.raises(ValueError, match="no such file|does not exist|is missing|No such file"):
        (downloads / "cmn_strings/index.jsonl").unlink()
        prepare.prepare(prepare.arguments(["--set", "cmn", "--data_dir", str(downloads), "--out", str(tmp_path / "x")]))


def test_unseen_sentences_are_those_that_no_training_utterance_has(lists, tmp_path):
    training, test, out = (tmp_path / name for name in ("train.jsonl", "test.jsonl", "unseen.jsonl"))
    write_manifest(training, [lists.Utterance("t0", "t.wav", txt="one"), lists.Utterance("t1", "t.wav", txt="two")])
    write_manifest(test, [lists.Utterance(f"k{text}", "x.wav", txt=text) for text in ("two", "three", "two one")])
    words = ["--manifest", test, "--unseen", training, "--out", out]
    lists.make(lists.arguments([str(word) for word in words]))
    assert [u.txt for u in read_manifest(out)] == ["three", "two one"]


def test_the_fixed_list_is_even_over_speakers_and_needs_no_seed(lists):
    assert len(KEYS) == len({*KEYS}) == 300 and sorted(KEYS) == KEYS
    counts = Counter(key[1:5] for key in KEYS)
    assert len(counts) == 125 and {*counts.values()} <= {2, 3}, "speakers of the official test set"
    rows = [lists.Utterance(f"k{i}", "x.wav", speaker=f"s{i % 4}") for i in range(40)]
    drawn = lists.draw(rows, 10)
    assert drawn == lists.draw(rows[::-1], 10), "the order of the corpus does not matter"
    assert sorted(Counter(int(key[1:]) % 4 for key in drawn).values()) == [2, 2, 3, 3]
    assert set(lists.draw(rows, 5)) < set(drawn), "a longer list holds a shorter one"


def test_rare_words_are_told_among_others_that_are_not_spoken(load_local, tmp_path):
    hotwords = load_local("natural", "hotwords")
    of = lambda texts: [hotwords.Utterance(f"k{i}", "x.wav", txt=text) for i, text in enumerate(texts)]  # noqa: E731
    hotwords.write_manifest(tmp_path / "train.jsonl", of(["the weather is fine", "fine weather", "a dog"]))
    hotwords.write_manifest(tmp_path / "test.jsonl", of(["Weather in Lisbon", "the elephant met Anna", "a dog is fine", "fine weather"]))
    given = ["--train", str(tmp_path / "train.jsonl"), "--manifest", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "out.jsonl"), "--distractors", "2"]
    hotwords.make(hotwords.arguments(given))
    told = {u.key: set(u.extra["hotwords"]) for u in read_manifest(tmp_path / "out.jsonl")}
    rare = {"lisbon", "elephant", "anna"}
    assert told["k0"] == rare and told["k1"] == rare, "their own, and as many others as there are"
    assert len(told["k2"]) == len(told["k3"]) == 2 and told["k2"] | told["k3"] <= rare, "nothing of theirs is rare"
    first = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    hotwords.make(hotwords.arguments(given))
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == first


def test_a_probe_finds_what_is_there_and_resamples_speakers(probe):
    torch.manual_seed(1)
    targets = torch.arange(90) % 3
    told = torch.nn.functional.one_hot(targets, 3) * 4.0 + torch.randn(90, 3)
    states = torch.stack([torch.randn(90, 3), told], dim=1)  # layer 1 knows nothing, layer 2 does
    of = {"train": slice(0, 60), "dev": slice(60, 75), "test": slice(75, 90)}
    split = probe.normalized({name: states[part] for name, part in of.items()})
    labels = {name: targets[part] for name, part in of.items()}
    assert split["train"].mean(0).abs().max() < 1e-5
    best = max(probe.candidates(split, labels, 3), key=lambda row: row[0])
    assert best[0] > 0.9 and best[1] == 1
    assert probe.right(best[3], split["test"][:, 1], labels["test"]).mean() > 0.8
    # two speakers, one always right: whole speakers are drawn, so everything from 0 to 100 % is possible
    correct = np.array([1.0] * 10 + [0.0] * 10)
    assert probe.interval(correct, ["a"] * 10 + ["b"] * 10) == (0.0, 100.0)
    low, high = probe.interval(correct, [str(i) for i in range(20)])
    assert 20 < low < 50 < high < 80


def test_pooled_states_do_not_depend_on_the_batch(probe, published_pair, tmp_path, tone):
    for i, seconds in enumerate((0.3, 0.5, 0.9)):
        (tmp_path / f"{i}.wav").write_bytes(tone(seconds, 200 + 100 * i))
    found = [probe.Utterance(f"{i}", f"{i}.wav", duration=1.0) for i in range(3)]
    encoder = probe.read(str(published_pair["whisper"])).eval()
    together = probe.pooled_states(encoder, found, tmp_path / "m.jsonl")
    alone = torch.cat([probe.pooled_states(encoder, [u], tmp_path / "m.jsonl") for u in found])
    assert together.shape == (3, 6, 32)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_labels_are_decoded_with_weights_that_decoding_takes():
    """Weights are shares: the LLM has what is left of 1."""
    given = re.search(r"^label_weight=(\S+)", (RECIPE / "run.sh").read_text(encoding="utf-8"), re.MULTILINE)[1]
    sets = f'label_weight={given}; . "{RECIPE}/local/sets.sh"; for task in ser sgc sap ved; do task_options $task:x; done'
    asked = subprocess.run(["bash", "-c", sets], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(asked) == 4
    for line in asked:
        flag, value = line.split()
        assert flag == "--rescore"
        joint.check_weights(joint.parse(value), temperature=0.0)


def test_stages_stay_short_and_every_test_set_is_made():
    """Each stage is a few commands under a comment; a set that nothing writes would be passed over for ever."""
    parts = [RECIPE / "run.sh", *sorted((RECIPE / "local").glob("*.sh"))]
    script = "".join(path.read_text(encoding="utf-8") for path in parts)
    made = set(re.findall(r"corpora/(\w+)/data/test/manifest\.jsonl", script))
    made |= set(re.findall(r"corpora/\w+/data corpora/(\w+)/data\b", script))
    made |= set(re.findall(r"^cp \S+ corpora/(\w+)/data/train/data\.list$", script, re.MULTILINE))
    made |= set(re.findall(r"\$work/corpora/(\w+)/data", script)) | {"en_word_times", "mfa_styles"}
    asked = set(re.findall(r"\b[a-z]+:(\w+)\b", re.search(r'^tests="([^"]*)"', script, re.MULTILINE)[1]))
    assert asked and asked <= made, asked - made
    rows = {s.name for name in ("data", "data_asr") for s in config.load(RECIPE / f"conf/{name}.yaml", config.DataConfig).train}
    assert rows <= made


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not (WEIGHTS and DATA), reason="OSUM_REAL_WEIGHTS and OSUM_REAL_DATA name no folders of models and corpora")
def test_real_corpora_and_a_published_whisper(tmp_path):
    """The data stage on the real downloads, and Whisper's own decoder on a few real sentences."""
    from wenet_osum.decode.jobs import read_list
    from wenet_osum.decode.whisper_own import transcribe
    from wenet_osum.score import wer
    from wenet_osum.score.normalize import get

    work = tmp_path / "work"
    command = ["bash", str(RECIPE / "run.sh"), "--corpora", DATA, "--work", str(work), "--stage", "0", "--stop_stage", "1"]
    subprocess.run([*command, "--replies", "false"], check=True)
    found = list(rows(work, "speechocean762", "test"))
    assert len({u.speaker for u in found}) >= 30 and all(u.txt == u.txt.lower() for u in found)
    listed = work / "corpora/speechocean762/data/test/manifest.jsonl"
    jobs, _ = read_list(str(listed))
    few = jobs[:: max(1, len(jobs) // 16)]
    (whisper,) = [p for p in Path(WEIGHTS).iterdir() if "whisper" in p.name]
    transcribe(few, tmp_path / "hyp.jsonl", str(whisper), 8, language="en")
    said = {row["key"]: row["text"] for row in map(json.loads, (tmp_path / "hyp.jsonl").read_text().splitlines())}
    write = get("whisper_en")
    truth = {u.key: write(u.txt) for u in found if u.key in said}
    assert wer([*truth.values()], [write(said[key]) for key in truth]) < 0.9
