"""Where each piece of an utterance lies, seen through embeddings that tell which token they are."""

from __future__ import annotations

import torch
from torch import nn

from wenet_osum.models.layout import Pieces, lay_out, pad_left

TOKENS, START, END = 30, 90.0, 91.0
EMBED = nn.Embedding.from_pretrained(torch.arange(float(TOKENS))[:, None])
BOUNDARY = nn.Embedding.from_pretrained(torch.tensor([[START], [END]]))
SPEECH = torch.tensor([[[50.0], [51.0], [0.0]], [[60.0], [61.0], [62.0]]])  # the third of row 0 is padding


def two(**more: torch.Tensor) -> Pieces:
    prompts = {"prompt_ids": torch.tensor([1, 2, 3]), "prompt_lengths": torch.tensor([2, 1])}
    return Pieces(**prompts, speech=SPEECH, speech_lengths=torch.tensor([2, 3]), **more)


def test_prompt_speech_suffix_and_answer_stand_in_this_order():
    answers = {"answer_ids": torch.tensor([5, 6, 7]), "answer_lengths": torch.tensor([1, 2])}
    laid, lengths = lay_out(EMBED, BOUNDARY, two(suffix_ids=torch.tensor([20, 21]), **answers))
    first, second = laid[:, 0].split(lengths.tolist())
    assert first.tolist() == [1, 2, START, 50, 51, END, 20, 21, 5]
    assert second.tolist() == [3, START, 60, 61, 62, END, 20, 21, 6, 7]
    plain, lengths = lay_out(EMBED, BOUNDARY, two(**answers))
    first, second = plain[:, 0].split(lengths.tolist())
    assert first.tolist() == [1, 2, START, 50, 51, END, 5]
    assert second.tolist() == [3, START, 60, 61, 62, END, 6, 7]


def test_padding_stands_before_and_is_masked():
    padded, mask = pad_left(*lay_out(EMBED, BOUNDARY, two(suffix_ids=torch.tensor([20]))))
    assert padded[:, :, 0].tolist() == [
        [1, 2, START, 50, 51, END, 20],
        [3, START, 60, 61, 62, END, 20],
    ]
    assert mask.tolist() == [[1] * 7] * 2, "both are of one length"
    shorter = Pieces(torch.tensor([1, 2, 3]), torch.tensor([2, 1]), SPEECH, torch.tensor([1, 1]))
    padded, mask = pad_left(*lay_out(EMBED, BOUNDARY, shorter))
    assert padded[1, :, 0].tolist() == [0, 3, START, 60, END] and mask[1].tolist() == [0, 1, 1, 1, 1]
