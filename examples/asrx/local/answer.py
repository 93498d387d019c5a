"""Answers of a model of phase 1, whose decoder takes the place of the LLM.

It walks through the fields as an LLM does, labels limited to their sets. Letters: B utterances, N
encoder states, U tokens of the longest text so far, V vocabulary.
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
    """What a batch has heard and said so far.

    It stands where decode/prefix.py's Prefixes stand; small decoders read the whole text at every
    step.
    """

    def __init__(self, model: WhisperPhase, batch: Batch) -> None:
        self.model = model
        # (B, N, D), (B,)
        self.states, self.lengths = model.encoder(batch.features, batch.feature_lengths)
        begin = model.config.decoder_start_token_id
        prompts = batch.prompt_ids.split(batch.prompt_lengths.tolist())
        self.texts = [[begin, *ids.tolist()] for ids in prompts]
        self.logits = self._next()

    def _run(self, rows: list[int], texts: list[list[int]]) -> Tensor:
        """Return log-probabilities (len(rows), U, V) after every token of ``texts``.

        Each text is heard by its row.
        """
        ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
        states = self.states[rows]
        mask = valid_mask(self.lengths[rows], states.shape[1], states.device)
        if mask is not None:
            mask = mask[:, None, None, :]
        hidden = run_decoder(
            self.model.decoder,
            ids,
            states,
            mask,
        )
        logits = self.model.proj_out(hidden)
        return logits.float().log_softmax(-1)

    def _next(self) -> Tensor:
        """Return log-probabilities (B, V) after the last token of every text."""
        rows = list(range(len(self.texts)))
        logs = self._run(rows, self.texts)
        last = [len(text) - 1 for text in self.texts]
        return logs[torch.arange(len(rows)), last]

    def feed(self, tokens: list[int]) -> None:
        """Append a token to every text."""
        pairs = zip(self.texts, tokens, strict=True)
        self.texts = [[*text, token] for text, token in pairs]
        self.logits = self._next()

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows."""
        self.texts = [self.texts[row] for row in rows]
        self.states = self.states[rows]
        self.lengths = self.lengths[rows]
        self.logits = self.logits[rows]

    def score(self, rows: list[int], continuations: list[list[list[int]]]) -> list[list[float]]:
        """Return the log-probability of every continuation of the given rows, as a whole."""
        # All continuations of all rows are one batch.
        heard = []
        texts = []
        for row, options in zip(rows, continuations, strict=True):
            for ids in options:
                heard.append(row)
                texts.append([*self.texts[row], *ids[:-1]])
        logs = iter(self._run(heard, texts))

        scores = []
        for row, options in zip(rows, continuations, strict=True):
            begin = len(self.texts[row]) - 1
            scores.append(
                [
                    _sum(
                        next(logs),
                        begin,
                        ids,
                    )
                    for ids in options
                ]
            )
        return scores


def _sum(logs: Tensor, begin: int, ids: list[int]) -> float:
    """Add up the log-probabilities of tokens that follow each other; ``logs`` (U, V)."""
    total = 0
    for place, token in enumerate(ids, begin):
        total += logs[place, token].item()
    return total


@torch.inference_mode()
def answers(
    model: WhisperPhase, template: Template, list_path: str, tags: str
) -> dict[str, Hypothesis]:
    """Return by key the answer of every utterance of a list that holds the task's fields.

    Raises ValueError for a list that cannot be used.
    """
    task = template.task(tags)
    mels = model.config.num_mel_bins
    found = {}
    model.eval()
    for batch in eval_loader(list_path, tags, template, BATCH, mels):
        rows = []
        for key, seconds in zip(batch.keys, batch.audio_s, strict=True):
            state = AnswerState(template, task)
            rows.append(Row(key, state, seconds))
        complete(
            Heard(model, batch),
            rows,
            DecodeOptions(),
            Counter(),
        )
        for row in rows:
            found[row.key] = hypothesis(row, template)
    return found
