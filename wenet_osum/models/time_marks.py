"""The time, written into the speech of tasks that ask for word times.

An LLM that is to say when a word was spoken would have to count embeddings. With
``model.time_marks`` 0.4 the text "0", "0.4", "0.8", … in the LLM's own token embeddings stands
before the embedding where each of these seconds begins. So a time is read off, and only a few
embeddings are counted. TimeMarker (arXiv 2411.18211) writes times between the frames of a video for
the same reason. Nothing of it has weights.

Letters: B utterances, S speech embeddings of the longest, H width of the LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.devices import to_device
from wenet_osum.models.shrink import keeps_all

# Speech has marks if a task has at least the fields of one of these.
WITH_TIMES = ("srwt",)
# What marks are written with, each a token.
CHARACTERS = "0123456789."
# A share of an embedding by which a mark may miss where one begins.
TOLERANCE = 0.01


def begin(model: Any, every_s: float, encode: Callable[[str], list[int]]) -> None:
    """Let ``model`` hear the time every ``every_s`` seconds; its config.json keeps that.

    ``encode`` turns texts to tokens of the LLM. Raises ValueError for an adapter without a fixed
    rate, one that shrinks speech whose words are to get times, and marks between two embeddings.
    """
    embeddings_between(every_s, model.embedding_s)
    adapter = model.adapter
    if hasattr(adapter, "shrinker") and not keeps_all(WITH_TIMES[0], adapter.unshrunk):
        raise ValueError(
            "model.time_marks: the adapter shrinks speech whose words are to get times, so that it "
            "has no times; set adapter_conf.unshrunk: [srwt]"
        )
    # A tokenizer that puts a sign before the first word gives two tokens; the last is meant.
    tokens = {character: encode(character)[-1] for character in CHARACTERS}
    model.config.time_marks = {"every_s": every_s, "tokens": tokens}


def embeddings_between(every_s: float, embedding_s: float) -> int:
    """Return how many embeddings of ``embedding_s`` seconds lie between marks ``every_s`` apart.

    Raises ValueError where that is no whole number.
    """
    exact = every_s / embedding_s
    count = round(exact)
    if count < 1 or abs(exact - count) > TOLERANCE:
        raise ValueError(
            f"model.time_marks {every_s}: an embedding of speech is {embedding_s:g} s long, "
            "so marks must be a multiple of it apart"
        )
    return count


def add(
    model: Any, speech: Tensor, lengths: Tensor, front: int, tasks: Sequence[str] | None
) -> tuple[Tensor, Tensor]:
    """Write marks into the speech (B, S, H) of utterances whose ``tasks`` ask for word times.

    ``front`` embeddings before the speech have no time. Returns the embeddings and their lengths
    (B,), on the CPU; the same where the model has no marks or no task asks.
    """
    marks = model.config.time_marks
    marked = [keeps_all(task, WITH_TIMES) for task in tasks or ()]
    if not marks or not any(marked):
        return speech, lengths

    # All marks that the longest utterance needs, as the LLM embeds them.
    between = embeddings_between(marks["every_s"], model.embedding_s)
    most = int(lengths.max()) - front
    count = number_of_marks(most, between)
    ids, sizes = written(marks, count)
    ids = to_device(ids, speech.device)
    embed = model.get_input_embeddings()
    text = embed(ids)
    text = text.to(speech)
    texts = text.split(sizes)

    parts = []
    for row, length in enumerate(lengths.tolist()):
        own = speech[row, :length]
        if marked[row]:
            labels = own[:front]
            frames = own[front:]
            blocks = frames.split(between)
            timed = interleave(texts, blocks)
            own = torch.cat([labels, timed])
        parts.append(own)
    padded = pad_sequence(parts, batch_first=True)
    counts = [len(part) for part in parts]
    return padded, torch.tensor(counts)


def interleave(texts: Sequence[Tensor], blocks: Sequence[Tensor]) -> Tensor:
    """Put a text before each block of embeddings, (…, H) each, as far as there are blocks."""
    pieces: list[Tensor] = []
    for text, block in zip(texts, blocks, strict=False):
        pieces += [text, block]
    return torch.cat(pieces)


def added(model: Any, embeddings: Tensor) -> Tensor:
    """Count the positions that marks add at most to so many ``embeddings`` (n,) of speech."""
    marks = model.config.time_marks
    if not marks:
        return torch.zeros_like(embeddings)
    between = embeddings_between(marks["every_s"], model.embedding_s)
    counts = number_of_marks(embeddings, between)
    most = int(counts.max())
    _, sizes = written(marks, most)
    positions = torch.tensor([0, *sizes])
    totals = positions.cumsum(0)
    return totals[counts]


def number_of_marks(embeddings: Any, between: int) -> Any:
    """Count the marks of so many embeddings; the first stands before all of them."""
    incomplete = between - 1
    return (embeddings + incomplete) // between


def written(marks: dict[str, Any], count: int) -> tuple[Tensor, list[int]]:
    """Return the tokens of the first ``count`` marks, end to end, and how many each has.

    ``marks`` is what config.json holds: ``every_s`` and ``tokens``, those of ``CHARACTERS``.
    """
    tokens = marks["tokens"]
    ids: list[int] = []
    sizes: list[int] = []
    for number in range(count):
        seconds = number * marks["every_s"]
        seconds = round(seconds, 3)
        text = f"{seconds:g}"
        sizes.append(len(text))
        ids += [tokens[character] for character in text]
    return torch.tensor(ids), sizes
