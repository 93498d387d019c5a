"""A training step at the shapes of a conf: by our engine, and by the forwards of transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from transformers import PreTrainedConfig  # noqa: E402
from transformers.models.whisper.modeling_whisper import WhisperEncoder  # noqa: E402

from wenet_osum import config, dist  # noqa: E402
from wenet_osum.models import build, trainable  # noqa: E402
from wenet_osum.records import Batch  # noqa: E402
from wenet_osum.train.dry_run import materialize  # noqa: E402
from wenet_osum.train.estimate import Mean, batch_of, meta_model  # noqa: E402
from wenet_osum.train.optim import make_optimizer  # noqa: E402

WHOLE_S = 30.0


class Phase:
    """The model of a conf with its engine and optimizer, and the ways to take a step."""

    def __init__(
        self,
        conf: config.TrainConfig,
        sizes: tuple[PreTrainedConfig, PreTrainedConfig],
        world: dist.World,
    ) -> None:
        torch.manual_seed(0)
        self.conf = conf
        self.world = world
        empty = meta_model(conf.model, *sizes)
        self.model = materialize(empty)
        trainable.apply_train_parts(self.model, conf.train_parts, conf.optim)
        if conf.checkpointing:
            build.set_checkpointing(self.model)
        self.engine = dist.Engine(self.model, conf, world)

        # The engine may have changed the parameters that train.
        parts = trainable.apply_train_parts(
            self.model,
            conf.train_parts,
            conf.optim,
        )
        self.optimizer = make_optimizer(
            parts,
            conf.optim,
            world.device,
        )
        self.model.train()

    def batch(self, mean: Mean, count: int) -> Batch:
        """Make ``count`` mean utterances."""
        torch.manual_seed(1)
        return batch_of(self.model, mean, count, "cpu")

    def ours(self, batch: Batch) -> torch.Tensor:
        """Compute the mean loss of a token, by the engine."""
        output = self.engine.loss(batch)
        return output.loss / output.weight

    def theirs(self, batch: Batch, heard: bool) -> torch.Tensor:
        """Compute the same by the forwards of transformers.

        ``heard``: only the speech there is goes to the LLM.
        """
        device = self.world.device
        batch = batch.to(device)
        half = self.engine.half
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            speech, lengths = self._speech(batch, heard)
            return self._rows(batch, speech, lengths)

    def _speech(self, batch: Batch, heard: bool) -> tuple[torch.Tensor, list[int]]:
        """Return the adapter's embeddings of 30 s padded, and their lengths."""
        encoder = self.model.encoder
        frames = round(WHOLE_S * 100)
        missing = frames - batch.features.shape[1]
        features = functional.pad(batch.features, (0, 0, 0, missing))
        features = features.transpose(1, 2)
        features = features.to(encoder.conv1.weight.dtype)
        states = WhisperEncoder.forward(encoder, features).last_hidden_state

        heard_frames = batch.feature_lengths.cpu()
        if not heard:
            heard_frames = torch.full_like(heard_frames, frames)
        lengths = encoder.output_lengths(heard_frames)
        longest = int(lengths.max())
        speech, lengths = self.model.adapter(states[:, :longest], lengths)
        return speech, lengths.tolist()

    def _rows(self, batch: Batch, speech: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Compute the loss of rows of prompt, speech and answer, padded on the right, with
        ``labels``."""
        embed = self.model.get_input_embeddings()
        borders = self.model.speech_boundary.weight
        prompt_sizes = batch.prompt_lengths.tolist()
        answer_sizes = batch.answer_lengths.tolist()
        prompts = batch.prompt_ids.split(prompt_sizes)
        answers = batch.answer_ids.split(answer_sizes)
        rows, labels, masks = [], [], []
        for prompt, answer, heard, n in zip(prompts, answers, speech, lengths, strict=True):
            parts = [
                embed(prompt),
                borders[:1],
                heard[:n],
                borders[1:],
                embed(answer),
            ]
            dtype = parts[0].dtype
            row = torch.cat([part.to(dtype) for part in parts])
            before = len(row) - len(answer)
            unscored = answer.new_full((before,), -100)
            rows.append(row)
            labels.append(torch.cat([unscored, answer]))
            masks.append(answer.new_ones(len(row)))
        inputs = pad_sequence(rows, batch_first=True)
        mask = pad_sequence(masks, batch_first=True)
        targets = pad_sequence(
            labels,
            batch_first=True,
            padding_value=-100,
        )
        return self.model.llm(
            inputs_embeds=inputs,
            attention_mask=mask,
            labels=targets,
            use_cache=False,
        ).loss

    def step(self, loss: Callable[[], torch.Tensor]) -> None:
        """Take an optimizer step on one micro-batch."""
        loss().backward()
        self.engine.clip(self.conf.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def check(phase: Phase, text: Mean) -> None:
    """Stop unless all ways have the same loss on 30 s, where nothing is padded. bfloat16 keeps
    three digits.
    """
    whole = Mean(WHOLE_S, text.prompt_tokens, text.answer_tokens)
    batch = phase.batch(whole, 2)
    phase.model.eval()  # no dropout
    with torch.no_grad():
        ours = float(phase.ours(batch))
        others = []
        for heard in (True, False):
            loss = phase.theirs(batch, heard)
            others.append(float(loss))
    phase.model.train()
    tolerance = 0.02 if phase.engine.half else 1e-4
    for other in others:
        difference = abs(ours - other)
        assert difference < tolerance * ours, f"losses {ours} and {others}"
