"""The data path from lists to batches: workers, ranks and seeks do not change what is read; broken audio is counted and never ends an epoch."""

import multiprocessing
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch

from wenet_osum.config import (
    AugmentConfig,
    BatchConfig,
    DataConfig,
    OptimConfig,
    SourceConfig,
    SpecAugmentConfig,
    TrainConfig,
)
from wenet_osum.dataset.dataset import Mixture, eval_loader
from wenet_osum.dataset.manifest import write_manifest
from wenet_osum.dataset.measure import measure_tokens
from wenet_osum.dataset.shard import load_list, pack, write_list
from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

from .loaders import train_loader

COUNT = 23
TEXTS = ["red cat", "你好世界", "two plus three is five", "hello"]


@pytest.fixture(scope="module")
def template():
    return Template(train_tokenizer(TEXTS * 9, vocab_size=500))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with 23 utterances as raw.list and, in shards of 4, as data.list."""
    folder = tmp_path_factory.mktemp("corpus")
    draw, rows = np.random.default_rng(0), []
    for i in range(COUNT):
        path = folder / f"{i}.wav"
        soundfile.write(path, draw.normal(0, 0.1, int(draw.uniform(0.2, 1.5) * 16000)), 16000, subtype="PCM_16")
        emotion = "happy" if i % 2 else None
        rows.append(Utterance(f"utt.{i}", str(path), txt=TEXTS[i % 4], labels={"emotion": emotion}, lang="zh" if i % 4 == 1 else "en"))
    write_manifest(folder / "raw.list", rows)
    pack(rows, folder / "shards", per_shard=4)
    write_list(folder / "data.list", sorted((folder / "shards").glob("*.tar")))
    return folder


def data(corpus, name="data.list", **source):
    return DataConfig(train=[SourceConfig(**({"name": "a", "list": str(corpus / name), "tasks": {"ser": 1.0, "asr": 0.5}} | source))])


def conf(accumulation=1, workers=0, **budget):
    return TrainConfig(
        batch=BatchConfig(**({"max_frames": 400, "max_tokens": 600, "window": 3} | budget)),
        augment=AugmentConfig(speeds=[0.9, 1.0, 1.1], spec_augment=SpecAugmentConfig()),
        optim=OptimConfig(accumulation=accumulation),
        workers=workers,
    )


def same(left, right):
    texts = ("keys", "tasks", "audio_s", "dropped", "filler")
    tensors = ("features", "feature_lengths", "prompt_ids", "prompt_lengths", "answer_ids", "answer_lengths", "answer_weights")
    return all(getattr(left, n) == getattr(right, n) for n in texts) and all(torch.equal(getattr(left, n), getattr(right, n)) for n in tensors)


@pytest.mark.parametrize("name", ["data.list", "raw.list"])
def test_workers_do_not_matter(corpus, template, name):
    runs = [list(train_loader(data(corpus, name), conf(workers=w), template, 80, epoch=1)) for w in (0, 2)]
    assert len(runs[0]) == len(runs[1]) > 5
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
    assert sorted(k for b in runs[0] for k in b.keys) == sorted(f"utt.{i}" for i in range(COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_from_any_position(corpus, template, workers):
    whole = list(train_loader(data(corpus), conf(), template, 80, epoch=0))
    for start in (0, 1, len(whole) // 2, len(whole) - 1):
        rest = list(train_loader(data(corpus), conf(workers=workers), template, 80, epoch=0, start=start))
        assert len(rest) == len(whole) - start and all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))
    assert len(train_loader(data(corpus), conf(), template, 80, epoch=0, start=len(whole))) == 0


@pytest.mark.parametrize("name", ["TERM", "USR1"])
def test_signals_to_the_process_group_do_not_end_workers(corpus, template, name):
    loader = train_loader(data(corpus), conf(workers=2), template, 80, epoch=0)
    batches = iter(loader)
    next(batches)  # the other worker may not have begun yet
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    # sent by another process than the workers' parent, as a launcher does
    subprocess.run(["kill", f"-{name}", *(str(worker.pid) for worker in workers)], check=True)
    assert len(list(batches)) == len(loader) - 1
    assert not any(worker.is_alive() for worker in workers)


def test_a_worker_that_hangs_is_ended_with_its_loader(corpus, template, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    loader = train_loader(data(corpus), conf(workers=1), template, 80, epoch=0)
    read = loader.dataset.batch
    last = int(loader.dataset.items[-1][0])
    monkeypatch.setattr(loader.dataset, "batch", lambda first, end, ahead: time.sleep(600) if first == last else read(first, end, ahead))
    batches = iter(loader)
    for _ in range(len(loader) - 1):
        next(batches)
    (worker,) = multiprocessing.active_children()
    batches.close()
    worker.join(timeout=60)
    assert not worker.is_alive()


LEAVES_IN_THE_MIDDLE = """
import sys
from types import SimpleNamespace

