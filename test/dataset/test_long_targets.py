"""Limits of targets, per task: what is surely too long is never read, the share is told beforehand,
decoders are not overrun.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from wenet_osum import config
from wenet_osum.config import BatchConfig, ConfigError, FilterConfig, SourceConfig, TrainConfig
from wenet_osum.dataset.dataset import Mixture
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.index import Index, column_names
from wenet_osum.dataset.measure import measure_tokens
from wenet_osum.dataset.pool import build_pool, tell_long_targets
from wenet_osum.dataset.sample import SampleConfig, sample_from_audio
from wenet_osum.records import Utterance, Word
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(["red cat", "你好世界"] * 9, vocab_size=500))


def timed(count, key="k"):
    """Chinese characters at 4.5 a second, each with its times."""
    words = [Word("你好世界"[i % 4], i / 4.5, (i + 1) / 4.5) for i in range(count)]
    return Utterance(key, "k.wav", txt="".join(word.text for word in words), words=words)


def index(counts):
    n = len(counts)
    lengths = np.array([(3 * c, c, 0) for c in counts], dtype=np.int32)
    columns = {c: np.full(n, "") for c in column_names()}
    seconds = np.array([c / 4.5 + 0.2 for c in counts], dtype=np.float32)
    keys = np.array([f"u{i}" for i in range(n)])
    return Index(
        "a.tar", keys, np.arange(n), np.ones(n, np.int64), seconds, columns, lengths, "tar"
    )


@pytest.fixture
def measured(template, monkeypatch):
    """Pools over an index whose utterances are made on the spot."""

    def pool(counts, limits, share=None, reach=None):
        one = index(counts)
        told = [(timed(c, f"u{i}"), one.select(slice(i, i + 1))) for i, c in enumerate(counts)]
        monkeypatch.setattr("wenet_osum.dataset.measure._some_utterances", lambda indices: told)
        source = SourceConfig("a", "a.list", tasks=share or {"srwt": 1.0})
        estimate = lambda tasks: measure_tokens([one], template, tasks)  # noqa: E731
        return build_pool(
            source, [one], BatchConfig(), limits, estimate, parse=template.task, reach=reach
        )

    return pool


def test_a_limit_is_a_number_or_a_table_by_task():
    assert FilterConfig(max_target_tokens=200).target_limit("srwt", "<TRANSCRIBE> <ALIGN>") == 200
    table = FilterConfig(
        max_target_tokens={"default": 100, "srwt": 900, "<TRANSCRIBE><gender>": 50}
    )
    assert table.target_limit("srwt", "<TRANSCRIBE> <ALIGN>") == 900
    assert table.target_limit("sgc", "<TRANSCRIBE> <GENDER>") == 50
    assert table.target_limit("asr", "<TRANSCRIBE>") == 100
    assert FilterConfig(max_target_tokens={"srwt": 9}).target_limit("asr", "<TRANSCRIBE>") == 400


def test_srwt_of_29_s_fits_unless_told_otherwise(template, measured):
    """Fast speech of a whole recording, with the times of each character, and a vocabulary that
    spends 14 tokens on one, as published ones do."""
    limits = FilterConfig()
    assert limits.target_limit("srwt", "<TRANSCRIBE> <ALIGN>") >= 29 * 5.6 * 14
    assert limits.target_limit("asr", "<TRANSCRIBE>") < 1000, "words alone need no such room"
    pool = measured([130, 10], limits)
    assert len(pool) == 2 and not pool.dropped and pool.too_long["srwt"].over == 0


def test_both_forms_load_and_are_checked(tmp_path):
    base = {"model": {"whisper": "w", "kind": "whisper"}, "train_parts": {"*": {}}, "max_steps": 1}
    for limit in (200, {"default": 200, "srwt": 2400}):
        conf = config.from_dict(base | {"filter": {"max_target_tokens": limit}})
        assert conf.filter.max_target_tokens == limit
        config.save(conf, tmp_path / "train.yaml")
        assert config.load(tmp_path / "train.yaml") == conf
    with pytest.raises(ConfigError, match=r"filter\.max_target_tokens: expected int, got 'many'"):
        config.from_dict(base | {"filter": {"max_target_tokens": "many"}})
    with pytest.raises(
        ConfigError, match=r"filter\.max_target_tokens\.srwt: expected int, got 'many'"
    ):
        config.from_dict(base | {"filter": {"max_target_tokens": {"srwt": "many"}}})
    with pytest.raises(ConfigError, match=r"filter\.max_target_tokens\.asr 0: must be 1 or more"):
        config.from_dict(base | {"filter": {"max_target_tokens": {"asr": 0}}})


def test_an_unknown_task_in_the_table_stops(template):
    conf = TrainConfig(filter=FilterConfig(max_target_tokens={"srtw": 900}))
    with pytest.raises(ValueError, match=r"filter\.max_target_tokens: .*'srtw'"):
        Mixture(config.DataConfig(train=[SourceConfig("a", "none.list")]), conf, template, 80)


def test_only_what_is_surely_too_long_is_left_out_and_without_reading(template, measured):
    counts = [*range(1, 131), *range(1, 131)]
    limit = len(template.target(template.task("srwt"), timed(60)).ids)
    pool = measured(counts, FilterConfig(max_target_tokens=limit))
    kept = {counts[row] for row in pool.row}
    assert set(range(1, 61)) <= kept, "a target that fits was left out"
    assert max(kept) <= 70, "targets far beyond the limit would be read in every epoch"
    assert pool.dropped == Counter(
        {f"a: target for srwt longer than {limit} tokens, as estimated": 260 - len(pool)}
    )


def test_another_task_of_the_utterance_stays(measured):
    pool = measured(
        [10, 100],
        FilterConfig(max_target_tokens={"default": 400, "srwt": 300}),
        {"srwt": 1.0, "asr": 1.0},
    )
    assert pool.eligible.tolist() == [[True, True], [False, True]]
    assert (
        pool.restricted == {"a: target for srwt longer than 300 tokens, as estimated": 1}
        and not pool.dropped
    )


def test_the_share_is_told_and_a_large_one_warned_of(measured):
    (line,) = tell_long_targets([measured([10] * 99 + [120], FilterConfig(max_target_tokens=400))])
    assert (
        line == "targets too long, as estimated by list/task: a/srwt 1.0 % of 100 over 400 tokens"
    )
    first, warning = tell_long_targets(
        [measured([10] * 80 + [120] * 20, FilterConfig(max_target_tokens=400))]
    )
    assert "a/srwt 20.0 % of 100" in first
    assert (
        warning.startswith("warning: a/srwt loses 20.0 %")
        and "filter.max_target_tokens for srwt" in warning
    )


def test_without_measured_texts_nothing_is_taken_for_sure(template):
    source = SourceConfig("a", "a.list", tasks={"srwt": 1.0})
    pool = build_pool(
        source, [index([10, 120])], BatchConfig(), FilterConfig(max_target_tokens=300)
    )
    assert len(pool) == 2 and pool.too_long["srwt"].over == 1


def test_a_decoder_is_not_overrun(template, measured):
    pool = measured(list(range(1, 101)), FilterConfig(), reach=448)
    longest = max(c for c in range(1, 101) if c - 1 in pool.row)
    assert 20 <= longest <= 34
    with pytest.raises(Drop, match="beyond the decoder's 448 positions"):
        audio = np.zeros(14 * 16000, np.float32)  # as long as the words
        sample_from_audio(
            timed(60), audio, template.task("srwt"), template, SampleConfig(reach=448)
        )
