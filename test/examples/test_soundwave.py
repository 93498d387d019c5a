"""examples/soundwave with tiny stand-ins: a filtered corpus, three phases, answers and scores."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from wenet_osum import config, tasks
from wenet_osum.decode.write import fingerprint
from wenet_osum.models import build

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "examples/soundwave"


def sounds(folder: Path, tone) -> None:
    """The sounds that examples/natural keeps apart, one per split."""
    for split in ("train", "dev", "test"):
        wav = folder / f"wav/sound_{split}.wav"
        wav.write_bytes(tone(0.3, 700))
        path = folder / f"corpora/sounds/data/{split}/manifest.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"key": f"sound_{split}", "wav": str(wav), "event": "cry", "duration": 0.3}) + "\n")


def first_pass(folder: Path, texts: list[str], whisper: Path) -> None:
    """Answers that are there already are not asked for again; the last of them is wrong."""
    folder.mkdir(parents=True)
    said = [*texts[:-1], "something else was said"]
    rows = [
        {"key": f"train{i}", "task": "<TRANSCRIBE>", "text": text, "transcript": text}
        for i, text in enumerate(said)
    ]
    (folder / "hyp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"model": str(whisper), "weights": fingerprint(whisper), "language": "en", "num_beams": 1}
    (folder / "settings.json").write_text(json.dumps(settings))


@pytest.mark.slow
def test_stages_to_the_scores_at_two_steps(tmp_path, tone, smoke, published_pair, two_steps_published, natural_corpora):
    natural, work = tmp_path / "natural", tmp_path / "work"
    texts = natural_corpora(natural)
    sounds(natural, tone)
    first_pass(work / "exp/first_pass/speechocean762", texts, Path(published_pair["whisper"]).resolve())
    models = ["--whisper", "whisper", "--llm", "llm", "--corpora_dir", str(natural)]
    rules = ["--rules", "--max_wer 30 --min_s none"]
    override = f"{two_steps_published} repeat_gate.utterances=0 model.adapter_conf.heads=2"
    said = smoke("soundwave", work, *models, *rules, override=override)

    assert "7 of 8 utterances" in said and "1  word error rate above 30 %" in said
    assert "ravdess is left out" in said
    mixture = config.load(work / "data/all/data.yaml", config.DataConfig)
    assert mixture.mixture.temperature == [1, 6, 11]
    assert [source.name for source in mixture.train] == ["clean_speechocean762"]

    # Phase I hears where sounds are.
    alone = config.load(work / "data/asr/data.yaml", config.DataConfig)
    assert [source.name for source in alone.train] == ["clean_speechocean762", "sounds_in_speechocean762"]
    written = (work / "corpora/sounds_in_speechocean762/data/train/manifest.jsonl").read_text().splitlines()
    assert len(written) == 7 and all("[cry]" in json.loads(row)["txt"] for row in written)
    classes = json.loads((work / "data/ctc_classes.json").read_text())
    assert classes

    exp = work / "exp"
    model = build.load(exp / "3_sft/final")
    assert model.config.adapter == "ctc_shrink" and model.lora is not None
    assert model.adapter.unshrunk == ("srwt",) and model.config.losses[0]["classes"]
    for phase, told in (("1_align", False), ("2_shrink", True), ("3_sft", True)):
        log = (exp / phase / "train.log").read_text()
        assert ("tok/s of audio" in log) == told, phase
    score = json.loads((exp / "score/sap:speechocean762/score.json").read_text())
    assert {row["task"] for row in score["scores"]} == {"sap"}


def test_what_must_be_prepared_first_is_named(tmp_path, smoke):
    with pytest.raises(AssertionError, match="run 'bash run.sh --recipe natural --stop_stage 1' first"):
        smoke("soundwave", tmp_path / "work", "--corpora_dir", str(tmp_path), "--stop_stage", "0")


def test_prompts_ask_for_what_is_trained():
    """Every task of phase III that has no file has questions of its own, in both languages."""
    data = config.load(RECIPE / "conf/data_sft.yaml", config.DataConfig)
    asked = {task for source in data.train for task in source.tasks} - set(tasks.names())
    prompts = yaml.safe_load((RECIPE / "local/prompts.yaml").read_text(encoding="utf-8"))
    assert asked == set(prompts)
    for task, table in prompts.items():
        assert tasks.parse(task).tags == task and set(table) == {"zh", "en"}
        assert all(len(set(found)) == len(found) > 1 for found in table.values())


def test_the_phases_are_soundwaves():
    confs = [config.load(path, config.TrainConfig) for path in sorted(RECIPE.glob("conf/train_*.yaml"))]
    align, shrink, sft = confs
    assert align.model.ce_weight == 0 and not any("shrinker" in part for part in align.train_parts)
    assert (shrink.model.ce_weight, shrink.model.losses[0]["weight"]) == (1.0, 0.3)
    assert not sft.model.losses and set(sft.train_parts) == {"adapter.shrinker.*", "*lora*"}
    assert not any(re.search("encoder", part) for conf in confs for part in conf.train_parts)
