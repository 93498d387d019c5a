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
from torch import Tensor
from torch.nn import functional

from wenet_osum import tasks
from wenet_osum.corpus.task_lists import choose
from wenet_osum.dataset.audio import decode
from wenet_osum.dataset.log_mel import log_mel
from wenet_osum.dataset.manifest import read_manifest
from wenet_osum.dataset.scan import find
from wenet_osum.models.encoder.whisper import Encoder, read, set_conf
from wenet_osum.records import Utterance

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean squared weight, tried on dev
SPLITS = ("train", "dev", "test")
EIGHT = ["neutral", "calm", "happy", "sad", "anger", "fear", "disgust", "surprise"]
RESAMPLES = 1000


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
    """One probe's figure, in %, with its 95 % interval."""

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
    found = torch.empty(
        len(utterances),
        len(encoder.layers),
        encoder.width,
    )
    caught: list[Tensor] = []
    layers = [*encoder.layers[:-1], encoder.layer_norm]
    hooks = [layer.register_forward_hook(lambda _, __, out: caught.append(out)) for layer in layers]
    # Utterances of one length go together, so that little is computed for padding.
    order = sorted(range(len(utterances)), key=lambda i: utterances[i].duration or 0.0)
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        features = [log_mel(_audio(utterances[i], manifest), encoder.mels) for i in rows]
        lengths = torch.tensor([len(f) for f in features])
        caught.clear()
        with torch.inference_mode():
            encoder(torch.nn.utils.rnn.pad_sequence(features, batch_first=True), lengths)
        for row, states in enumerate(encoder.output_lengths(lengths).tolist()):
            means = [layer[row, :states].mean(0) for layer in caught]
            found[rows[row]] = torch.stack(means)
        print(
            f"\r{manifest}: {begin + len(rows)} of {len(order)}",
            end="",
            file=sys.stderr,
            flush=True,
        )
    print(file=sys.stderr)
    for hook in hooks:
        hook.remove()
    return found


def _audio(utterance: Utterance, manifest: Path) -> np.ndarray:
    return decode(Path(find(utterance.wav, str(manifest))).read_bytes())


