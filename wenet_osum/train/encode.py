"""Computes the states of a frozen encoder that are not on disk yet (``features: encoded``).

Training does so at its start, ``wenet_osum encode_states`` without training, by the same code. The
processes share the utterances out; each writes parts of its own (dataset/states.py), so that a run
that is killed goes on where it was.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from wenet_osum import dist
from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset.dataset import EvalLoader, Mixture
from wenet_osum.dataset.drop import table
from wenet_osum.dataset.loader import make_data_loader
from wenet_osum.dataset.sample import SampleConfig
from wenet_osum.dataset.states import Layout, PartWriter, StateStore
from wenet_osum.dataset.unencoded import ToEncode, Unencoded, recipe
from wenet_osum.models import split, trainable, unread
from wenet_osum.progress import ProgressBar
from wenet_osum.text.template import Template
from wenet_osum.train.evaluate import dev_loaders
from wenet_osum.train.start import open_model, token_counter

PART_BYTES = 256 << 20  # a part ends after this many bytes of states
PART_S = 300.0  # or after this many seconds of work, the most that a kill can cost
REPORT_S = 30.0  # seconds between lines of progress

Say = Callable[[str], Any]
Stopped = Callable[[], bool]


def open_store(model: nn.Module, conf: TrainConfig) -> StateStore | None:
    """Open the folder of this model's states; None unless the run asks for them.

    What trains must be known (``apply_train_parts``), and the weights must be those of the start:
    with ``dtype: bfloat16`` they are rounded here, as the engine will. Raises ValueError for an
    encoder that cannot be run in two parts, or whose lower part trains.
    """
    if conf.features != "encoded":
        return None
    # All of it is needed here.
    unread.read(model, part="encoder")
    encoder = model.encoder
    cache = conf.cache
    after = split.layers_below(encoder, cache.after)
    split.check_frozen(encoder, after, conf.train_parts)
    if conf.dtype == "bfloat16":
        split.round_lower(encoder, after, torch.bfloat16)

    # The states of no speech at all: those of the silence behind it.
    nothing = torch.zeros(1, dtype=torch.int64)
    least = int(encoder.kept_lengths(nothing, after))
    states_per_s = 1.0 / encoder.state_s
    layout = Layout(after, encoder.width, cache.dtype, least, states_per_s)

    key = split.describe(encoder, after)
    if conf.dtype == "bfloat16":
        # Products are computed in it, too.
        key["dtype"] = conf.dtype
    augmentation = recipe(conf)
    return StateStore(cache.dir, key, layout, cache.variants, augmentation)


def fill(
    store: StateStore,
    encoder: nn.Module,
    mixture: Mixture,
    dev: Iterable[EvalLoader],
    world: dist.World,
    say: Say,
    stopped: Stopped = lambda: False,
) -> bool:
    """Compute what training and dev lists have no states of; False when it was stopped before.

    Every process must call it. Raises ValueError when the disk has not the room, and when the
    processes do not see the same folder.
    """
    conf = mixture.conf
    work = _unencoded(store, mixture, dev)
    versions = work.versions()
    own = versions[world.rank :: world.size]
    missing = work.find(own)
    _announce(store, len(versions), missing, say)

    # One by one on a CPU: a batch gains nothing there, and states depend on the utterance alone.
    budget = 0 if world.device.type == "cpu" else conf.batch.max_frames
    work.group(missing, budget)
    encoder.to(world.device)
    encoder.eval()
    dropped = _encode(work, encoder, conf, world.device, say, stopped)
    if dropped:
        say(f"left out of the states, to be counted in training:\n{table(dropped)}")

    [interrupted] = dist.sum_over_ranks([float(stopped())])
    store.refresh()
    _check_shared(store)
    return interrupted == 0


def _unencoded(store: StateStore, mixture: Mixture, dev: Iterable[EvalLoader]) -> Unencoded:
    """Join training and dev lists, each with how it is sampled."""
    pools = [*mixture.pools]
    confs = [_sampling(mixture)] * len(pools)
    for loader in dev:
        pools += loader.dataset.pools
        confs.append(loader.dataset.conf)
    return Unencoded(store, pools, confs)


def _sampling(mixture: Mixture) -> SampleConfig:
    """Tell how the utterances of a mixture become samples."""
    conf = mixture.conf
    return SampleConfig(mixture.mels, conf.filter, conf.augment, conf.seed)


def _announce(store: StateStore, wanted: int, missing: list, say: Say) -> None:
    """Say what is to be done, and whether the disk has the room for it."""
    seconds = np.array([version.seconds for version in missing])
    size = store.layout.bytes_of(seconds)
    own = [float(len(missing)), float(seconds.sum()), float(size)]
    count, total_s, needed = dist.sum_over_ranks(own)

    def prepare() -> str:
        store.make_folder()
        return store.check_room(int(needed))

    room = dist.from_rank_zero(prepare)
    hours = total_s / 3600
    there = wanted - int(count)
    say(
        f"states after {store.layout.after} layers of the encoder: {wanted} utterances wanted, "
        f"{there} there; to compute {int(count)}, {hours:.3g} h: {room}"
    )


@torch.no_grad()
def _encode(
    work: Unencoded,
    encoder: nn.Module,
    conf: TrainConfig,
    device: torch.device,
    say: Say,
    stopped: Stopped,
) -> Counter:
    """Encode this process's groups into parts; returns what could not be read, by reason."""
    writer = PartWriter(work.store)
    after = work.store.layout.after
    # As the engine computes what is above.
    half = conf.dtype == "bfloat16"
    dropped: Counter = Counter()
    total = sum(len(group) for group in work.groups)
    progress = ProgressBar(total, title="states of this process", every_s=REPORT_S, log=say)
    part_began = time.monotonic()

    for ready, failed in make_data_loader(work, conf.workers, conf.prefetch):
        dropped += failed
        if ready:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                _add(writer, encoder, after, ready, device)
        progress.add(len(ready) + failed.total())

        # A part that is written is safe from a kill.
        now = time.monotonic()
        if writer.size >= PART_BYTES or now - part_began >= PART_S:
            writer.close()
            part_began = now
        if stopped():
            break

    writer.close()
    return dropped


