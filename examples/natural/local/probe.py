#!/usr/bin/env python3
"""Linear probes: how much of each label a published Whisper's encoder holds before anything is
trained.

    python local/probe.py --whisper openai/whisper-base --corpora corpora --out exp/probe

The states of each encoder layer are averaged over an utterance; multinomial logistic regression on
them is trained on the training list and tested on the test list that the recipe's own figure stands
on. Layer and L2 penalty are chosen on dev, which is speakers of the training set held out. The
interval resamples test speakers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from logistic import candidates, interval, majority, normalized, right
from torch import Tensor

from wenet_osum import tasks
from wenet_osum.corpus.task_lists import choose
from wenet_osum.dataset.audio import decode
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.scan import find
from wenet_osum.files import replaced, write_text
from wenet_osum.models.encoder.whisper import Encoder, read, set_conf
from wenet_osum.progress import ProgressBar
from wenet_osum.records import Utterance

SPLITS = ("train", "dev", "test")
EIGHT = ["neutral", "calm", "happy", "sad", "anger", "fear", "disgust", "surprise"]


class Probe(NamedTuple):
    """What is asked of which corpus."""

    corpus: str
    task: str
    labels: list[str] | None = None  # instead of the toolkit's set
    age: str | None = None  # only utterances of this age group


PROBES = {
    "ser, 8 emotions": Probe("ravdess", "ser", EIGHT),
    "ser, the recipe's map": Probe("ravdess", "ser"),
    "sap, child or adult": Probe("speechocean762", "sap"),
    "sgc, adults": Probe("speechocean762", "sgc", age="adult"),
    "ved, in speech": Probe("esc50", "ved"),
}


class Result(NamedTuple):
    """The accuracy of one probe, in %, with its 95 % interval."""

    probe: str
    accuracy: float
    low: float
    high: float
    majority: float  # of always answering the commonest training label
    classes: int
    layer: int  # encoder layer, from 1
    penalty: float
    train: int  # utterances
    test: int
    speakers: int  # of test


def pooled_states(
    encoder: Encoder, utterances: list[Utterance], manifest: Path, batch_size: int = 16
) -> Tensor:
    """Average each layer's states over time: (utterances, layers, width) in the order given.

    The last layer is taken after the encoder's final normalization. Raises ValueError for audio
    that cannot be read.
    """
    layers = [*encoder.layers[:-1], encoder.layer_norm]
    found = torch.empty(len(utterances), len(layers), encoder.width)
    caught: list[Tensor] = []

    def catch(_module: object, _inputs: object, output: Tensor) -> None:
        caught.append(output)

    hooks = [layer.register_forward_hook(catch) for layer in layers]
    progress = ProgressBar(len(utterances), title=str(manifest))
    for rows in _batches(utterances, batch_size):
        caught.clear()
        batch = [utterances[row] for row in rows]
        lengths = _encode(encoder, batch, manifest)
        for number, row in enumerate(rows):
            length = lengths[number]
            means = [layer[number, :length].mean(0) for layer in caught]
            found[row] = torch.stack(means)
        progress.add(len(rows))
    progress.close()

    for hook in hooks:
        hook.remove()
    return found


def _batches(utterances: list[Utterance], size: int) -> Iterator[list[int]]:
    """Yield the row numbers of each batch. Utterances of one length go together, so that little is
    computed for padding.
    """
    seconds = [utterance.duration or 0.0 for utterance in utterances]
    order = sorted(range(len(utterances)), key=seconds.__getitem__)
    while order:
        yield order[:size]
        order = order[size:]


@torch.inference_mode()
def _encode(encoder: Encoder, utterances: list[Utterance], manifest: Path) -> list[int]:
    """Run the encoder over a batch; returns how many states each utterance has."""
    features = []
    for utterance in utterances:
        audio = _audio(utterance, manifest)
        features.append(log_mel(audio, encoder.mels))
    lengths = torch.tensor([len(one) for one in features])
    padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)

    # The hooks of the layers catch what comes out.
    encoder(padded, lengths)
    return encoder.output_lengths(lengths).tolist()


def _audio(utterance: Utterance, manifest: Path) -> np.ndarray:
    """Read the samples of an utterance of a manifest."""
    path = Path(find(utterance.wav, str(manifest)))
    return decode(path.read_bytes())


class Corpora:
    """The prepared corpora, and the states of their splits, computed once."""

    def __init__(
        self, folder: Path, whisper: str, pad_s: float, limit: int | None, kept: Path
    ) -> None:
        self.folder = folder
        self.whisper = whisper
        self.pad_s = pad_s
        self.limit = limit
        self.kept = kept
        self.encoder: Encoder | None = None

    def manifest(self, corpus: str, split: str) -> Path:
        """Return where the manifest of a split is, or would be."""
        return self.folder / corpus / "data" / split / "manifest.jsonl"

    def there(self, corpus: str) -> bool:
        """Tell whether all splits of a corpus are prepared."""
        manifests = [self.manifest(corpus, split) for split in SPLITS]
        return all(manifest.exists() for manifest in manifests)

    def split(self, probe: Probe, split: str) -> tuple[list[Utterance], Tensor]:
        """Return the utterances of a split that a probe asks, and their states (utterances,
        layers, width).
        """
        manifest = self.manifest(probe.corpus, split)
        every = list(read_manifest(manifest))
        if probe.age:
            every = of_age(every, probe.age)
        asked = choose(every, probe.task, self.limit)

        name = f"{probe.corpus}-{split}"
        states = self._states(name, asked, manifest)
        return asked, states

    def _states(self, name: str, asked: list[Utterance], manifest: Path) -> Tensor:
        """Return their states; those that another probe, or an earlier run, has computed are
        read."""
        path = self.kept / f"{name}.pt"
        source = [self.whisper, self.pad_s]
        known: dict[str, Tensor] = {}
        if path.exists():
            saved = torch.load(path, weights_only=True)
            if saved["source"] == source:
                known = saved["states"]

        # What is not known is computed, and all is kept.
        lacking = [utterance for utterance in asked if utterance.key not in known]
        if lacking:
            encoder = self._encoder()
            states = pooled_states(encoder, lacking, manifest)
            for utterance, of_utterance in zip(lacking, states, strict=True):
                known[utterance.key] = of_utterance
            with replaced(path) as temporary:
                torch.save({"source": source, "states": known}, temporary)
        return torch.stack([known[utterance.key] for utterance in asked])

    def _encoder(self) -> Encoder:
        """Return Whisper's encoder, read when it is first needed."""
        if self.encoder is None:
            self.encoder = read(self.whisper).eval()
            set_conf(self.encoder.config, self.pad_s)
        return self.encoder


