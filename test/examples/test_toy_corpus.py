"""The toy corpus: splits that share nothing, true word times, questions that have to be composed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "examples" / "toy" / "local"
MODULES = ("checks", "grammar", "plan", "prepare", "prosody", "questions", "render", "voices")


@pytest.fixture(scope="module")
def toy():
    """The recipe's modules; their plain names are taken back afterwards, since other recipes have a prepare.py too."""
    import importlib

    kept = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    before = list(sys.path)
    sys.path.insert(0, str(LOCAL))
    yield type("Toy", (), {name: importlib.import_module(name) for name in MODULES})
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.path[:] = before
    sys.modules.update(kept)


def _prepare(out: Path, jobs: int) -> str:
    command = [sys.executable, str(LOCAL / "prepare.py"), "--out", str(out), "--seed", "3", "--scale", "0.02", "--jobs", str(jobs)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("toy") / "data"
    return out, _prepare(out, jobs=1)


def _rows(out: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (out / split / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def _digests(out: Path) -> dict[str, str]:
    files = {str(p.relative_to(out)): p.read_bytes().replace(str(out).encode(), b"") for p in sorted(out.rglob("*")) if p.is_file()}
    return {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}


def test_files_do_not_depend_on_jobs(made, tmp_path):
    out, _ = made
    _prepare(tmp_path / "data", jobs=2)
    assert _digests(tmp_path / "data") == _digests(out)


def test_manifests_fit_the_audio(made):
    out, printed = made
    for split in ("train", "dev", "test"):
        for row in _rows(out, split):
            info = soundfile.info(row["wav"])
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert row["duration"] == pytest.approx(info.frames / 16000, abs=1e-4)
            words = row["words"]
            assert ("" if row["lang"] == "zh" else " ").join(w for w, _, _ in words) == row["txt"]
            assert all(a < b for _, a, b in words) and all(x[2] <= y[1] + 1e-3 for x, y in zip(words, words[1:], strict=False))
            assert words[0][1] >= 0 and words[-1][2] <= row["duration"]
    assert "from the words alone" in printed


def test_text_has_train_only(made):
    out, _ = made
    lines = set((out / "text" / "train.txt").read_text(encoding="utf-8").splitlines())
    assert lines == {r["txt"] + ("<开始回答>" + r["reply"] if "reply" in r else "") for r in _rows(out, "train")}
    assert not {line.partition("<")[0] for line in lines} & {r["txt"] for split in ("dev", "test") for r in _rows(out, split)}


def test_speech_is_loud_inside_words_and_quiet_before(made):
    """On utterances without an event or an effect: what is before the first word is much quieter than the words."""
    for row in [r for r in _rows(made[0], "test") if "reply" in r]:
        audio, _ = soundfile.read(row["wav"])
        begin, end = (round(row["words"][i][j] * 16000) for i, j in ((0, 1), (-1, 2)))
        assert np.sqrt((audio[: begin - 80] ** 2).mean()) < 0.15 * np.sqrt((audio[begin:end] ** 2).mean())


def test_full_plan_keeps_its_promises(toy):
    orders = {split: toy.plan.plan(split, 1, 1.0) for split in toy.plan.SIZES}
    toy.checks.check_disjoint(orders)
    toy.checks.check_vocabulary(orders, 60)
    for lang in ("en", "zh"):
        assert 85 <= len({w for o in orders["test"] if o.lang == lang for w in o.words}) <= 110
    for pool in toy.plan.POOLS:
        assert sum(o.pool == pool for o in orders["test"]) >= 200
    for rows in orders.values():
        for gender, age in toy.voices.GROUPS:
            share = np.mean([(o.voice.gender, o.voice.age) == (gender, age) for o in rows])
            assert share == pytest.approx(1 / 6, abs=0.03)
    assert all(3 <= len(o.words) <= 6 if o.lang == "en" else 4 <= len(o.words) <= 8 for rows in orders.values() for o in rows)


def test_voices_of_a_split_share_no_number(toy):
    made = {split: toy.voices.make_voices(split, 12, np.random.default_rng(5)) for split in ("train", "dev", "test")}
    for group in toy.voices.GROUPS:
        for name in ("pitch_hz", "formants", "shift", "rate", "range"):
            train, dev, test = ({getattr(voice, name) for voice in made[split][group]} for split in ("train", "dev", "test"))
            assert not train & test and not train & dev and not dev & test


def test_overlap_is_refused(toy):
    orders = {split: toy.plan.plan(split, 1, 0.02) for split in ("train", "test")}
    orders["test"].append(orders["train"][0])
    with pytest.raises(ValueError, match="stands in train and test"):
        toy.checks.check_disjoint(orders)


def test_rare_word_is_refused(toy):
    orders = {split: toy.plan.plan(split, 1, 0.02) for split in ("train", "test")}
    with pytest.raises(ValueError, match="words fewer than 60 times"):
        toy.checks.check_vocabulary(orders, 60)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("kind", ["opposite", "after", "color"])
def test_test_questions_are_new_combinations_of_known_words(toy, lang, kind):
    train, test = (toy.questions.questions(lang, kind, split) for split in ("train", "test"))
    assert {tuple(w) for w, _ in train}.isdisjoint({tuple(w) for w, _ in test})
    fixed = {w for words, _ in train for w in words if sum(w in x for x, _ in train) == len(train)}
    for words, answer in test:
        assert all(sum(w in x for x, _ in train) >= 6 for w in words if w not in fixed)
        assert not set(answer.split() if lang == "en" else answer) & (set(words) - fixed - set(toy.grammar.WORDS[lang]["number"]))


def test_questions_are_answered_right(toy):
    answers = {" ".join(w): a for lang in ("en", "zh") for k in toy.questions.KINDS for s in ("train", "dev", "test")
               for w, a in toy.questions.questions(lang, k, s)}  # fmt: skip
    assert answers["opposite of big and hot"] == "small and cold"
    assert answers["what follows two and five"] == "three and six"
    assert answers["color of grass and milk"] == "green and white"
    assert answers["大 和 热 的 反 义 词"] == "小和冷"
    assert answers["三 和 五 的 后 面"] == "四和六"
    assert answers["草 和 雪 的 颜 色"] == "绿和白"


def test_text_baseline_finds_words_that_tell(toy):
    def row(words: str, emotion: str) -> toy.prepare.Utterance:
        return toy.prepare.Utterance(key=words, wav="x", labels={"emotion": emotion}, words=[toy.render.Word(w, 0, 1) for w in words.split()])

    train = [row("sun sky", "happy"), row("sun", "happy"), row("rain sky", "sad"), row("rain", "sad")]
    assert toy.checks.text_baseline(train, [row("sun", "happy"), row("rain", "sad")], "emotion") == (100.0, 50.0)
    assert toy.checks.text_baseline(train, [row("sun", "sad"), row("rain", "happy")], "emotion")[0] == 0.0


def test_effects_keep_words_in_order_and_audible(toy):
    rng = np.random.default_rng(0)
    audio = (0.1 * np.sin(np.arange(16000) / 9)).astype(np.float32)
    words = [toy.render.Word(str(i), 0.1 + 0.3 * i, 0.4 + 0.3 * i) for i in range(3)]
    for prosody in [*toy.prosody.EMOTIONS.values(), *toy.prosody.STYLES.values()]:
        if prosody.effect:
            out, moved = prosody.effect(audio, words, rng)
            assert np.isfinite(out).all() and np.abs(out).max() > 0.02
            assert [w.text for w in moved] == ["0", "1", "2"] and moved[-1].end <= len(out) / 16000 + 1e-3
