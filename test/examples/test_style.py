"""examples/style: genres and corpora become styles by the map, what has none is counted, and classes of one corpus are named."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.tasks.ssr import STYLE

GENRES = ["news", "customer_service", "Fairy Tale", "对话", "小说", "诗歌", "悬疑恐怖", "幽默"]


@pytest.fixture
def prepare(load_prepare):
    return load_prepare("style")


@pytest.fixture
def corpus(tmp_path, tone):
    """A corpus of all styles, three speakers each; one of read books; rows that cannot be used."""
    folder = tmp_path / "lists"
    folder.mkdir()
    rows = []
    for g, genre in enumerate(GENRES):
        for i in range(6):
            name = f"{g}{i}.wav"
            (folder / name).write_bytes(tone(0.3, 120 + 20 * g))
            rows.append({"key": f"{g}{i}", "wav": name, "txt": f"sentence {g}", "speaker": f"s{g}{i // 2}", "genre": genre})
    rows[0]["style"] = "audiobook"  # a row's own label goes before its genre
    more = {"wav": "00.wav", "txt": "x", "speaker": "odd"}
    rows += [more | {"key": "a", "genre": "opera"}, more | {"key": "b", "genre": "drama"}, more | {"key": "c", "genre": ["news", "poetry"]}]
    rows += [more | {"key": "d", "genre": "news", "speaker": None}, more | {"key": "e", "genre": "news", "txt": ""}]
    rows += [more | {"key": "f", "genre": "news", "wav": "lost.wav"}]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no row\n")
    for i in range(4):
        (folder / f"book{i}.wav").write_bytes(tone(0.3, 300))
    books = [{"key": f"b{i}", "wav": f"book{i}.wav", "txt": "a book", "speaker": f"reader{i}"} for i in range(4)]
    (folder / "librispeech.jsonl").write_text("".join(json.dumps(row) + "\n" for row in books))
    return folder


def run(prepare, corpus, out, *more):
    prepare.prepare(prepare.arguments(["--data_dir", str(corpus), "--out", str(out), *more]))
    return {name: list(read_manifest(out / name / "manifest.jsonl")) for name in ("train", "dev", "test")}


def test_genres_and_corpora_become_the_eight_styles(prepare, corpus, tmp_path, capsys):
    rows = [u for found in run(prepare, corpus, tmp_path / "data").values() for u in found]
    styles = Counter(u.labels.get("style") for u in rows)
    assert set(styles) == set(STYLE.labels.names) and sum(styles.values()) == 8 * 6 + 4 and (styles["有声书"], styles["新闻科普"]) == (6 + 4 + 1, 5)
    by_key = {u.key: u for u in rows}
    assert by_key["librispeech-b0"].labels.get("style") == "有声书" and by_key["mine-11"].labels.get("style") == "客服"
    page = capsys.readouterr().out
    for line in (
        "1  not in the map: mine/opera",
        "1  no style of ours: mine/drama",
        "1  genres of several styles: mine/news, poetry",
        "1  no transcript",
        "1  no speaker; --by recording takes such rows",
        "1  audio: file not found",
        "1  manifest: a line must be one JSON object",
        "有声书: librispeech 4, mine 7",
    ):
        assert line in page, line
    single = next(line for line in page.splitlines() if "come from one corpus each" in line)
    assert "新闻科普" in single and "有声书" not in single


def test_speakers_stay_apart(prepare, corpus, tmp_path):
    (corpus / "librispeech.jsonl").unlink()
    splits = run(prepare, corpus, tmp_path / "data")
    speakers = [{u.speaker for u in rows} for rows in splits.values()]
    assert all(speakers) and not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])
    assert any(u.labels.get("style") == "有声书" and u.extra["genre"] == "news" for rows in splits.values() for u in rows), "the row's own style"


def test_own_maps_and_faults(prepare, corpus, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("source: mine\nstyle: {mine/news: 客服, news: 新闻科普, mine: 其他}\n")
    (corpus / "librispeech.jsonl").unlink()
    rows = [u for found in run(prepare, corpus, tmp_path / "data", "--map", str(own), "--by", "recording").values() for u in found]
    assert {u.labels.get("style") for u in rows if u.extra["genre"] == "news"} == {"客服", "有声书"} and {u.labels.get("style") for u in rows if u.extra["genre"] == "对话"} == {"其他"}
    with pytest.raises(ValueError, match="label map meld has no table 'style'"):
        run(prepare, corpus, tmp_path / "data", "--map", "meld")
    with pytest.raises(ValueError, match=r"no \*\.jsonl in"):
        run(prepare, tmp_path, tmp_path / "data")
    (corpus / "mine.jsonl").write_text(json.dumps({"key": "a", "wav": "00.wav", "txt": "x", "genre": "opera"}) + "\n")
    with pytest.raises(ValueError, match="no row of 1 manifests has a style: not in the map: mine/opera"):
        run(prepare, corpus, tmp_path / "data")


@pytest.mark.slow
def test_recipe_from_corpus_to_report_at_two_steps(corpus, tmp_path, smoke):
    (corpus / "librispeech.jsonl").unlink()
    smoke("style", tmp_path / "work", "--data_dir", str(corpus))
    assert (tmp_path / "work/exp/score/report.html").exists()