def fit(inputs: Tensor, targets: Tensor, classes: int, penalty: float) -> Tensor:
    """Multinomial logistic regression by L-BFGS: weights (inputs + 1, classes), the last row the
    bias.
    """
    inputs = functional.pad(
        inputs,
        (0, 1),
        value=1.0,
    )
    weights = torch.zeros(inputs.shape[1], classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(inputs @ weights, targets)
        loss = loss + penalty * weights[:-1].square().sum() / classes
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def right(weights: Tensor, inputs: Tensor, targets: Tensor) -> np.ndarray:
    """Tell of each utterance whether the regression says its label."""
    answers = (
        functional.pad(
            inputs,
            (0, 1),
            value=1.0,
        )
        @ weights
    ).argmax(1)
    return (answers == targets).numpy()


def interval(correct: np.ndarray, speakers: list[str]) -> tuple[float, float]:
    """The 95 % interval of an accuracy, in %, when the speakers are drawn anew, all of each one's
    utterances with them.
    """
    names = sorted({*speakers})
    member = np.array([names.index(speaker) for speaker in speakers])
    hits = np.bincount(member, weights=correct)
    sizes = np.bincount(member)
    drawn = np.random.default_rng(777).integers(len(names), size=(RESAMPLES, len(names)))
    values = 100 * hits[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


class Corpora:
    """The prepared corpora, and the states of their splits, computed once."""

    def __init__(
        self, folder: Path, whisper: str, pad_s: float, limit: int | None, kept: Path
    ) -> None:
        self.folder, self.whisper, self.pad_s, self.limit, self.kept = (
            folder,
            whisper,
            pad_s,
            limit,
            kept,
        )
        self.encoder: Encoder | None = None

    def there(self, corpus: str) -> bool:
        """Tell whether all splits of a corpus are prepared."""
        return all(
            (self.folder / corpus / "data" / split / "manifest.jsonl").exists() for split in SPLITS
        )

    def split(self, probe: Probe, split: str) -> tuple[list[Utterance], Tensor]:
        """The utterances of a split that a probe asks, and their states (utterances, layers,
        width).
        """
        manifest = self.folder / probe.corpus / "data" / split / "manifest.jsonl"
        every = list(read_manifest(manifest))
        (field,) = tasks.parse(probe.task).label_fields
        asked = choose(
            every,
            probe.task,
            self.limit,
        )
        if probe.age:
            (age,) = tasks.parse("sap").label_fields
            asked = choose([u for u in every if age.value(u) == probe.age], probe.task, self.limit)
        return asked, self._states(
            f"{probe.corpus}-{split}",
            asked,
            manifest,
        )

    def _states(self, name: str, asked: list[Utterance], manifest: Path) -> Tensor:
        """Their states; those that another probe, or an earlier run, has computed are read."""
        path = self.kept / f"{name}.pt"
        source = [self.whisper, self.pad_s]
        known: dict[str, Tensor] = {}
        if path.exists():
            saved = torch.load(path, weights_only=True)
            known = saved["states"] if saved["source"] == source else {}
        lacking = [u for u in asked if u.key not in known]
        if lacking:
            if self.encoder is None:
                self.encoder = read(self.whisper).eval()
                set_conf(self.encoder.config, self.pad_s)
            known |= zip(
                (u.key for u in lacking),
                pooled_states(
                    self.encoder,
                    lacking,
                    manifest,
                ),
                strict=True,
            )
            self.kept.mkdir(parents=True, exist_ok=True)
            torch.save({"source": source, "states": known}, path)
        return torch.stack([known[u.key] for u in asked])


def run(name: str, probe: Probe, corpora: Corpora) -> Result:
    """Train and test one probe."""
    (field,) = tasks.parse(
        probe.task, {"emotion": probe.labels} if probe.labels else None
    ).label_fields
    splits = {split: corpora.split(probe, split) for split in SPLITS}
    names = sorted({field.value(u) for rows, _ in splits.values() for u in rows})
    targets = {
        split: torch.tensor([names.index(field.value(u)) for u in rows])
        for split, (rows, _) in splits.items()
    }
    states = normalized({split: found for split, (_, found) in splits.items()})
    best = max(
        candidates(
            states,
            targets,
            len(names),
        ),
        key=lambda row: row[0],
    )
    _, layer, penalty, weights = best
    test, _ = splits["test"]
    correct = right(
        weights,
        states["test"][:, layer],
        targets["test"],
    )
    speakers = [u.speaker or u.key for u in test]
    commonest = int(torch.bincount(targets["train"]).argmax())
    majority = 100 * float((targets["test"] == commonest).float().mean())
    counts = (len(splits["train"][0]), len(test), len({*speakers}))
    figures = (100 * float(correct.mean()), *interval(correct, speakers), majority)
    return Result(
        name,
        *figures,
        len(names),
        layer + 1,
        penalty,
        *counts,
    )


def normalized(states: dict[str, Tensor]) -> dict[str, Tensor]:
    """Subtract the training set's mean of every channel and divide by its deviation."""
    mean = states["train"].mean(0)
    deviation = states["train"].std(0).clamp(min=1e-5)
    return {split: (found - mean) / deviation for split, found in states.items()}


def candidates(
    states: dict[str, Tensor], targets: dict[str, Tensor], classes: int
) -> Iterator[tuple[float, int, float, Tensor]]:
    """Fit every layer and penalty: accuracy on dev, the layer, the penalty, the weights."""
    for layer in range(states["train"].shape[1]):
        for penalty in PENALTIES:
            weights = fit(
                states["train"][:, layer],
                targets["train"],
                classes,
                penalty,
            )
            dev = right(weights, states["dev"][:, layer], targets["dev"])
            yield float(dev.mean()), layer, penalty, weights


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whisper", default="openai/whisper-base", help="folder or hub name")
    parser.add_argument("--corpora", type=Path, required=True, help="folder that stage 0 wrote")
    parser.add_argument(
        "--pad_s", type=float, default=0.0, help="silence up to so many seconds before the encoder"
    )
    parser.add_argument(
        "--limit", type=int, help="utterances of a split at most, taken at even distances"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the states and probe.json"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    corpora = Corpora(args.corpora, args.whisper, args.pad_s, args.limit, args.out)
    found = []
    try:
        for name, probe in PROBES.items():
            if not corpora.there(probe.corpus):
                print(f"{name} is left out: {probe.corpus} is not prepared in {args.corpora}")
                continue
            found.append(run(name, probe, corpora))
            print(line(found[-1]), flush=True)
    except (ValueError, OSError) as error:
        print(f"probe.py: {error}", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [result._asdict() for result in found]
    (args.out / "probe.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def line(result: Result) -> str:
    """A result as a sentence."""
    figure = f"{result.accuracy:.1f} % ({result.low:.1f}–{result.high:.1f})"
    data = f"{result.test} utterances of {result.speakers} speakers, trained on {result.train}"
    how = f"layer {result.layer}, L2 {result.penalty:g}"
    return f"{result.probe}: {figure}, majority {result.majority:.1f} %; {data}; {how}"


if __name__ == "__main__":
    sys.exit(main())
