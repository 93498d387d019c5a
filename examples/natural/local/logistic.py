"""Multinomial logistic regression on the states of an encoder's layers, and how sure its accuracy
is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the mean squared weight, tried on dev
RESAMPLES = 1000


def fit(inputs: Tensor, targets: Tensor, classes: int, penalty: float) -> Tensor:
    """Fit multinomial logistic regression by L-BFGS: weights (inputs + 1, classes), the last row
    the bias.
    """
    inputs = with_bias(inputs)
    weights = torch.zeros(inputs.shape[1], classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = inputs @ weights
        squares = weights[:-1].square().sum()
        loss = functional.cross_entropy(scores, targets)
        loss = loss + penalty * squares / classes
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def with_bias(inputs: Tensor) -> Tensor:
    """Put a 1 behind each row of ``inputs``."""
    return functional.pad(inputs, (0, 1), value=1.0)


def right(weights: Tensor, inputs: Tensor, targets: Tensor) -> np.ndarray:
    """Tell of each utterance whether the regression says its label."""
    inputs = with_bias(inputs)
    scores = inputs @ weights
    answers = scores.argmax(1)
    correct = answers == targets
    return correct.numpy()


def interval(correct: np.ndarray, speakers: list[str]) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, in %, when the speakers are drawn anew, all of each
    one's utterances with them.
    """
    # How many answers each speaker has, and how many of them are right.
    names, member = np.unique(speakers, return_inverse=True)
    hits = np.bincount(member, weights=correct)
    sizes = np.bincount(member)

    # As many speakers as there are, drawn with replacement, many times over.
    count = len(names)
    shape = (RESAMPLES, count)
    generator = np.random.default_rng(777)
    drawn = generator.integers(count, size=shape)
    drawn_hits = hits[drawn].sum(1)
    drawn_sizes = sizes[drawn].sum(1)
    accuracies = 100 * drawn_hits / drawn_sizes
    low, high = np.percentile(accuracies, [2.5, 97.5])
    return float(low), float(high)


def majority(train: Tensor, test: Tensor) -> float:
    """Return the accuracy, in %, of always answering the commonest class of ``train``."""
    counts = torch.bincount(train)
    commonest = counts.argmax()
    hits = (test == commonest).float()
    share = float(hits.mean())
    return 100 * share


def normalized(states: dict[str, Tensor]) -> dict[str, Tensor]:
    """Subtract the training set's mean of every channel and divide by its deviation."""
    train = states["train"]
    mean = train.mean(0)
    deviation = train.std(0).clamp(min=1e-5)

    normal = {}
    for split, found in states.items():
        normal[split] = (found - mean) / deviation
    return normal


def candidates(
    states: dict[str, Tensor], targets: dict[str, Tensor], classes: int
) -> Iterator[tuple[float, int, float, Tensor]]:
    """Fit every layer and penalty: accuracy on dev, the layer, the penalty, the weights."""
    # The splits layer by layer: (layers, utterances, width).
    train = states["train"].transpose(0, 1)
    dev = states["dev"].transpose(0, 1)

    for layer, inputs in enumerate(train):
        for penalty in PENALTIES:
            weights = fit(inputs, targets["train"], classes, penalty)
            correct = right(weights, dev[layer], targets["dev"])
            accuracy = float(correct.mean())
            yield accuracy, layer, penalty, weights