def _add(
    writer: PartWriter, encoder: nn.Module, after: int, ready: list[ToEncode], device: torch.device
) -> None:
    """Encode a group and hand its states to the writer."""
    # (B, T, M) and (B,)
    features = [one.features for one in ready]
    frames = torch.tensor([len(rows) for rows in features])
    padded = nn.utils.rnn.pad_sequence(features, batch_first=True)

    # (B, N, D) and (B,)
    states, lengths = encoder.lower(padded.to(device), frames, after)
    kept = encoder.kept_lengths(lengths, after)

    found = states.float().cpu().numpy()
    counts = zip(kept.tolist(), lengths.tolist(), strict=True)
    for one, row, (rows, length) in zip(ready, found, counts, strict=True):
        encoded = one.encoded._replace(states=row[:rows], length=length)
        writer.add(one.digest, encoded)


def _check_shared(store: StateStore) -> None:
    # Processes may finish encoding far apart.
    dist.barrier()
    counts = dist.gather(len(store))
    if len(set(counts)) == 1:
        return
    seen = ", ".join(map(str, counts))
    raise ValueError(
        f"features: encoded: the processes see {seen} utterances in {store.folder}; "
        "cache.dir must be a folder that all machines share"
    )


class Opened(NamedTuple):
    """The data of a run."""

    mixture: Mixture
    dev: dict[str, EvalLoader]  # task → loader
    interrupted: bool  # it was stopped while states were computed; some are missing


def open_data(
    model: nn.Module,
    template: Template,
    conf: TrainConfig,
    data: DataConfig,
    world: dist.World,
    say: Say,
    stopped: Stopped,
) -> Opened:
    """Load the lists of a run, and compute states that are to be on disk and are not.

    ``model`` is as it was loaded, with what trains chosen; no engine has moved or cut it.
    """
    store = open_store(model, conf)
    mels = model.encoder.mels
    facts = {
        "speech_tokens": token_counter(model),
        # Phase 1's decoder ends at its last position; an LLM is not asked.
        "reach": getattr(model.config, "max_target_positions", None),
        "targets": model.objective.targets,
        "states": store,
    }
    mixture = Mixture(data, conf, template, mels, **facts)
    dev = dev_loaders(data, conf, template, mels, world, **facts)

    # Machines may have read their lists far apart.
    dist.barrier()
    ended = True
    if store is not None:
        ended = fill(store, model.encoder, mixture, dev.values(), world, say, stopped)
    return Opened(mixture, dev, interrupted=not ended)


def encode_all(
    conf: TrainConfig, data: DataConfig, world: dist.World, say: Say, stopped: Stopped
) -> bool:
    """Do what a training of ``conf`` does before its first step; False when it was stopped."""
    torch.manual_seed(conf.seed)
    model, template = open_model(conf, None, data)
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    opened = open_data(model, template, conf, data, world, say, stopped)
    return not opened.interrupted
