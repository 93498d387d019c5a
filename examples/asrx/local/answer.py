"""Answers of a model of phase 1, whose decoder takes the place of the LLM: the same walk through
the fields, labels limited to their sets.

Letters: B utterances, N encoder states, U tokens of the longest text so far, V vocabulary.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.config import BatchConfig
from wenet_osum.dataset.dataset import eval_loader
from wenet_osum.decode.constrain import AnswerState
from wenet_osum.decode.generate import hypothesis
from wenet_osum.decode.greedy import complete
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.row import Row
from wenet_osum.models.lengths import valid_mask
from wenet_osum.models.whisper import WhisperPhase, run_decoder
from wenet_osum.records import Batch, Hypothesis
from wenet_osum.text.template import Template

BATCH = BatchConfig(max_frames=24000, max_utterances=32)


class Heard:
    """What a batch has heard and said so far. It stands where decode/prefix.py's Prefixes stand;
    small decoders read the whole text at every step.
    """

    def __init__(self, model: WhisperPhase, batch: Batch) -> None:
        self.model = model
        self.states, self.lengths = model.encoder(
            batch.features, batch.feature_lengths
        )  # (B, N, D)
        prompts = batch.prompt_ids.split(batch.prompt_lengths.tolist())
        self.texts = [[model.config.decoder_start_token_id, *ids.tolist()] for ids in prompts]
        self.logits = self._next()

    def _run(self, rows: list[int], texts: list[list[int]]) -> Tensor:
        """Log-probabilities (len(rows), U, V) after every token of ``texts``, each heard by its
        row.
        """
        ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
        mask = valid_mask(self.lengths[rows], self.states.shape[1], self.states.device)
        hidden = run_decoder(
            self.model.decoder,
            ids,
            self.states[rows],
            mask if mask is None else mask[:, None, None, :],
        )
        return self.model.proj_out(hidden).float().log_softmax(-1)

    def _next(self) -> Tensor:
        logs = self._run([*range(len(self.texts))], self.texts)
        return logs[torch.arange(len(self.texts)), [len(text) - 1 for text in self.texts]]

    def feed(self, tokens: list[int]) -> None:
        """Append a token to every text."""
        self.texts = [
            [*text, token]
            for text, token in zip(
                self.texts,
                tokens,
                strict=True,
            )
        ]
        self.logits = self._next()

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows."""
        self.texts = [self.texts[i] for i in rows]
        self.states = self.states[rows]
        self.lengths = self.lengths[rows]
        self.logits = self.logits[rows]

    def score(self, rows: list[int], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Log-probability of every continuation of the given rows, as a whole."""
        pairs = [
            (row, ids)
            for row, options in zip(
                rows,
                continuations,
                strict=True,
            )
            for ids in options
        ]
        logs = self._run(
            [row for row, _ in pairs], [[*self.texts[row], *ids[:-1]] for row, ids in pairs]
        )
        sums = iter(
            [
                sum(
                    logs[i, len(self.texts[row]) - 1 + k, token].item()
                    for k, token in enumerate(ids)
                )
                for i, (row, ids) in enumerate(pairs)
            ]
        )
        return [[next(sums) for _ in options] for options in continuations]


@torch.inference_mode()
def answers(
    model: WhisperPhase, template: Template, list_path: str, tags: str
) -> dict[str, Hypothesis]:
    """Key → answer of every utterance of a list that holds the task's fields. Raises ValueError for
    a list that cannot be used.
    """
    task = template.task(tags)
    found = {}
    model.eval()
    for batch in eval_loader(list_path, tags, template, BATCH, model.config.num_mel_bins):
        rows = [
            Row(key, AnswerState(template, task), seconds)
            for key, seconds in zip(batch.keys, batch.audio_s, strict=True)
        ]
        complete(
            Heard(model, batch),
            rows,
            DecodeOptions(),
            Counter(),
        )
        found |= {row.key: hypothesis(row, template) for row in rows}
    return found