from wenet_osum.dataset.loader import Loader

class Items:
    store = SimpleNamespace(max_faults=1.0)

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return SimpleNamespace(dropped={}, filler=None, keys=[])

batches = iter(Loader(Items(), workers=1, prefetch=2))
next(batches)
sys.exit(7)
"""


def test_a_process_that_ends_inside_an_epoch_does_not_wait_for_its_workers():
    """They ignore the SIGTERM by which Python ends the children of a process."""
    command = [sys.executable, "-c", LEAVES_IN_THE_MIDDLE]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_ranks_share_the_epoch(corpus, template, ranks):
    mixture = Mixture(data(corpus), conf(accumulation=2), template, 80)
    loaders = [mixture.epoch(3, rank, ranks) for rank in range(ranks)]
    assert len({len(x) for x in loaders}) == 1 and loaders[0].steps_left * 2 == len(loaders[0])
    keys = [k for loader in loaders for b in loader if not b.filler for k in b.keys]
    assert sorted(keys) == sorted(f"utt.{i}" for i in range(COUNT))


def test_fewer_utterances_than_ranks(corpus, template):
    mixture = Mixture(data(corpus, where={"lang": "zh"}), conf(), template, 80)
    batches = [list(mixture.epoch(0, rank, 8)) for rank in range(8)]
    assert {len(b) for b in batches} == {1}
    fillers = [b[0] for b in batches if b[0].filler]
    assert len(fillers) == 2 and all(b.answer_weights.sum() == 0 and len(b.keys) == 1 and b.features.shape[2] == 80 for b in fillers)


def test_budgets_hold_in_the_batches_themselves(corpus, template):
    loader = train_loader(data(corpus, weight=3.0), conf(), template, 80, epoch=0)
    for batch in loader:
        assert batch.features.shape[0] * batch.features.shape[1] <= 400
        speech = int((-(-batch.feature_lengths // 8)).sum()) + 2 * len(batch.keys)
        assert len(batch.prompt_ids) + speech + len(batch.answer_ids) <= 600
    assert max(b.features.shape[0] * b.features.shape[1] for b in loader.rehearsal()) > 250


def test_what_stands_around_the_speech_in_a_chat_counts(corpus, chat_tokenizer):
    template = Template(chat_tokenizer, template="chat")
    indices, tasks = load_list(str(corpus / "data.list"), {}), [template.task("ser")]
    plain = measure_tokens(indices, Template(chat_tokenizer), tasks)
    around = len(template.encode_prompt("")) + len(template.suffix_ids)
    assert measure_tokens(indices, template, tasks).prompt == plain.prompt + around
    loader = train_loader(data(corpus, weight=3.0), conf(max_tokens=400), template, 80, epoch=0)
    for batch in loader:
        assert batch.suffix_ids.tolist() == template.suffix_ids
        speech = int((-(-batch.feature_lengths // 8)).sum()) + 2 * len(batch.keys)
        suffixes = len(batch.keys) * len(batch.suffix_ids)
        assert len(batch.prompt_ids) + speech + suffixes + len(batch.answer_ids) <= 400


def test_a_second_pass_is_augmented_anew(corpus, template):
    loader = train_loader(data(corpus, weight=2.0), conf(), template, 80, epoch=0)
    lengths = {}
    for batch in loader:
        for key, seconds in zip(batch.keys, batch.audio_s, strict=True):
            lengths.setdefault(key, []).append(seconds)
    assert all(len(two) == 2 for two in lengths.values()) and any(a != b for a, b in lengths.values())


def test_broken_audio_is_counted_and_ranks_stay_in_step(corpus, template, tmp_path):
    rows = []
    for i in range(6):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, np.zeros(8000 + i), 16000, subtype="PCM_16")
        rows.append(Utterance(f"b{i}", str(path), txt="red cat"))
    write_manifest(tmp_path / "raw.list", rows)
    load = data(tmp_path, "raw.list", tasks={"asr": 1.0})
    mixture = Mixture(load, conf(max_utterances=2), template, 80)
    for i in range(4):  # damaged after the index was built
        (tmp_path / f"{i}.wav").write_bytes(b"RIFF broken")
    loader = mixture.epoch(0)
    batches = list(loader)
    assert len(batches) == 3 and sum(loader.failed.values()) == 4 and sum(sum(b.dropped.values()) for b in batches) == 4
    assert sum(len(b.keys) for b in batches if not b.filler) == 2
    assert all(len(b.features) for b in batches)


def test_faults_of_a_mixture_are_explained(corpus, template):
    with pytest.raises(ValueError, match="source 'a'.*unknown task 'serr', did you mean 'ser'"):
        train_loader(data(corpus, tasks={"serr": 1.0}), conf(), template, 80, epoch=0)
    with pytest.raises(ValueError, match="nothing left.*where lang is fr"):
        train_loader(data(corpus, where={"lang": "fr"}), conf(), template, 80, epoch=0)
    with pytest.raises(ValueError, match="lacks reply for sttc"):
        train_loader(data(corpus, tasks={"sttc": 1.0}), conf(), template, 80, epoch=0)
    with pytest.raises(ValueError, match="no sources"):
        train_loader(DataConfig(), conf(), template, 80, epoch=0)


@pytest.mark.parametrize("ranks", [1, 3])
def test_dev_batches(corpus, template, ranks):
    loaders = [eval_loader(str(corpus / "raw.list"), "ser", template, BatchConfig(max_frames=300), 80, rank, ranks) for rank in range(ranks)]
    assert len({len(x) for x in loaders}) == 1
    batches = [b for loader in loaders for b in loader if not b.filler]
    assert sorted(k for b in batches for k in b.keys) == sorted(f"utt.{i}" for i in range(1, COUNT, 2))
    assert loaders[0].dropped == {"dev ser: lacks emotion for ser": 12}
    prompt = template.task("ser").prompts("zh")[0]  # one for all: its language must not tell that of the utterance
    for batch in batches:
        for ids in batch.prompt_ids.split(batch.prompt_lengths.tolist()):
            assert template.decode(ids.tolist()) == prompt
    few = eval_loader(str(corpus / "raw.list"), "asr", template, BatchConfig(), 80, max_utterances=5)
    assert [len(b.keys) for b in few] == [5]


def test_tokens_are_measured_from_the_texts(corpus, template):
    estimate = measure_tokens(load_list(str(corpus / "data.list"), {}), template, [template.task("ser")])
    assert max(len(template.encode(t)) / len(t.encode()) for t in TEXTS) == pytest.approx(estimate.per_byte)
    prompts = [len(template.encode(p)) for lang in ("zh", "en") for p in template.task("ser").prompts(lang)]
    assert estimate.prompt == max(prompts) and estimate.label >= max(map(len, template.label_ids(template.task("ser").fields[1]).values()))
