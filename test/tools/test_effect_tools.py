"""Effects as a registry: the same in training, offline and in lists for a robustness table."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from wenet_osum import config, lookup
from wenet_osum.config import AugmentConfig, TrainConfig
from wenet_osum.dataset import augment, steps
from wenet_osum.dataset.audio import decode, write_wav
from wenet_osum.dataset.effects.codec import CODECS
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.robustness import CONDITIONS, check
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.records import Utterance, Word

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NAMES = lookup.names(augment.EFFECTS)


def run(tool, *args):
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f"{tool}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(a) for a in args])


def bursts() -> np.ndarray:
    """Two seconds of silence with a burst of noise at 0.5 s and one at 1.2 s, below 2 kHz."""
    audio = np.zeros(32000, np.float32)
    noise = augment.resample(np.random.default_rng(0).normal(0, 0.1, 800).astype(np.float32), 4000, 16000)
    for start in (8000, 19200):
        audio[start : start + 3200] = noise
    return audio


def apply(audio, *rows, key="a"):
    return augment.apply_effects(audio, rows, augment.make_rng(0, 0, key))


@pytest.mark.parametrize("name", NAMES)
def test_every_effect_keeps_length_and_place_and_depends_on_the_key_alone(name):
    effect = lookup.load(augment.EFFECTS, name).Effect
    assert dataclasses.is_dataclass(effect) and effect.__dataclass_params__.frozen
    audio = bursts()
    kinds = [{"name": name, "kinds": [kind]} for kind in CODECS] if name == "codec" else [{"name": name}]
    for row in kinds:
        kept = audio.copy()
        changed, again = apply(audio, row), apply(audio, row)
        assert changed.dtype == np.float32 and changed.shape == audio.shape and np.isfinite(changed).all()
        assert np.array_equal(changed, again) and np.array_equal(audio, kept), "the same draw twice, and the input is left alone"
        assert any(not np.allclose(apply(audio, row, key=str(k)), audio, atol=1e-6) for k in range(3)), row
        match = np.correlate(changed[7000:12000], audio[8000:11200])
        assert abs(int(np.argmax(match)) - 1000) <= 2, f"{row}: sound moved by {int(np.argmax(match)) - 1000} samples"


@pytest.mark.parametrize("count", [160, 161, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_short_and_silent_audio_passes(name, count):
    for audio in (np.zeros(count, np.float32), np.full(count, 0.5, np.float32)):
        changed = apply(audio, {"name": name})
        assert changed.shape == audio.shape and np.isfinite(changed).all()


def test_noise_has_the_ratio_and_level_the_gain():
    audio = np.tile(bursts()[8000:11200], 10)
    noise = apply(audio, {"name": "noise", "snr_db": [10, 10]}) - audio
    assert 10 * np.log10((audio**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.3)
    assert np.allclose(apply(audio, {"name": "gain", "gain_db": [-6.0206, -6.0206]}), audio / 2, atol=1e-5)
    assert np.abs(apply(audio, {"name": "gain", "gain_db": [40, 40]})).max() == 1.0


def test_packets_are_lost_in_the_share_asked_for():
    audio = np.ones(320 * 4000, np.float32)
    lost = apply(audio, {"name": "packet_loss", "share": [0.1, 0.1], "run": 3}).reshape(-1, 320)
    assert set(np.unique(lost)) == {0, 1} and (lost.min(1) == lost.max(1)).all()
    gone = lost[:, 0] == 0
    assert gone.mean() == pytest.approx(0.1, abs=0.02)
    assert gone.sum() / (gone & ~np.roll(gone, 1)).sum() == pytest.approx(3, abs=0.6)


def test_telephone_cuts_the_treble():
    audio = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    power = np.abs(np.fft.rfft(apply(audio, {"name": "codec", "kinds": ["mulaw"]}))) ** 2
    assert power[: 2 * 3500].mean() > 100 * power[2 * 4500 :].mean()


def test_prob_is_the_share_of_utterances():
    hits = [not np.array_equal(apply(bursts(), {"name": "gain", "prob": 0.3}, key=str(k)), bursts()) for k in range(300)]
    assert np.mean(hits) == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "nois"}, "unknown effects 'nois', did you mean 'noise'"),
        ({"name": "noise", "snr": [1, 2]}, "unknown key 'snr', did you mean 'snr_db'"),
        ({"name": "noise", "snr_db": 5}, "expected 2 values"),
        ({"name": "noise", "prob": 2}, "between 0 and 1"),
        ({"name": "codec", "kinds": ["mp4"]}, "unknown codec 'mp4', did you mean 'mp3'"),
    ],
)
def test_wrong_rows_are_told(row, message):
    with pytest.raises(ValueError, match=message):
        apply(bursts(), row)


def test_training_uses_them_and_without_them_nothing_changes():
    tree = {"model": {"kind": "whisper", "whisper": "w"}, "train_parts": {"*": {}}, "max_steps": 1}
    conf = config.from_dict(tree | {"augment": {"effects": [{"name": "clipping", "share": [0.5, 0.5]}]}}, TrainConfig).augment
    assert np.abs(trained_on(conf)).max() == pytest.approx(np.abs(bursts()).max() / 2)
    speeds = {"speeds": [0.9, 1.1], "gain_db": (-3, 3)}
    plain = [trained_on(AugmentConfig(**speeds, effects=rows)) for rows in ([], [{"name": "gain", "prob": 0}])]
    assert np.array_equal(plain[0].shape, plain[1].shape)


def trained_on(conf):
    signal = steps.Signal(Utterance("a", "a.wav"), augment.make_rng(0, 0, "a"), audio=bursts())
    return steps.run(signal, SampleConfig(augment=conf)).audio


@pytest.fixture
def corpus(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.wav").write_bytes(write_wav(bursts()))
    rows = [{"key": k, "wav": f"{k}.wav", "txt": "x", "words": [["x", 0.5, 0.7]], "gender": "female"} for k in "ab"] + [{"key": "n", "wav": "none.wav"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_offline_copies(corpus, capsys):
    flags = ["--effects", "[{name: noise, snr_db: [0, 5]}, {name: gain}]", "--copies", 2, "--wav_dir", corpus / "wav"]
    assert run("augment", *flags, corpus / "m.jsonl", corpus / "out.jsonl") == 0
    found = list(read_manifest(corpus / "out.jsonl"))
    assert [u.key for u in found] == ["a-aug1", "b-aug1", "a-aug2", "b-aug2"] and "2  audio: file not found" in capsys.readouterr().out
    assert all(u.labels.get("gender") == "female" and u.words == [Word("x", 0.5, 0.7)] and u.duration == 2.0 for u in found)
    sounds = [decode(Path(u.wav).read_bytes()) for u in found]
    assert all(len(s) == 32000 for s in sounds) and not np.array_equal(sounds[0], sounds[2]) and not np.array_equal(sounds[0], sounds[1])


def test_processes_do_not_change_the_bytes(corpus):
    for jobs in (1, 2):
        assert run("augment", "--effects", "[{name: noise}]", "--jobs", jobs, "--wav_dir", corpus / f"wav{jobs}", corpus / "m.jsonl", corpus / "o.jsonl") == 0
    assert (corpus / "wav1/a-aug1.wav").read_bytes() == (corpus / "wav2/a-aug1.wav").read_bytes()


def test_bad_effects_end_in_one_line(corpus, capsys):
    for effects, message in (("noise", "must be a yaml list"), ("[{name: nois}]", "did you mean 'noise'"), ("[", "augment.py:")):
        assert run("augment", "--effects", effects, "--wav_dir", corpus / "wav", corpus / "m.jsonl", corpus / "o.jsonl") == 1
        assert message in capsys.readouterr().err


def test_robust_lists_keep_keys_and_name_conditions(corpus, capsys):
    (corpus / "two.jsonl").write_text("".join((corpus / "m.jsonl").read_text().splitlines(keepends=True)[:2]))
    assert run("make_robust_lists", "--only", "clean", "noise_0db", "--", corpus / "two.jsonl", corpus / "robust") == 0
    assert (corpus / "robust/conditions").read_text().split() == ["clean", "noise_0db"]
    clean, noisy = (list(read_manifest(corpus / f"robust/{name}.jsonl")) for name in ("clean", "noise_0db"))
    assert [u.key for u in clean] == [u.key for u in noisy] == ["a", "b"]
    left, right = (decode(Path(rows[0].wav).read_bytes()) for rows in (clean, noisy))
    assert np.allclose(left, bursts(), atol=1e-4) and np.abs(right[:6000]).mean() > 0.01
    assert run("make_robust_lists", "--only", "clean", "--", corpus / "m.jsonl", corpus / "robust") == 1, "a test list must be whole"
    assert run("make_robust_lists", "--only", "noisy", "--", corpus / "m.jsonl", corpus / "robust") == 1
    assert "unknown condition 'noisy'" in capsys.readouterr().err


def test_long_list_says_what_it_joined(corpus, capsys):
    (corpus / "two.jsonl").write_text("".join((corpus / "m.jsonl").read_text().splitlines(keepends=True)[:2]))
    assert run("make_long_list", "--pause_s", "0.5", corpus / "two.jsonl", corpus / "long") == 0
    assert "joined from 2, 0 left out" in capsys.readouterr().out
    (made,) = read_manifest(corpus / "long/manifest.jsonl")
    assert made.extra["parts"] == ["a", "b"] and made.duration == pytest.approx(5.5)
    assert len(decode(Path(made.wav).read_bytes())) == round(5.5 * 16000)
    assert run("make_long_list", corpus / "m.jsonl", corpus / "long") == 1, "what is left out is told by the exit status"


def scored(folder: Path, name: str, value: float, metric: str = "accuracy") -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    rows = [{"task": "ser", "metric": m, "subset": "all", "value": v, "low": v - 5, "high": v + 5, "count": 9, "utterances": 9, "detail": d} for m, v, d in
            ((metric, value, {"field": "emotion"}), ("ece", 3.0, {"field": "emotion", "minor": True}))]  # fmt: skip
    (folder / name / "score.json").write_text(json.dumps({"scores": rows}))


def test_robustness_table(corpus, capsys):
    (corpus / "conditions").write_text("clean\nnoise_0db\n")
    scored(corpus / "s", "clean", 80.0)
    command = ["robust_table", "--conditions", corpus / "conditions", "--out", corpus / "t.md", corpus / "s"]
    assert run(*command) == 1 and "noise_0db/score.json cannot be read" in capsys.readouterr().err
    scored(corpus / "s", "noise_0db", 62.5)
    assert run(*command) == 0
    assert capsys.readouterr().out == (corpus / "t.md").read_text()
    rows = (corpus / "t.md").read_text().splitlines()
    assert rows[0] == "| condition | ser accuracy |" and rows[2:] == ["| clean | 80.0 (75.0–85.0) |", "| noise_0db | 62.5 (57.5–67.5), -17.5 |"]
    scored(corpus / "s", "noise_0db", 62.5, metric="wer")
    assert run(*command) == 1 and "has no ser emotion accuracy all, which clean has" in capsys.readouterr().err


def test_conditions_of_ones_own(corpus, capsys):
    (corpus / "c.yaml").write_text("soft: [{name: gain, gain_db: [-20, -20]}]\n")
    (corpus / "bad.yaml").write_text("soft: [{name: gain, gain: 1}]\n")
    run("make_robust_lists", "--conditions", corpus / "c.yaml", corpus / "m.jsonl", corpus / "r")
    assert np.abs(decode((corpus / "r/wav/soft/a.wav").read_bytes())).max() == pytest.approx(np.abs(bursts()).max() / 10, abs=1e-3)
    assert run("make_robust_lists", "--conditions", corpus / "bad.yaml", corpus / "m.jsonl", corpus / "r") == 1
    assert "condition soft: " in capsys.readouterr().err
    check(CONDITIONS)


def test_events_through_the_tool(corpus, capsys):
    (corpus / "cough.wav").write_bytes(write_wav(np.full(1600, 0.3, np.float32)))
    events = [{"key": "c", "wav": "cough.wav", "event": "cough"}, {"key": "t", "wav": "cough.wav", "event": "throat clearing"}, {"key": "q", "wav": "gone.wav", "event": "sigh"}]
    (corpus / "e.jsonl").write_text("".join(json.dumps(r) + "\n" for r in events))
    assert run("add_events", "--events", corpus / "e.jsonl", "--labels", "清嗓子", "--wav_dir", corpus / "w", "--", corpus / "m.jsonl", corpus / "o.jsonl") == 0
    found = list(read_manifest(corpus / "o.jsonl"))
    assert [(u.key, u.labels.get("event")) for u in found] == [("a+throat_clearing", "throat clearing"), ("b+throat_clearing", "throat clearing")]
    assert all(len(decode(Path(u.wav).read_bytes())) / 16000 == pytest.approx(u.duration, abs=1e-3) for u in found)
    assert found[0].extra["recordings"][1] == f"{corpus}/cough.wav"
    page = capsys.readouterr().out
    assert "2 utterances, 1 left out; events: throat clearing 2" in page and "1  audio: file not found" in page
    assert run("add_events", "--events", corpus / "e.jsonl", "--labels", "sigh", "--wav_dir", corpus / "w", "--", corpus / "m.jsonl", corpus / "o.jsonl") == 1
    assert "2  event audio: file not found" in capsys.readouterr().out
    assert run("add_events", "--events", corpus / "m.jsonl", "--wav_dir", corpus / "w", "--", corpus / "m.jsonl", corpus / "o.jsonl") == 1
    assert "no row has an event" in capsys.readouterr().err
    assert run("add_events", "--share", 0, "--events", corpus / "e.jsonl", "--wav_dir", corpus / "w", "--", corpus / "m.jsonl", corpus / "o.jsonl") == 0
    assert [u.labels.get("event") for u in read_manifest(corpus / "o.jsonl")] == [None, None]


def test_events_are_kept_however_often_the_tool_runs(corpus):
    """The manifest of the events is written over; what was in it stays in events.jsonl, until it is prepared anew."""
    for folder, text in (("sp", (corpus / "m.jsonl").read_text()), ("ev", "")):
        (corpus / folder / "train").mkdir(parents=True)
        (corpus / folder / "train/manifest.jsonl").write_text(text.replace('"wav": "', f'"wav": "{corpus}/'))
    (corpus / "cough.wav").write_bytes(write_wav(np.full(1600, 0.3, np.float32)))
    row = {"key": "e0", "wav": f"{corpus}/cough.wav", "event": "cough"}
    ours = corpus / "ev/train/manifest.jsonl"
    for key in ("e0", "e0", "e1", "e1"):
        if not ours.read_text() or key not in (corpus / "ev/train/events.jsonl").read_text():
            ours.write_text(json.dumps(row | {"key": key}) + "\n")
        assert run("add_events", "--events", corpus / "ev", "--wav_dir", corpus / "mix", "--", corpus / "sp", corpus / "ev") == 0
        kept = json.loads((corpus / "ev/train/events.jsonl").read_text())
        assert kept["key"] == key and kept["wav"].endswith("cough.wav")
    ours.unlink()  # as a run that failed leaves it
    assert run("add_events", "--events", corpus / "ev", "--wav_dir", corpus / "mix", "--", corpus / "sp", corpus / "ev") == 0


def test_originals_and_recordings_of_other_rows_are_not_written_over(corpus, capsys):
    text = (corpus / "m.jsonl").read_text()
    (corpus / "twice.jsonl").write_text(text + text)
    (corpus / "cough.wav").write_bytes(write_wav(np.full(1600, 0.3, np.float32)))
    (corpus / "e.jsonl").write_text(json.dumps({"key": "c", "wav": "cough.wav", "event": "cough"}) + "\n")
    events = ["add_events", "--share", 0, "--events", corpus / "e.jsonl", "--wav_dir"]
    assert run(*events, corpus / "w", "--", corpus / "twice.jsonl", corpus / "o.jsonl") == 0
    assert "2 utterances, 4 left out" in (page := capsys.readouterr().out) and "3  duplicate key" in page
    before = (corpus / "a.wav").read_bytes()
    assert run(*events, corpus, "--", corpus / "m.jsonl", corpus / "o.jsonl") == 1
    assert "is the original" in capsys.readouterr().err and (corpus / "a.wav").read_bytes() == before
