"""A conversation from its manifest line to a batch: record, index, shard, plan, template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from wenet_osum import tasks
from wenet_osum.config import BatchConfig, FilterConfig, SourceConfig
from wenet_osum.dataset import fingerprint
from wenet_osum.dataset.audio import write_wav
from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.compose import Costs, compose, cut
from wenet_osum.dataset.conversation import make_conversation
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.index import restore
from wenet_osum.dataset.manifest import from_row, read_manifest, write_manifest
from wenet_osum.dataset.plan import Plan
from wenet_osum.dataset.pool import build_pool
from wenet_osum.dataset.sample import make_sample
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.dataset.shard import Handles, load_list, pack, read_utterance, write_list
from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

SECONDS = {"a": 0.5, "b": 0.8, "c": 0.3}
PLAIN = SampleConfig(mels=8)


@pytest.fixture(scope="module")
def wavs(tmp_path_factory):
    """name → path of noise as long as SECONDS says"""
    folder = tmp_path_factory.mktemp("wavs")
    rng = np.random.default_rng(1)
    found = {}
    for name, seconds in SECONDS.items():
        path = folder / f"{name}.wav"
        path.write_bytes(write_wav(rng.normal(0, 0.1, round(16000 * seconds)).astype(np.float32)))
        found[name] = str(path)
    return found


@pytest.fixture(scope="module")
def row(wavs):
    """Two recordings in the first question, a spoken second one."""
    earlier = [
        {"wav": wavs["a"], "prompt": "First:"},
        {"wav": wavs["b"], "prompt": "Second:", "task": "asr", "txt": "the cat sat"},
    ]
    return {"key": "k1", "wav": wavs["c"], "task": "ser", "txt": "on the mat", "emotion": "SAD", "turns": earlier}


@pytest.fixture(scope="module")
def follow_up(wavs):
    """A recording, and a question in writing about it."""
    first = {"wav": wavs["b"], "task": "asr", "txt": "the cat sat"}
    return {"key": "k2", "task": "<S2TCHAT>", "prompt": "Who sat?", "reply": "the cat", "turns": [first]}


@pytest.fixture(scope="module")
def plain():
    return Template(train_tokenizer(["the cat sat on the mat", "First: Second: Who sat?"], vocab_size=400))


@pytest.fixture(scope="module")
def chatting(chat_tokenizer):
    return Template(chat_tokenizer, template="chat")


def sounds_of(utterance):
    return [Path(one.wav).read_bytes() for one in utterance.recordings()]


def sample_of(row, template, conf=PLAIN):
    utterance = from_row(row)
    return make_conversation(utterance, sounds_of(utterance), template.task(utterance.task), template, conf)


def packed_list(tmp_path, rows):
    report = pack([from_row(row) for row in rows], tmp_path / "shards")
    assert not report.dropped, report.dropped
    write_list(tmp_path / "data.list", report.paths)
    return str(tmp_path / "data.list")


def test_a_manifest_gives_back_what_was_written(tmp_path, row, follow_up):
    single = Utterance("k3", "x.wav", "hi")
    given = [from_row(row), from_row(follow_up), single]
    write_manifest(tmp_path / "m.jsonl", given)
    assert [*read_manifest(tmp_path / "m.jsonl")] == given
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert lines[2] == '{"key": "k3", "wav": "x.wav", "txt": "hi"}', "a single utterance is written as ever"
    assert [turn.key for turn in given[0].turns] == ["k1#1", "k1#2"] and "key" not in json.loads(lines[0])["turns"][0]
    assert given[0].labels == {"emotion": "SAD"}


@pytest.mark.parametrize(
    "turns, told",
    [
        ({"wav": "a"}, "must be a list of rows"),
        ([3], "must be a list of rows"),
        ([{"wav": "a", "turns": [{"wav": "b"}]}], "without turns of theirs"),
        ([{"prompt": "no recording"}], "non-empty string 'wav'"),
    ],
)
def test_malformed_turns_are_refused(turns, told):
    with pytest.raises(ValueError, match=told):
        from_row({"key": "k", "turns": turns})


def test_shards_hold_every_recording(tmp_path, row, follow_up, wavs):
    index = load_list(packed_list(tmp_path, [row, follow_up]), {})[0]
    (first, sounds), (second, one) = (read_utterance(index, i, Handles()) for i in range(2))
    assert sounds == sounds_of(from_row(row)) and one == sounds_of(from_row({"key": "k", "wav": wavs["b"]}))
    assert [turn.wav for turn in (*first.turns, first)] == ["k1.audio1", "k1.audio2", "k1.wav"]
    assert second.wav == "" and second.prompt == "Who sat?" and second.turns[0].txt == "the cat sat"
    assert index.recordings().tolist() == [3, 1]
    np.testing.assert_allclose(index.durations, [1.6, 0.8])
    np.testing.assert_allclose(index.longest(), [0.8, 0.8])
    # What a scan of the tar finds is what the packer knew.
    again = load_list(packed_list(tmp_path, [row, follow_up]), {})[0]
    np.testing.assert_array_equal(again.turns, index.turns)


def test_a_scan_finds_what_the_packer_wrote(tmp_path, row, follow_up):
    path = packed_list(tmp_path, [row, follow_up])
    known = load_list(path, {})[0]
    for stored in (*tmp_path.rglob("*.npz"), *tmp_path.rglob("*.index.bin")):
        stored.unlink()
    found = load_list(path, {})[0]
    np.testing.assert_array_equal(found.turns, known.turns)
    np.testing.assert_array_equal(found.durations, known.durations)


def test_a_raw_list_is_read_alike(tmp_path, row, follow_up):
    write_manifest(tmp_path / "raw.jsonl", [from_row(row), from_row(follow_up)])
    raw = load_list(str(tmp_path / "raw.jsonl"), {})[0]
    packed = load_list(packed_list(tmp_path, [row, follow_up]), {})[0]
    np.testing.assert_array_equal(raw.turns, packed.turns)
    for i in range(2):
        (one, of_raw), (other, of_tar) = read_utterance(raw, i, Handles()), read_utterance(packed, i, Handles())
        assert of_raw == of_tar and one.reply == other.reply and len(one.turns) == len(other.turns)


def test_indices_without_conversations_are_what_they_were(tmp_path, wavs):
    path = packed_list(tmp_path, [{"key": "k", "wav": wavs["a"], "txt": "hi", "task": "asr"}])
    [index] = load_list(path, {})
    with np.load(index.path + ".index.npz") as stored:
        assert stored.files == ["meta", "keys", "places", "durations", "columns", "lengths"]
    assert index.turns is None and restore(index.path, None)[0].turns is None


def test_an_index_that_does_not_know_the_turns_is_noticed(tmp_path, row):
    [index] = load_list(packed_list(tmp_path, [row]), {})
    index.turns = None
    with pytest.raises(Drop, match="index says otherwise"):
        read_utterance(index, 0, Handles())


def test_layout_osum_refuses_them(tmp_path, row):
    report = pack([from_row(row)], tmp_path / "s", layout="osum")
    assert dict(report.dropped) == {"conversation: no place in layout osum": 1}


def test_the_plan_counts_every_recording(tmp_path, row, wavs):
    single = {"key": "k9", "wav": wavs["b"], "txt": "hi", "emotion": "SAD", "task": "ser"}
    indices = load_list(packed_list(tmp_path, [row, single]), {})
    source = SourceConfig("s", "s.list", 1.0, {"ser": 1.0})
    pool = build_pool(source, indices, BatchConfig(), FilterConfig(min_s=0.1))
    assert pool.frames.tolist() == [81, 81] and pool.recordings.tolist() == [3, 1]
    # The speech of all recordings, their borders, and what was said before.
    assert pool.tokens[0, 0] > pool.tokens[1, 0] + 2 * 2 + 160 // 8 - 81 // 8
    plan = Plan([pool], BatchConfig(), 1, 0)
    assert plan.costs()["frames"].tolist() == [4 * 81]
    too_few = build_pool(source, indices, BatchConfig(max_frames=200), FilterConfig(min_s=0.1))
    assert too_few.recordings.tolist() == [1] and too_few.dropped == {"s: longer than batch.max_frames 200": 1}
    short = build_pool(source, indices, BatchConfig(), FilterConfig(min_s=0.1), reach=100)
    assert short.dropped == {"s: conversation: the decoder of phase 1 hears one recording": 1}


def test_micro_batches_are_cut_by_recordings():
    costs = Costs(np.array([100] * 6), np.ones(6, int), np.array([1, 1, 3, 1, 1, 1]))
    assert cut(costs, BatchConfig(max_frames=500)) == [0, 3]
    alone = Costs(costs.frames, costs.tokens, np.ones(6, int))
    assert cut(alone, BatchConfig(max_frames=500)) == [0, 5]


def test_a_digest_without_conversations_stays(tmp_path, wavs):
    single = {"key": "k9", "wav": wavs["b"], "txt": "hi", "task": "asr"}
    pool = build_pool(SourceConfig("s", "s.list"), load_list(packed_list(tmp_path, [single]), {}), BatchConfig(), FilterConfig(min_s=0.1))
    hashed = hashlib.blake2b(digest_size=8)
    for column in (pool.shard, pool.row, pool.seconds, pool.frames, pool.eligible, pool.tokens):
        hashed.update(np.ascontiguousarray(column).data)
    hashed.update(b"<TRANSCRIBE>")
    assert fingerprint.digest(pool) == hashed.hexdigest()
    pool.recordings = pool.recordings + 1
    assert fingerprint.digest(pool) != hashed.hexdigest()


def test_a_plain_conversation_is_one_row_after_another(row, plain):
    sample = sample_of(row, plain)
    one, two = sample.turns
    assert (one.prompt_ids, one.answer_ids, one.suffix_ids) == (plain.encode("First:"), [], [])
    assert two.prompt_ids == plain.encode("Second:")
    assert two.answer_ids == [*plain.encode("the cat sat"), plain.end_id]
    # The last turn has no words of its own, and is what the utterance is alone.
    alone = {name: value for name, value in row.items() if name != "turns"}
    utterance = from_row(alone)
    single = make_sample(utterance, sounds_of(utterance)[0], plain.task("ser"), plain, PLAIN)
    assert (sample.prompt_ids, sample.answer_ids) == (single.prompt_ids, single.answer_ids)
    torch.testing.assert_close(sample.features, single.features)
    assert sample.audio_s == pytest.approx(1.6)


def test_a_chat_is_what_the_tokenizers_own_template_writes(row, chatting):
    sample = sample_of(row | {"prompt": "Third:"}, chatting)
    ids = []
    for turn in (*sample.turns, sample):
        ids += [*turn.prompt_ids, *chatting.encode("@"), *turn.suffix_ids, *turn.answer_ids]
    messages = [
        {"role": "user", "content": "First:@Second:@"},
        {"role": "assistant", "content": "the cat sat"},
        {"role": "user", "content": "Third:@"},
        {"role": "assistant", "content": "on the mat<sad>"},
    ]
    whole = chatting.tokenizer.apply_chat_template(messages, tokenize=False)
    assert chatting.tokenizer.decode(ids) + "\n" == whole


def test_words_without_a_recording(follow_up, plain, chatting):
    for template in (plain, chatting):
        sample = sample_of(follow_up, template)
        assert len(sample.features) == 0 and len(sample.turns[0].features) > 0
        assert template.decode(sample.answer_ids).endswith("the cat")
        assert "Who sat?" in template.tokenizer.decode(sample.prompt_ids)


def test_only_answers_are_in_the_loss(row, follow_up, plain):
    samples = [sample_of(row, plain), sample_of(follow_up, plain)]
    batch = collate(samples)
    answers = [turn.answer_ids for sample in samples for turn in (*sample.turns, sample)]
    assert batch.answer_ids.tolist() == sum(answers, [])
    assert batch.answer_weights.tolist() == [1.0] * len(batch.answer_ids)
    assert batch.turns.counts.tolist() == [3, 2] and batch.turns.spoken.tolist() == [True] * 4 + [False]
    assert batch.answer_counts().tolist() == [len(sum(answers[:3], [])), len(sum(answers[3:], []))]
    assert len(batch.features) == 4 and batch.keys == ["k1", "k2"]


def test_a_recording_is_heard_for_the_answer_behind_it(row, follow_up, plain):
    """Adapters keep all of the speech, and mark times in it, for some tasks only."""
    samples = [sample_of(row, plain), sample_of(follow_up, plain)]
    batch = collate(samples)
    asr = plain.task("asr").tags
    # Two recordings in the question that recognition answers, one in the last; words have none.
    assert batch.recording_tasks() == [asr, asr, samples[0].task, asr]
    assert batch.recording_tasks(["<X>", "<Y>"]) == [asr, asr, "<X>", asr]


def test_further_losses_have_targets_of_recordings_alone(follow_up, plain):
    asked = []

    def targets(utterance):
        asked.append(utterance.key)
        return {"text": torch.tensor([1])} if utterance.txt else None

    sample = sample_of(follow_up, plain, SampleConfig(mels=8, targets=targets))
    assert asked == ["k2#1"] and sample.targets == {} and list(sample.turns[0].targets) == ["text"]


def test_decoding_keeps_the_earlier_answers(row, plain):
    sample = sample_of(row, plain, SampleConfig(mels=8, answers=False))
    assert sample.answer_ids == [] and sample.turns[1].answer_ids == [*plain.encode("the cat sat"), plain.end_id]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"task": "asr", "txt": None}, "target: lacks transcript"),
        ({"task": "wrong"}, "conversation: unknown task of a turn"),
        ({"wav": "", "prompt": None}, "conversation: a turn with neither words nor a recording"),
    ],
)
def test_turns_that_cannot_be_used_are_counted(row, plain, change, reason):
    turns = [row["turns"][0] | change, row["turns"][1]]
    with pytest.raises(Drop) as drop:
        sample_of(row | {"turns": turns}, plain)
    assert drop.value.reason == reason


def test_own_words_replace_the_prompt_of_a_single_utterance(row, plain):
    alone = {name: value for name, value in row.items() if name != "turns"} | {"prompt": "Say it."}
    utterance = from_row(alone)
    sample = make_sample(utterance, sounds_of(utterance)[0], tasks.parse("asr"), plain, PLAIN)
    assert sample.prompt_ids == plain.encode("Say it.") and sample.turns == []
    assert collate([sample]).turns is None


@pytest.mark.parametrize("trial", range(5))
def test_conversations_among_others_keep_the_budget(trial):
    """Scarce kinds that are short stand as guests among long ones; each of their recordings is padded."""
    rng, count = np.random.default_rng(trial), 400
    frames = np.sort(rng.integers(50, 900, count))[::-1]
    recordings = rng.integers(1, 4, count)
    kind = np.where(frames < 200, rng.integers(1, 4, count), 0)
    costs = Costs(frames, np.ones(count, int), recordings)
    order, sizes = compose(costs, kind, BatchConfig(max_frames=4000), 0.3)
    assert sorted(order) == [*range(count)]
    for own in np.split(order, np.cumsum(sizes)[:-1]):
        assert frames[own].max() * recordings[own].sum() <= 4000