def of_age(utterances: list[Utterance], age: str) -> list[Utterance]:
    """Return the utterances of one age group."""
    (field,) = tasks.parse("sap").label_fields
    return [utterance for utterance in utterances if field.value(utterance) == age]


def run(name: str, probe: Probe, corpora: Corpora) -> Result:
    """Train and test one probe."""
    rows, labels, states = {}, {}, {}
    for split in SPLITS:
        rows[split], states[split] = corpora.split(probe, split)
        labels[split] = values_of(probe, rows[split])

    classes = sorted(set().union(*labels.values()))
    targets = {split: numbers(values, classes) for split, values in labels.items()}
    states = normalized(states)

    # Layer and penalty are those that are best on dev.
    tried = candidates(states, targets, len(classes))
    _, layer, penalty, weights = max(tried, key=lambda row: row[0])
    test_states = states["test"][:, layer]
    correct = right(weights, test_states, targets["test"])

    speakers = [utterance.speaker or utterance.key for utterance in rows["test"]]
    low, high = interval(correct, speakers)
    return Result(
        probe=name,
        accuracy=100 * float(correct.mean()),
        low=low,
        high=high,
        majority=majority(targets["train"], targets["test"]),
        classes=len(classes),
        layer=layer + 1,
        penalty=penalty,
        train=len(rows["train"]),
        test=len(rows["test"]),
        speakers=len(set(speakers)),
    )


def numbers(labels: list[str], classes: list[str]) -> Tensor:
    """Return the number of each label's class."""
    return torch.tensor([classes.index(label) for label in labels])


def values_of(probe: Probe, rows: list[Utterance]) -> list[str]:
    """Return the labels that a probe asks of some utterances."""
    sets = {"emotion": probe.labels} if probe.labels else None
    task = tasks.parse(probe.task, sets)
    (field,) = task.label_fields
    return [field.value(utterance) for utterance in rows]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--whisper", default="openai/whisper-base", help="folder or hub name")
    add("--corpora", type=Path, required=True, help="folder that stage 0 wrote")
    add(
        "--pad_s",
        type=float,
        default=0.0,
        help="pad with silence to so many seconds before the encoder",
    )
    add("--limit", type=int, help="utterances of a split at most, taken at even distances")
    add("--threads", type=int, default=1, help="torch threads")
    add("--out", type=Path, required=True, help="folder for the states and probe.json")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    corpora = Corpora(args.corpora, args.whisper, args.pad_s, args.limit, args.out)

    found = []
    try:
        for name, probe in PROBES.items():
            if not corpora.there(probe.corpus):
                print(f"{name} is left out: {probe.corpus} is not prepared in {args.corpora}")
                continue
            result = run(name, probe, corpora)
            found.append(result)
            sentence = line(result)
            print(sentence, flush=True)
    except (ValueError, OSError) as error:
        print(f"probe.py: {error}", file=sys.stderr)
        return 1

    rows = [result._asdict() for result in found]
    text = json.dumps(rows, indent=1)
    write_text(args.out / "probe.json", f"{text}\n")
    return 0


def line(result: Result) -> str:
    """Write a result as a sentence."""
    template = (
        "{probe}: {accuracy:.1f} % ({low:.1f}–{high:.1f}), majority {majority:.1f} %; "
        "{test} utterances of {speakers} speakers, trained on {train}; "
        "layer {layer}, L2 {penalty:g}"
    )
    return template.format(**result._asdict())


if __name__ == "__main__":
    sys.exit(main())
