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

from wenet_osum.config import DataConfig, TrainConfig
from wenet_osum.dataset.dataset import EvalLoader, Mixture
from wenet_osum.dataset.drop import table
from wenet_osum.dataset.loader import in_order
from wenet_osum.dataset.sample import SampleConfig
from wenet_osum.dataset.states import Layout, PartWriter, StateStore
from wenet_osum.dataset.unencoded import ToEncode, Unencoded, recipe
from wenet_osum.models import split, trainable
from wenet_osum.text.template import Template
from wenet_osum.train import dist
from wenet_osum.train.evaluate import dev_loaders
from wenet_osum.train.start import open_model, token_counter

PART_BYTES = 256 << 20  # a part ends after so many bytes of states
PART_S = 300.0  # or so many seconds of work, which is what a kill can cost
TELL_S = 30.0  # seconds between lines of progress

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
    encoder, cache = model.encoder, conf.cache
    after = split.layers_below(encoder, cache.after)
    split.check_frozen(encoder, after, conf.train_parts)
    if conf.dtype == "bfloat16":
        split.round_lower(encoder, after, torch.bfloat16)
    least = int(encoder.kept_lengths(torch.zeros(1, dtype=torch.int64), after))
    layout = Layout(after, encoder.width, cache.dtype, least, 1.0 / encoder.state_s)
    key = split.describe(encoder, after)
    return StateStore(cache.dir, key, layout, cache.variants, recipe(conf))


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
    pools, confs = [*mixture.pools], [_sampling(mixture)] * len(mixture.pools)
    for loader in dev:
        pools += loader.dataset.pools
        confs.append(loader.dataset.conf)
    work = Unencoded(store, pools, confs)
    versions = work.versions()
    missing = work.find(versions[world.rank :: world.size])

    _announce(store, len(versions), missing, say)
    # alone on a CPU: a batch gains nothing there, and an utterance's states depend on it alone
    work.group(missing, 0 if world.device.type == "cpu" else conf.batch.max_frames)
    encoder.to(world.device).eval()
    dropped = _encode(work, encoder, conf, world.device, say, stopped)

    interrupted = dist.sum_over_ranks([float(stopped())])[0] > 0
    if dropped:
        say(f"left out of the states, to be counted in training:\n{table(dropped)}")
    store.refresh()
    _check_shared(store)
    return not interrupted


def _sampling(mixture: Mixture) -> SampleConfig:
    conf = mixture.conf
    return SampleConfig(mixture.mels, conf.filter, conf.augment, conf.seed)


def _announce(store: StateStore, wanted: int, missing: list, say: Say) -> None:
    """Say what is to be done, and whether the disk has the room for it."""
    seconds = np.array([version.seconds for version in missing])
    own = [float(len(missing)), float(seconds.sum()), float(store.layout.bytes_of(seconds))]
    count, total_s, needed = dist.sum_over_ranks(own)

    def prepare() -> str:
        store.make_folder()
        return store.check_room(int(needed))

    room = dist.from_rank_zero(prepare)
    say(
        f"states after {store.layout.after} layers of the encoder: {wanted} utterances wanted, "
        f"{wanted - int(count)} there; to compute {int(count)}, {total_s / 3600:.3g} h: {room}"
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
    writer, dropped, done = PartWriter(work.store), Counter(), 0
    part_began = told = time.monotonic()
    total = sum(len(group) for group in work.groups)
    for ready, failed in in_order(work, conf.workers, conf.prefetch):
        dropped += failed
        if ready:
            _add(writer, encoder, work.store.layout.after, ready, device)
        done += len(ready) + failed.total()
        now = time.monotonic()
        if writer.size >= PART_BYTES or now - part_began >= PART_S:
            writer.close()
            part_began = now
        if now - told >= TELL_S:
            say(f"states: {done} of {total} utterances of this process computed")
            told = now
        if stopped():
            break
    writer.close()
    return dropped


def _add(
    writer: PartWriter, encoder: nn.Module, after: int, ready: list[ToEncode], device: torch.device
) -> None:
    """Encode a group and hand its states to the writer."""
    features = nn.utils.rnn.pad_sequence([one.features for one in ready], batch_first=True)
    frames = torch.tensor([len(one.features) for one in ready])
    states, lengths = encoder.lower(features.to(device), frames, after)
    kept = encoder.kept_lengths(lengths, after).tolist()
    found = states.float().cpu().numpy()
    for one, rows, length, row in zip(ready, kept, lengths.tolist(), found, strict=True):
        writer.add(one.digest, one.encoded._replace(states=row[:rows], length=length))


def _check_shared(store: StateStore) -> None:
    counts = dist.gather(len(store))
    if len(set(counts)) > 1:
        raise ValueError(
            f"features: encoded: the processes see {', '.join(map(str, counts))} utterances in "
            f"{store.folder}; cache.dir must be a folder that all machines share"
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
    store, mels = open_store(model, conf), model.encoder.mels
    facts = {
        "speech_tokens": token_counter(model),
        # Phase 1's decoder ends at its last position; an LLM is not asked.
        "reach": getattr(model.config, "max_target_positions", None),
        "targets": model.objective.targets,
        "states": store,
    }
    mixture = Mixture(data, conf, template, mels, **facts)
    dev = dev_loaders(data, conf, template, mels, world, **facts)
    if store is None:
        return Opened(mixture, dev, interrupted=False)
    ended = fill(store, model.encoder, mixture, dev.values(), world, say, stopped)
    return Opened(mixture, dev, interrupted=not ended)


def encode_all(
    conf: TrainConfig, data: DataConfig, world: dist.World, say: Say, stopped: Stopped
) -> bool:
    """Do what a training of ``conf`` does before its first step; False when it was stopped."""
    torch.manual_seed(conf.seed)
    model, template = open_model(conf, None)
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    return not open_data(model, template, conf, data, world, say, stopped).interrupted
